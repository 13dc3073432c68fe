"""Local tokens of a gallery's pictures on disk, for heads that score token by token.

::

    parts/0000-1f2e3d/
      local.npy      (T, D) float16 or int8, the tokens of all pictures of the part one after another
      scales.npy     (T,) float32, of int8: what one step of each token's values is worth; left out for float16
      mask.npy       (T,) bool, which of them are real
      lengths.npy    (N,) int32, how many belong to each picture
      pooled.npy     (N, P) float32, the head's own vectors; left out where vectors.npy holds them

Nothing is padded and everything is memory-mapped: opening reads only the lengths. float16 halves the bytes; unit
vectors lose at most 5e-4 of each value. int8 halves them again; a value loses at most 1/254 of its token's largest one.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.errors import XRetrieveError, unknown
from xretrieve.tokens import Prepared, Tokens

IN_MEMORY = 256 * 2**20  # bytes of tokens that wait in memory; more of them wait on disk
DTYPE = np.dtype(np.float16)
DTYPES: dict[str, np.dtype[Any]] = {"float16": DTYPE, "int8": np.dtype(np.int8)}
LARGEST = 127  # of int8


class TokenSpool:
    """Tokens of pictures that are being encoded, until their part is written.

    They wait in a file without a name, so that a process that is killed leaves nothing behind.

    Args:
        folder: where that file lies: on the disk of the gallery.
        pooled: keep the head's pooled vectors too.
        dtype: `float16` or `int8`.
    """

    def __init__(self, folder: Path, pooled: bool, dtype: str = DTYPE.name) -> None:
        self._dtype = token_dtype(dtype)
        self._scales: list[np.ndarray] = []
        self._local: IO[bytes] = SpooledTemporaryFile(IN_MEMORY, dir=str(folder))
        self._masks: list[np.ndarray] = []
        self._lengths: list[np.ndarray] = []
        self._pooled: list[np.ndarray] | None = [] if pooled else None
        self.dim = 0

    def append(self, tokens: Tokens) -> None:
        """The next pictures. What float16 cannot hold is refused before (:func:`fits_float16`)."""
        mask = tokens.mask.cpu()
        places = torch.arange(1, mask.shape[1] + 1)
        lengths = (mask * places).amax(1).clamp(min=1)  # up to the last real token, one at least
        used = places <= lengths[:, None]  # (N,L)
        self.dim = tokens.local.shape[2]
        self._local.write(self._stored(tokens.local.detach().cpu()[used]).tobytes())
        self._masks.append(mask[used].numpy())
        self._lengths.append(lengths.int().numpy())
        if self._pooled is not None:
            self._pooled.append(tokens.pooled.detach().float().cpu().numpy())

    def _stored(self, values: Tensor) -> np.ndarray:
        """Tokens (T,D) as they are kept; the scales of int8 are noted."""
        if self._dtype == DTYPE:
            return values.half().contiguous().numpy()
        scales = values.float().abs().amax(1, keepdim=True).clamp(min=1e-12) / LARGEST  # (T,1)
        self._scales.append(scales[:, 0].numpy())
        return (values.float() / scales).round().clamp(-LARGEST, LARGEST).to(torch.int8).contiguous().numpy()

    def write(self, part: Path) -> None:
        """Write the files of a part, and forget what was kept."""
        mask, lengths = np.concatenate(self._masks), np.concatenate(self._lengths)
        header = {"descr": self._dtype.str, "fortran_order": False, "shape": (len(mask), self.dim)}
        self._local.seek(0)
        with open(part / "local.npy", "wb") as handle:
            np.lib.format.write_array_header_1_0(handle, header)
            shutil.copyfileobj(self._local, handle, 2**24)
        self._local.close()
        if self._scales:
            np.save(part / "scales.npy", np.concatenate(self._scales))
        np.save(part / "mask.npy", mask)
        np.save(part / "lengths.npy", lengths)
        if self._pooled is not None:
            np.save(part / "pooled.npy", np.concatenate(self._pooled))


def token_dtype(name: str) -> np.dtype[Any]:
    """`float16` or `int8` as numpy knows it; another name is an error."""
    if name not in DTYPES:
        raise unknown("type of tokens", name, list(DTYPES))
    return DTYPES[name]


def fits_float16(tokens: Tokens) -> bool:
    """Whether every real token stays finite in float16."""
    return bool(torch.isfinite(tokens.local.half()).all(-1)[tokens.mask].all())


class TokenPart:
    """The tokens of one part, memory-mapped.

    Args:
        folder: the part's folder.
        rows: N, pictures that it must hold.
        dim: D.
        pooled: whether the part has pooled vectors of its own.
        dtype: `float16` or `int8`.
    """

    def __init__(self, folder: Path, rows: int, dim: int, pooled: bool, dtype: str = DTYPE.name) -> None:
        kept = token_dtype(dtype)
        try:
            self.local, self.mask = (np.load(folder / f"{name}.npy", mmap_mode="c") for name in ("local", "mask"))
            self.lengths = np.load(folder / "lengths.npy").astype(np.int64)
            self.pooled = np.load(folder / "pooled.npy", mmap_mode="r") if pooled else None
            self.scales = np.load(folder / "scales.npy", mmap_mode="r") if kept != DTYPE else None
        except Exception as error:  # numpy passes on what the reader of its headers meets
            raise XRetrieveError(f"{folder} is damaged or missing ({error}); build the gallery again") from error
        total = int(self.lengths.sum())
        shapes = self.local.shape == (total, dim) and self.mask.shape == (total,)
        if len(self.lengths) != rows or not shapes or self.local.dtype != kept or \
                (self.scales is not None and self.scales.shape != (total,)):  # fmt: skip
            raise XRetrieveError(
                f"{folder} is damaged: {self.local.shape} tokens of {len(self.lengths)} pictures instead of "
                f"{(total, dim)} of {rows}; build the gallery again"
            )
        self.starts = np.cumsum(self.lengths) - self.lengths

    def read(self, rows: np.ndarray, local: bool = True) -> tuple[Tensor, Tensor]:
        """Local tokens (N,L,D) float32, 0 where padded, and their mask (N,L), of some rows of this part.

        local: False leaves the tokens on the disk: (N,L,0).
        """
        lengths, starts = self.lengths[rows], self.starts[rows]
        longest = int(lengths.max())
        if (np.diff(rows) == 1).all() and (lengths == longest).all():  # one run of the file: nothing is gathered
            run = slice(int(starts[0]), int(starts[0]) + longest * len(rows))
            shape, width = (len(rows), longest), self.local.shape[1] if local else 0
            tokens = self._values(run, width).view(*shape, width)
            return tokens, torch.from_numpy(self.mask[run].reshape(shape)).clone()
        place = np.arange(longest)
        inside = place < lengths[:, None]  # (N,L)
        index = np.where(inside, starts[:, None] + place, 0)
        mask = torch.from_numpy(self.mask[index] & inside)
        if not local:
            return torch.zeros(*mask.shape, 0), mask
        tokens = self._values(index, self.local.shape[1])
        return (tokens if inside.all() else tokens.masked_fill_(~torch.from_numpy(inside)[..., None], 0)), mask

    def _values(self, where: slice | np.ndarray, width: int) -> Tensor:
        """The first ``width`` values of some tokens, float32."""
        values = torch.from_numpy(self.local[where, :width] if isinstance(where, slice) else self.local[where]).float()
        if self.scales is not None and width:
            values *= torch.from_numpy(np.array(self.scales[where]))[..., None]
        return values


def join(parts: list[tuple[np.ndarray, Tensor, Tensor]], pooled: Tensor) -> Prepared:
    """What :meth:`TokenPart.read` gave for several parts, each with its places in the result, as one batch."""
    if len(parts) == 1:
        _, local, mask = parts[0]
        return Prepared(local, mask, pooled)
    longest = max(local.shape[1] for _, local, _ in parts)
    width = parts[0][1].shape[2]
    all_local = torch.zeros(len(pooled), longest, width)
    all_mask = torch.zeros(len(pooled), longest, dtype=torch.bool)
    for places, local, mask in parts:
        at = torch.from_numpy(places)
        all_local[at, : local.shape[1]] = local
        all_mask[at, : mask.shape[1]] = mask
    return Prepared(all_local, all_mask, pooled)
