"""onnxruntime and the exporter, where they are installed (the extra ``onnx``)."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from xretrieve.errors import XRetrieveError, first_line


def need_onnx(module: str, why: str) -> None:
    """Raise an error that says how to install what is missing.

    >>> need_onnx("json", "this reads JSON")
    """
    if importlib.util.find_spec(module) is None:
        raise XRetrieveError(f"{why}, and {module} is not installed: pip install 'xretrieve[onnx]'")


def open_session(path: str | Path) -> Any:
    """An ``onnxruntime.InferenceSession`` over a graph, on as many threads as torch has; a broken file is an error."""
    import onnxruntime
    import torch

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    wanted = ("CUDAExecutionProvider", "CPUExecutionProvider")
    here = onnxruntime.get_available_providers()
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=[name for name in wanted if name in here])
    except Exception as error:  # onnxruntime raises a type of its own for each kind of trouble
        said = first_line(error)
        raise XRetrieveError(f"{path}: not a graph that onnxruntime runs ({said}); export the run again") from error
