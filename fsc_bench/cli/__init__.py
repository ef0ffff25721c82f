"""The command line: one file a group of commands, tied together by main.py. It computes nothing."""
