"""Data: from a benchmark's raw files to records, and from an image reference to pixels."""
