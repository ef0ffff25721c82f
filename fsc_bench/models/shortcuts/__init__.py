"""Shortcuts: what makes an exact tower faster, each tried against the plain way, each deletable."""
