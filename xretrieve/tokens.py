"""`Tokens`: what every item and every query becomes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass
class Tokens:
    """A padded batch: regions, patches, words and query sets alike.

    Args:
        local: (N, L, D) local tokens, anything at padded places (the heads mask on entry).
        mask: (N, L) bool, True where a token is real.
        pooled: (N, P) one vector per item; P is D unless the backbone projects it (CLIP).

    >>> t = Tokens.from_local(torch.ones(2, 3, 4), torch.tensor([[True, True, False], [True, False, False]]))
    >>> len(t), t.lengths.tolist(), tuple(t.pooled.shape)
    (2, [2, 1], (2, 4))
    """

    local: Tensor
    mask: Tensor
    pooled: Tensor

    def __post_init__(self) -> None:
        n, length = self.mask.shape
        if (
            self.local.ndim != 3
            or self.local.shape[:2] != (n, length)
            or self.pooled.ndim != 2
            or len(self.pooled) != n
        ):
            raise XRetrieveError(
                f"Tokens: local {tuple(self.local.shape)}, mask {tuple(self.mask.shape)} and pooled "
                f"{tuple(self.pooled.shape)} do not fit; they must be (N,L,D), (N,L) and (N,P)"
            )

    @classmethod
    def from_local(cls, local: Tensor, mask: Tensor | None = None) -> Self:
        """Tokens whose pooled vector is the mean of the real local tokens. local (N,L,D), mask (N,L)."""
        if mask is None:
            mask = torch.ones(local.shape[:2], dtype=torch.bool, device=local.device)
        kept = local.masked_fill(~mask[..., None], 0)
        pooled = kept.sum(1) / mask.sum(1, keepdim=True).clamp(min=1).to(local.dtype)
        return cls(local, mask, pooled)

    @classmethod
    def from_pooled(cls, pooled: Tensor) -> Self:
        """Tokens with no local tokens (L = 0), for models that only give one vector. pooled (N,P)."""
        n = len(pooled)
        return cls(
            pooled.new_zeros(n, 0, pooled.shape[1]), torch.zeros(n, 0, dtype=torch.bool, device=pooled.device), pooled
        )

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Join batches along N, padding to the longest L."""
        if not parts:
            raise XRetrieveError("Tokens.cat: nothing to join")
        longest = max(p.local.shape[1] for p in parts)
        parts = [p.pad_to(longest) for p in parts]
        return cls(*(torch.cat([getattr(p, k) for p in parts]) for k in ("local", "mask", "pooled")))

    @property
    def lengths(self) -> Tensor:
        """(N,) int64, real tokens of each item."""
        return self.mask.sum(1)

    @property
    def device(self) -> torch.device:
        """Where the arrays lie."""
        return self.pooled.device

    def __len__(self) -> int:
        return len(self.pooled)

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> Self:
        """Some items, still a batch (an int index is refused: it would drop the batch axis)."""
        if isinstance(rows, int):
            raise TypeError("Tokens[i] drops the batch axis; write Tokens[i : i + 1]")
        if not isinstance(rows, (slice, Tensor)):
            rows = torch.as_tensor(rows, dtype=torch.long)
        return type(self)(self.local[rows], self.mask[rows], self.pooled[rows])

    def pad_to(self, length: int) -> Self:
        """Zero-pad the token axis to ``length``."""
        n, now, d = self.local.shape
        if length == now:
            return self
        if length < now:
            raise XRetrieveError(f"Tokens.pad_to({length}) would cut {now - length} tokens")
        local = torch.cat([self.local, self.local.new_zeros(n, length - now, d)], 1)
        mask = torch.cat([self.mask, self.mask.new_zeros(n, length - now)], 1)
        return type(self)(local, mask, self.pooled)

    def trim(self) -> Self:
        """Cut the token axis after the last token that is real in any item (one place stays).

        Nothing is cut while a graph is made (torch.compile, ONNX): its shapes cannot follow what a mask says.
        """
        if torch.compiler.is_compiling():
            return self
        used = self.mask.any(0).nonzero()
        length = int(used[-1]) + 1 if len(used) else min(1, self.local.shape[1])
        if length == self.local.shape[1]:
            return self
        return type(self)(self.local[:, :length], self.mask[:, :length], self.pooled)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move and cast (the mask stays bool)."""
        return type(self)(
            self.local.to(device=device, dtype=dtype),
            self.mask.to(device=device),
            self.pooled.to(device=device, dtype=dtype),
        )

    def check_finite(self, ids: Sequence[str] | None = None) -> Self:
        """Raise an error that names the first item with a NaN or infinite real value; returns self."""
        if torch.isfinite(self.local.sum() + self.pooled.sum()):  # then all of them are; padded places may not be
            return self
        bad = ~torch.isfinite(self.local).all(-1)  # (N,L)
        bad = (bad & self.mask).any(1) | ~torch.isfinite(self.pooled).all(-1)
        if bad.any():
            row = int(bad.nonzero()[0])
            name = ids[row] if ids is not None else f"row {row}"
            raise XRetrieveError(
                f"features of {name} hold NaN or infinite values ({int(bad.sum())} such items); extract them again"
            )
        return self


@dataclass
class Prepared(Tokens):
    """Tokens after a head's one-sided work; ``pooled`` is the head's coarse vector, ready for an index (N, D).

    Args:
        extra: what else a head keeps of each item. The first axis is N and every further axis runs over the L tokens,
            so (N,), (N,L) and (N,L,L) all follow when items are chosen, joined, padded or trimmed.

    >>> p = Prepared.from_local(torch.ones(2, 3, 4))
    >>> p.extra["gram"] = p.local @ p.local.mT
    >>> tuple(p[:1].pad_to(5).extra["gram"].shape)
    (1, 5, 5)
    """

    extra: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """Join batches along N, padding to the longest L; all must carry the same extras."""
        joined = super().cat(parts)
        for part in parts:
            if part.extra.keys() != parts[0].extra.keys():
                raise XRetrieveError(
                    f"Prepared.cat: the batches carry different extras, {sorted(parts[0].extra)} and "
                    f"{sorted(part.extra)}; they come from different heads"
                )
        padded = [part.pad_to(joined.local.shape[1]) for part in parts]
        extra = {name: torch.cat([part.extra[name] for part in padded]) for name in parts[0].extra}
        return cls(joined.local, joined.mask, joined.pooled, extra)

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> Self:
        """Some items, still a batch."""
        chosen = super().__getitem__(rows)
        if not isinstance(rows, (slice, Tensor)):
            rows = torch.as_tensor(rows, dtype=torch.long)
        return self._with(chosen, lambda x: x[rows])

    def pad_to(self, length: int) -> Self:
        """Zero-pad the token axis to ``length``."""
        more = length - self.local.shape[1]
        padded = super().pad_to(length)
        return self._with(padded, lambda x: torch.nn.functional.pad(x, (0, more) * (x.ndim - 1))) if more else self

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Self:
        """Move and cast (the mask stays bool)."""
        return self._with(super().to(device, dtype), lambda x: x.to(device=device, dtype=dtype))

    def trim(self) -> Self:
        """Cut the token axis as :meth:`Tokens.trim` does."""
        cut = super().trim()
        places = (slice(cut.local.shape[1]),)
        return self if cut is self else self._with(cut, lambda x: x[(slice(None),) + places * (x.ndim - 1)])

    def _with(self, tokens: Tokens, change: Callable[[Tensor], Tensor]) -> Self:
        return type(self)(tokens.local, tokens.mask, tokens.pooled, {k: change(v) for k, v in self.extra.items()})
