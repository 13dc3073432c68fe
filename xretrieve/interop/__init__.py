"""Other people's models and arrays: `replay` of stored arrays, `import_checkpoint` of published checkpoints."""

from __future__ import annotations

from xretrieve.interop.checkpoints import import_checkpoint
from xretrieve.interop.replay import replay

__all__ = ["import_checkpoint", "replay"]
