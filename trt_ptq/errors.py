"""Every error that trt_ptq raises on purpose.

TrtPtqError                what was wrong, where, and what to do: printed as one line, exit status 2
├── ModelError             the model file or its graph
├── DataError              calibration or test data
├── StatisticsError        a statistics file, or statistics that do not fit together
├── TableError             a calibration table or TensorRT cache
├── EngineError            an engine could not be built or run
├── OutputError            a result could not be written
├── ClusterError           a Ray cluster, or a node of it
├── UsageError             an argument that makes no sense
└── MissingPackageError    an optional package is not installed
"""


class TrtPtqError(Exception):
    """Base of all errors whose message is meant for the user as it is."""


class ModelError(TrtPtqError):
    """The model cannot be read, or cannot be used for what was asked."""


class DataError(TrtPtqError):
    """A batch, a file of batches or a whole data set is unusable."""


class StatisticsError(TrtPtqError):
    """A statistics file is damaged, or two statistics do not belong together."""


class TableError(TrtPtqError):
    """A calibration table is damaged, incomplete, or belongs to another model."""


class EngineError(TrtPtqError):
    """A backend refused to build or to run an engine."""


class OutputError(TrtPtqError):
    """A file could not be written; whatever was there before is untouched."""


class ClusterError(TrtPtqError):
    """There is no cluster, a node is not set up for the work, or workers are lost again and again."""


class UsageError(TrtPtqError):
    """An option or argument has no meaning here."""


class MissingPackageError(TrtPtqError):
    """An optional package is missing; the message is the command that installs it."""
