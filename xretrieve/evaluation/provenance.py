"""What stands beside a number so that it can be believed: which model, computed in what, when, with which versions."""

from __future__ import annotations

import os
import platform
import sys
import time
from typing import Any

import numpy as np


def row_name(matcher: Any, name: str = "") -> str:
    """What a matcher is called in tables; a star at the end marks an average of several."""
    name = name or getattr(matcher, "name", "") or type(matcher).__name__
    return name if len(getattr(matcher, "members", ())) < 2 or name.endswith("*") else f"{name}*"


def identity(matcher: Any) -> dict[str, str]:
    """Which model a report is about."""
    fingerprint = getattr(matcher, "fingerprint", lambda: "")()
    named = {name: str(getattr(matcher, name, "")) for name in ("name", "source")}
    return {"name": named["name"], "fingerprint": fingerprint, "source": named["source"]}


def scored_in(matcher: Any) -> dict[str, str]:
    """The ``precision`` of a report on this matcher."""
    told = getattr(matcher, "scored_in", None)
    return {"scored": told()} if told is not None else {}


def stamp() -> str:
    """Date and time, UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def versions() -> dict[str, str]:
    """Python, the libraries that are loaded, and the machine."""
    from xretrieve.version import __version__

    found = {"xretrieve": __version__, "python": platform.python_version(), "numpy": np.__version__}
    for module in ("torch", "timm", "open_clip", "transformers"):
        if module in sys.modules:
            found[module] = str(getattr(sys.modules[module], "__version__", "?"))
    found["machine"] = f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores"
    return found
