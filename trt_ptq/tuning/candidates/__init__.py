"""Candidates: INT8 models of a float model by recipes."""
