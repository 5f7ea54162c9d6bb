"""Real models from PyPI, each with its calibration data and its task metric."""
