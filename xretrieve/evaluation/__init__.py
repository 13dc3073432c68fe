"""Evaluation: ranks, recalls, intervals, named protocols and reports.

The public names are loaded on first use. No module here is called like one of them: importing it would hide the name.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "evaluate": "xretrieve.evaluation.evaluator",
    "evaluate_scores": "xretrieve.evaluation.evaluator",
    "score_matrix": "xretrieve.evaluation.evaluator",
    "Report": "xretrieve.evaluation.report",
    "Protocol": "xretrieve.evaluation.protocol",
    "get_protocol": "xretrieve.evaluation.protocols",
    "list_protocols": "xretrieve.evaluation.protocols",
    "compare": "xretrieve.evaluation.comparison",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'xretrieve.evaluation' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
