"""Checkpoints: from files with weights to plain state dicts, without executing what they hold."""
