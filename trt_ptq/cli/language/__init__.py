"""What commands do and say for language models."""
