"""The search for layers to exclude."""
