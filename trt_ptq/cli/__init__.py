"""The `trt-ptq` command: one file per command, no logic of its own."""
