"""Where the CPU time of scoring goes, by kind of operation: `--profile` of scoring.py and rounds.py.

Every torch operation is timed by itself (CPU seconds of this process) and put into one of a few kinds; of products the
multiply-adds are counted too, those of padded tokens included. What is left of the whole is Python and torch's own
bookkeeping: some of it is the timing's own.
"""

from __future__ import annotations

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

KINDS: dict[str, tuple[str, ...]] = {
    "weight products": ("_linear_pointwise", "addmm", "mm", "linear", "_addmm_activation"),
    "pair products": ("bmm", "baddbmm", "baddbmm_"),
    "norms": ("linalg_vector_norm", "clamp_", "clamp", "sqrt", "rsqrt", "reciprocal"),
    "softmax": ("_softmax", "exp", "exp_", "aminmax", "div_", "sum", "cumsum", "_local_scalar_dense"),
    "elementwise": ("mul", "mul_", "add", "add_", "sub", "sub_", "div", "square", "square_", "pow", "pow_", "mse_loss",
                    "lerp", "lerp_", "sigmoid", "sigmoid_", "addcmul", "addcmul_", "leaky_relu", "relu_", "leaky_relu_",
                    "stack"),
    "copies": ("copy_", "clone", "_to_copy", "cat", "index", "index_select", "_reorder_linear_weight",
               "constant_pad_nd", "gather"),
}  # fmt: skip
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


class Profile(TorchDispatchMode):
    """Times the operations run inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: dict[str, float] = defaultdict(float)
        self.work: dict[str, float] = defaultdict(float)  # multiply-adds
        self.calls: dict[str, int] = defaultdict(int)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        kind = KIND_OF.get(name, "others")
        start = time.thread_time()
        found = func(*args, **(kwargs or {}))
        self.seconds[kind] += time.thread_time() - start
        self.calls[kind] += 1
        if kind.endswith("products"):
            x, out = args[1 if name in ("addmm", "baddbmm", "baddbmm_", "_addmm_activation") else 0], found
            self.work[kind] += out.numel() * x.shape[-1]
        return found


def profile(work: Callable[[], Tensor], runs: int = 1) -> tuple[Profile, float]:
    """What ``work`` spends where, and its CPU seconds as a whole: the median of runs that are not timed inside."""
    seconds = []
    for _ in range(runs):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    with Profile() as found:
        work()
    return found, statistics.median(seconds)


def table(found: Profile, whole: float, peak: float) -> str:
    """Lines of kind, share of the CPU time, calls, and how fast its products are beside ``peak`` (a CPU second)."""
    lines = [f"{'kind':18}{'CPU s':>9}{'share':>8}{'calls':>9}{'of peak':>9}"]
    for kind in [*KINDS, "others"]:
        seconds, work = found.seconds[kind], found.work[kind]
        speed = f"{work / seconds / peak:.2f}" if work else ""
        lines.append(f"{kind:18}{seconds:9.3f}{seconds / whole:8.1%}{found.calls[kind]:9}{speed:>9}")
    left = whole - sum(found.seconds.values())
    lines.append(f"{'the rest':18}{left:9.3f}{left / whole:8.1%}")
    lines.append(f"{'whole':18}{whole:9.3f}{'':8}{'':9}{sum(found.work.values()) / whole / peak:9.2f}")
    return "\n".join(lines)
