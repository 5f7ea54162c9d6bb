"""Adapters: models, tables and metrics in any form that the public functions accept."""
