"""Rotation of the residual stream of a transformer."""
