"""What a whole `quantize` costs: batches produced, inference runs, models built, seconds and memory."""
