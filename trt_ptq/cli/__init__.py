"""The `trt-ptq` command: one file a subcommand; no logic of its own."""
