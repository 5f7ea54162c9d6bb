"""From activations to a calibration table, and from batches to TensorRT."""
