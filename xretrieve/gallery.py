"""`Gallery`: what is searched. Pictures' vectors, an index and metadata in one folder on disk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xretrieve.errors import XRetrieveError
from xretrieve.gallery_build import write_gallery
from xretrieve.gallery_encode import encode_items, to_numpy
from xretrieve.gallery_filter import MetadataFilter
from xretrieve.gallery_index import GalleryIndex
from xretrieve.gallery_items import Item, Plan, make_plan
from xretrieve.gallery_store import Store
from xretrieve.query import Image, ImageText, MultiText, Query, Text
from xretrieve.ranking import Hit, Ranking
from xretrieve.tokens import Prepared
from xretrieve.utils.files import content_hash

if TYPE_CHECKING:
    from xretrieve.data.cache import FeatureCache
    from xretrieve.matcher import Matcher


@dataclass
class Changes:
    """What :meth:`Gallery.add` did: ids added and replaced, numbers of copies and of known pictures, failures."""

    added: list[str] = field(default_factory=list)
    replaced: list[str] = field(default_factory=list)
    duplicates: int = 0
    unchanged: int = 0
    failed: list[dict[str, str]] = field(default_factory=list)


class Gallery:
    """Made by :meth:`build` (or ``matcher.index``), read by :meth:`open`."""

    def __init__(self, store: Store, matcher: Matcher | None = None) -> None:
        self._store, self._matcher = store, matcher
        self._index = GalleryIndex(store)
        self._filter: MetadataFilter | None = None
        if matcher is not None:
            self._check_matcher(matcher)

    @classmethod
    def build(
        cls,
        matcher: Matcher,
        source: Any,
        out: str | Path,
        index: str = "flat",
        batch_size: int = 64,
        cache: FeatureCache | None = None,
        progress: bool = False,
        overwrite: bool = False,
        **index_options: Any,
    ) -> Gallery:
        """Encode pictures and write a gallery.

        Args:
            matcher: encodes the pictures, and later the queries.
            source: a folder (walked; ids are paths relative to it; equal files are indexed once), files, or a
                :class:`RetrievalDataset` (its own ids and metadata, and ``split`` and ``dataset``).
            out: the gallery's folder, usually ``something.xr``. It appears when all is done, or not at all.
            index: a name of :func:`xretrieve.index.list_indexes`; ``index_options`` go to it. For an approximate index
                the recall against exact search is measured and kept in ``gallery.json``.
            cache: keeps what the backbone computed, so that a build that was stopped goes on where it was.
            overwrite: replace a gallery that is there.

        Pictures that cannot be read are left out and listed in :attr:`failed`.
        """
        head = getattr(matcher, "head", None)
        if head is not None and not head.indexable:
            raise XRetrieveError(
                f"head {head.name!r} scores a picture and a text token by token, which no index of vectors can answer; "
                "index with a dual encoder or a pretrained model"
            )
        write_gallery(matcher, source, out, index, batch_size, cache, progress, overwrite, index_options)
        return cls(Store.open(out), matcher)

    @classmethod
    def open(cls, path: str | Path, matcher: Matcher | None = None) -> Gallery:
        """Read a gallery; the matcher that made it is loaded when it is first needed, unless it is given here."""
        return cls(Store.open(path), matcher)

    @property
    def path(self) -> Path:
        """The folder."""
        return self._store.folder

    @property
    def info(self) -> dict[str, Any]:
        """What ``gallery.json`` holds: matcher, index and its recall, dates, counts."""
        return self._store.info

    @property
    def failed(self) -> list[dict[str, str]]:
        """Pictures that could not be indexed: ``path`` and ``reason``."""
        return self.info["failed"]

    @property
    def ids(self) -> list[str]:
        """Ids in gallery order."""
        return [item.id for item in self._items()]

    @property
    def metadata(self) -> list[dict[str, Any]]:
        """Metadata in gallery order."""
        return [item.metadata for item in self._items()]

    @property
    def matcher(self) -> Matcher:
        """The matcher that made this gallery; loaded from its source at the first use."""
        if self._matcher is None:
            about = self.info["matcher"]
            if not about["source"]:
                raise XRetrieveError(
                    f"{self.path} was made by {about['name']!r}, which was never saved; pass matcher= to Gallery.open"
                )
            from xretrieve.matcher import load

            try:
                matcher = load(about["source"], **about.get("source_options", {}))
            except XRetrieveError as error:
                raise XRetrieveError(
                    f"{self.path} was made by {about['source']}, which cannot be loaded: {error} "
                    "(moved? pass matcher= to Gallery.open, or --model on the command line)"
                ) from error
            self._check_matcher(matcher)
            self._matcher = matcher
        return self._matcher

    def __len__(self) -> int:
        return len(self._store)

    def __contains__(self, id_: object) -> bool:
        return id_ in self._store.rows

    def add(
        self, source: Any, batch_size: int = 64, cache: FeatureCache | None = None, progress: bool = False
    ) -> Changes:
        """Add a folder, files or a dataset, as in :meth:`build`; on disk when it returns.

        Only pictures that are new or whose file changed are encoded. A picture that is there already, in another place,
        is noted as a copy.
        """
        plan: Plan = make_plan(source, self._items())
        items, vectors, failed = (
            encode_items(self.matcher, plan.new, batch_size, cache, progress) if plan.new else ([], None, [])
        )
        failed = plan.failed + failed
        kept = [entry for entry in self.failed if entry["path"] not in plan.looked]
        arrived = [item.id for item in items]
        removed = [
            id_ for id_ in plan.removed if id_ in arrived
        ]  # a changed file that cannot be read keeps its old row
        if items or plan.updated or failed or len(kept) < len(self.failed):
            updated = [item for item in plan.updated.values() if item.id not in removed]
            self._store.change(removed, items, vectors, updated, failed=kept + failed)
            self._changed()
        return Changes([i for i in arrived if i not in removed], removed, plan.duplicates, plan.unchanged, failed)

    def remove(self, ids: str | Sequence[str]) -> None:
        """Remove by id; on disk when it returns. An id that is not there is an error, and nothing is removed."""
        ids = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
        for id_ in ids:
            if id_ not in self._store.rows:
                near = get_close_matches(str(id_), itertools.islice(self._store.rows, 20_000), n=1)
                raise XRetrieveError(
                    f"{self.path} has no id {str(id_)!r}" + (f"; did you mean {near[0]!r}?" if near else "")
                )
        if ids:
            self._store.change(removed=ids)
            self._changed()

    def save(self) -> None:
        """Tidy up on disk: merge the parts that adding made, drop what was removed, write the index anew.

        Adding and removing are on disk without it.
        """
        self._store.compact(index=self._index.described())
        self._index = GalleryIndex(self._store)
        self._index.write()
        self._store.clean()
        self._filter = None

    def search(
        self, query: Query | str, k: int = 10, where: dict[str, Any] | None = None, drop_reference: bool | None = None
    ) -> Ranking:
        """The best ``k`` pictures for a query.

        Args:
            query: `Text` (or a plain string), `MultiText`, `Image`, `ImageText`.
            k: number of hits; when fewer can be given, all are, and ``ranking.note`` says so.
            where: metadata that hits must have; a list of values means any of them.
            drop_reference: leave the query's own picture out where its file is in the gallery. The default does so for
                `ImageText` (who asks for a change does not look for the same picture) and not for `Image`.
        """
        query = Text(query) if isinstance(query, str) else query
        if not isinstance(query, (Text, MultiText, Image, ImageText)):
            raise XRetrieveError(f"not a query: {query!r}; use Text, MultiText, Image or ImageText")
        if isinstance(k, bool) or not isinstance(k, int) or k < 1:
            raise XRetrieveError(f"k is {k!r}; ask for at least 1 result")
        if not len(self):
            raise XRetrieveError(f"{self.path} is empty; add pictures to it first")
        allowed, notes = self._allowed(
            query, where, isinstance(query, ImageText) if drop_reference is None else drop_reference
        )
        many = len(self) if allowed is None else len(allowed)
        if k > many:
            notes.append(
                f"all {many} shown: fewer than the {k} asked for"
                if many
                else f"nothing in the gallery matches where={where}"
            )
        prepared = self._encode_query(query)
        rows, scores = self._coarse(prepared, min(k, many), allowed) if many else ([], [])
        # Re-ranking belongs here: more rows from _coarse, their local tokens through matcher.score, sorted, cut to k.
        hits = [self._hit(rank, row, score) for rank, (row, score) in enumerate(zip(rows, scores, strict=True), 1)]
        return Ranking(hits, query, "; ".join(notes), lambda hit: self._explain(query, hit))

    def _coarse(self, prepared: Prepared, k: int, allowed: np.ndarray | None) -> tuple[list[int], list[float]]:
        """Rows and scores of the best ``k`` by the coarse vectors."""
        scores, rows = self._index.search(to_numpy(prepared.pooled), k, allowed)
        found = rows[0] >= 0
        return rows[0][found].tolist(), scores[0][found].tolist()

    def _allowed(
        self, query: Query, where: dict[str, Any] | None, drop_reference: bool
    ) -> tuple[np.ndarray | None, list[str]]:
        """Rows that may be returned (None: all), and notes for the reader."""
        rows = None
        if where:
            self._filter = self._filter or MetadataFilter(self._store.items)
            rows = self._filter.rows(where)
        if not drop_reference or not isinstance(query, (Image, ImageText)) or not isinstance(query.image, Path):
            return rows, []
        digest = content_hash(query.image)
        same = [row for row, item in enumerate(self._store.items) if item is not None and item.hash == digest]
        if not same:
            return rows, []
        rows = np.setdiff1d(self._store.live() if rows is None else rows, same)
        return rows, [f"the query's own picture ({', '.join(self._item(row).id for row in same)}) is left out"]

    def _explain(self, query: Query, hit: Hit) -> dict[str, Any]:
        """Each text and picture of a query alone, scored against one hit by the coarse vectors."""
        if hit.id not in self._store.rows:
            raise XRetrieveError(f"{hit.id!r} is no longer in {self.path}")
        vector = self._store.vectors([self._store.rows[hit.id]])[0]
        texts = (
            list(query)
            if isinstance(query, MultiText)
            else [query.text]
            if isinstance(query, (Text, ImageText))
            else []
        )
        parts: list[dict[str, Any]] = []
        if isinstance(query, (Image, ImageText)):
            score = float(to_numpy(self.matcher.encode_images([query.image]).pooled)[0] @ vector)
            parts.append(
                {"kind": "image", "image": str(query.image) if isinstance(query.image, Path) else None, "score": score}
            )
        if texts:
            scores = to_numpy(self.matcher.encode_texts(texts).pooled) @ vector
            parts += [
                {"kind": "text", "text": text, "score": float(score)} for text, score in zip(texts, scores, strict=True)
            ]
        return {"parts": parts}

    def _encode_query(self, query: Query) -> Prepared:
        prepared = self.matcher.encode_query(query)
        if prepared.pooled.shape != (1, self.info["dim"]):
            raise XRetrieveError(
                f"the query became vectors of shape {tuple(prepared.pooled.shape)}; "
                f"the gallery holds {self.info['dim']} values each"
            )
        return prepared.check_finite([repr(query)])

    def _hit(self, rank: int, row: int, score: float) -> Hit:
        item = self._item(row)
        return Hit(rank, item.id, score, Path(item.path) if item.path else None, item.metadata)

    def _item(self, row: int) -> Item:
        item = self._store.items[row]
        assert item is not None, f"row {row} was removed and must not be found"
        return item

    def _items(self) -> list[Item]:
        return [item for item in self._store.items if item is not None]

    def _changed(self) -> None:
        self._filter = None
        if self._store.fragmented:
            self.save()
        else:
            self._index.update()

    def _check_matcher(self, matcher: Matcher) -> None:
        made, given = self.info["matcher"]["fingerprint"], matcher.fingerprint()
        if made != given:
            raise XRetrieveError(
                f"{self.path} was made by matcher {made} ({self.info['matcher']['name']}), "
                f"not by {given} ({matcher.name}): their vectors cannot be compared; "
                "use the first, or build the gallery again"
            )
