"""Installed packages: which are missing, which clash, and what they print."""
