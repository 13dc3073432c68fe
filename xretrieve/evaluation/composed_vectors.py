"""Composed queries and gallery images as vectors: everything that an evaluation needs of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from xretrieve.data.modifications import query_texts
from xretrieve.data.triplets import ComposedDataset
from xretrieve.errors import XRetrieveError


@dataclass(frozen=True)
class Asked:
    """The queries that a caption mode makes of a dataset's triplets.

    Args:
        texts: every text that is encoded.
        text_rows: (Q, n) int64, the texts of each query; with n = 2 their composed vectors are averaged.
        pair: (Q,) int64, row in the triplets.
        ids: (Q,) names: the triplet's id, with the number of the text where there are several.
        reference: (Q,) int64, image row.
    """

    texts: list[str]
    text_rows: np.ndarray
    pair: np.ndarray
    ids: list[str]
    reference: np.ndarray

    def __len__(self) -> int:
        return len(self.pair)


def asked(dataset: ComposedDataset, mode: str) -> Asked:
    """The queries of a split under a caption mode, in the order of its triplets."""
    texts: list[str] = []
    rows: list[list[int]] = []
    pair: list[int] = []
    ids: list[str] = []
    for number, triplet in enumerate(dataset.triplets):
        said = query_texts(triplet.texts, mode)
        places = list(range(len(texts), len(texts) + len(said)))
        texts += said
        made = [places] if mode == "mean-orders" else [[place] for place in places]
        rows += made
        pair += [number] * len(made)
        ids += [triplet.id if len(made) == 1 else f"{triplet.id}#{k}" for k in range(len(made))]
    if not rows:
        raise XRetrieveError(f"{dataset.name}/{dataset.split}: no query can be asked: all their photos are missing")
    reference = np.array([dataset.triplets[p].reference for p in pair], np.int64)
    return Asked(texts, np.array(rows, np.int64), np.array(pair, np.int64), ids, reference)


class Vectors:
    """One model's vectors of a split, images encoded once for all protocols.

    Args:
        matcher: a :class:`xretrieve.Matcher`, an ensemble, or anything with ``encode_images``, ``encode_texts`` and a
            ``head`` with ``combine_image_text``; the scores of an ensemble's members are averaged.
        dataset: one split.
        cache, batch_size, progress: as in :func:`xretrieve.evaluate`.
    """

    def __init__(
        self, matcher: Any, dataset: ComposedDataset, cache: Any = None, batch_size: int = 64, progress: bool = False
    ) -> None:
        self.dataset, self.cache, self.progress = dataset, cache, progress
        self.members = list(getattr(matcher, "members", None) or [matcher])
        self.images = [
            member.encode_images(
                dataset.images, ids=dataset.image_ids, batch_size=batch_size, cache=cache, progress=progress
            )
            for member in self.members
        ]
        if any(len(part) != len(dataset) for part in self.images):
            raise XRetrieveError(
                f"{dataset.name}/{dataset.split}: not all of {len(dataset)} images were encoded; "
                f"look with `xretrieve data check {dataset.name}`"
            )
        self._made: dict[str, tuple[Asked, list[Any]]] = {}

    def queries(self, mode: str, block: int = 1024) -> tuple[Asked, list[Any]]:
        """The queries of a caption mode, and each member's composed vectors (Q, D)."""
        if mode not in self._made:
            said = asked(self.dataset, mode)
            self._made[mode] = said, [self._compose(i, said, block) for i in range(len(self.members))]
        return self._made[mode]

    def scores(self, mode: str, queries: np.ndarray, gallery: np.ndarray) -> np.ndarray:
        """float32 inner products (q, g) of some queries of a caption mode and some images."""
        import torch

        _, vectors = self.queries(mode)
        with torch.inference_mode():
            parts = [
                vector[torch.from_numpy(queries)].float() @ images.pooled[torch.from_numpy(gallery)].float().T
                for vector, images in zip(vectors, self.images, strict=True)
            ]
            return (parts[0] if len(parts) == 1 else torch.stack(parts).mean(0)).cpu().numpy()

    def _compose(self, number: int, said: Asked, block: int) -> Any:
        """(Q, D) composed vectors of one member; those of several texts become the unit vector of their mean."""
        import torch

        member, images = self.members[number], self.images[number]
        with torch.inference_mode():
            texts = member.encode_texts(said.texts, cache=self.cache)
            columns = []
            for column in said.text_rows.T:
                parts = []
                for start in range(0, len(column), block):
                    rows = slice(start, start + block)
                    image = images[torch.from_numpy(said.reference[rows])]
                    text = texts[torch.from_numpy(np.ascontiguousarray(column[rows]))]
                    parts.append(member.head.combine_image_text(image, text).pooled)
                columns.append(torch.cat(parts))
            if len(columns) == 1:
                return columns[0]
            units = [torch.nn.functional.normalize(vector.float(), dim=-1) for vector in columns]
            return torch.nn.functional.normalize(torch.stack(units).mean(0), dim=-1)
