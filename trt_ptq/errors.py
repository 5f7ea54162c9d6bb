"""The errors that trt_ptq raises.

TrtPtqError                says what is wrong, where, and what to do: printed as one line, exit status 2
├── ModelError             the model file or its graph
├── DataError              calibration or test data
├── StatisticsError        a statistics file, or statistics that do not belong together
├── TableError             a calibration table or TensorRT cache
├── EngineError            an engine that could not be built or run
│   └── UnsupportedLayerError  a layer that the builder has no implementation for
├── OutputError            a file that could not be written
├── ClusterError           a Ray cluster, or one of its nodes
├── UsageError             an invalid argument or option
└── MissingPackageError    an optional package that is not installed
"""


class TrtPtqError(Exception):
    """Base class. The message is written for users; parameters in it stand in backticks."""


class ModelError(TrtPtqError):
    """The model cannot be read, or does not support the operation."""


class DataError(TrtPtqError):
    """A batch, a data file or a whole data set cannot be used."""


class StatisticsError(TrtPtqError):
    """A statistics file is damaged, or two statistics do not belong together."""


class TableError(TrtPtqError):
    """A calibration table is damaged, incomplete, or belongs to another model."""


class EngineError(TrtPtqError):
    """An engine cannot be built or run."""


class UnsupportedLayerError(EngineError):
    """The builder has no implementation for a layer; `layer` is its name in the builder's message."""

    def __init__(self, message: str, layer: str = "") -> None:
        super().__init__(message)
        self.layer = layer


class OutputError(TrtPtqError):
    """A file could not be written; the previous file, if any, is untouched."""


class ClusterError(TrtPtqError):
    """The cluster cannot be reached, a node is set up differently, or workers die repeatedly."""


class UsageError(TrtPtqError):
    """An argument or option is invalid, alone or together with others."""


class MissingPackageError(TrtPtqError):
    """An optional package is missing; the message contains the command that installs it."""
