"""Run: every selected model on every selected task, from raw files to results on disk."""
