"""The `trt-ptq` command: one file per command, in the folder of its panel of `--help`; no logic of its own."""
