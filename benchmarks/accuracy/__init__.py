"""INT8 by ONNX Runtime, modelopt and trt_ptq, from the same models and data, evaluated on the same test data."""
