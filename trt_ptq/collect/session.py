"""ONNX Runtime sessions, set up once for measuring and for checking."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnxruntime as ort

from trt_ptq.calibrators.errors import ModelError

_QUIET = 3  # errors only


def create_session(proto: onnx.ModelProto, folder: Path, name: str) -> ort.InferenceSession:
    """A session for `proto`, whose external weights lie in `folder`; `name` is for messages.

    Graph optimisation stays on, and idle workers sleep instead of spinning on the core that counts.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _QUIET
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder.resolve()))
    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime has no common base for its errors
        reason = str(error).strip().splitlines()[0]
        raise ModelError(f"{name}: ONNX Runtime cannot load it: {reason}") from error


def runtime_version() -> str:
    """What ran the model, for provenance."""
    return f"onnxruntime {ort.__version__}"
