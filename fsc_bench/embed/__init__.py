"""Embed: which images and texts are needed, their vectors, and where vectors are kept."""
