"""`Gallery`: what is searched. Pictures' vectors, an index and metadata in one folder on disk."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unicodedata import normalize

import numpy as np

from xretrieve.data.patterns import Patterns
from xretrieve.errors import UnknownNameError, XRetrieveError
from xretrieve.gallery.contents import Contents
from xretrieve.gallery.items import Changes, Item, Plan, give_metadata
from xretrieve.gallery.metadata_filter import MetadataFilter
from xretrieve.gallery.plan import make_plan
from xretrieve.gallery.queries import Ask, Asked, cut_notes
from xretrieve.gallery.search import Found, Stages, check_k
from xretrieve.gallery.sources import Sources, kept_patterns
from xretrieve.gallery.store import READINGS, Store
from xretrieve.gallery.vector_index import GalleryIndex
from xretrieve.query import Image, ImageText, Query, checked_query, texts_of
from xretrieve.ranking import Hit, Ranking
from xretrieve.utils.files import content_hash

if TYPE_CHECKING:
    from xretrieve.data.cache import FeatureCache
    from xretrieve.matcher import Matcher
    from xretrieve.session import Session


class Gallery(Contents):
    """Made by :meth:`build` (or ``matcher.index``), read by :meth:`open`."""

    @classmethod
    def build(
        cls,
        matcher: Matcher,
        source: Any,
        out: str | Path,
        index: str = "auto",
        batch_size: int = 64,
        cache: FeatureCache | None = None,
        progress: bool = False,
        overwrite: bool = False,
        coarse: Matcher | None = None,
        tokens: str = "float16",
        precision: str = "auto",
        recall: float | None = None,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        **index_options: Any,
    ) -> Gallery:
        """Encode pictures and write a gallery.

        Args:
            matcher: encodes the pictures, and later the queries.
            source: a folder (walked; ids are paths relative to it; equal files are indexed once), files, or a
                :class:`RetrievalDataset` (its own ids and metadata, and ``split`` and ``dataset``).
            out: the gallery's folder, usually ``something.xr``. It appears when all is done, or not at all.
            index: a name of :func:`xretrieve.index.list_indexes`; ``index_options`` go to it. For an approximate index
                the recall against exact search is measured and kept in ``gallery.json``. The default is flat up to
                10,000 pictures, and nearly so beyond (docs/search.md).
            cache: keeps what the backbone computed, so that a build that was stopped goes on where it was.
            overwrite: replace a gallery that is there.
            coarse: for a matcher whose head scores token by token and has no trained coarse space of its own: a dual
                encoder or a pretrained model, whose vectors choose the candidates that the head then scores. Without
                one a search scores every picture.
            tokens: how the local tokens of such a head are kept: ``float16``, or ``int8``, half the bytes and a little
                less exact (docs/search.md).
            precision: of the scores of such a head in every search of this gallery: ``auto`` (bf16 or fp16 where the
                device computes it natively), ``32``, ``bf16`` or ``fp16``. Pictures are encoded in float32.
            recall: share of the 10 nearest that an approximate index must find: its effort is chosen by measuring it.
                Where none is enough, an exact index takes its place, with a warning.
            include: of a folder, take only the pictures that match one of these patterns, and ``exclude``: leave out
                those that match one (:class:`xretrieve.data.patterns.Patterns`). They hold for later additions too.

        The local tokens of such a head are kept beside the vectors (:mod:`xretrieve.gallery.token_files`). Pictures that
        cannot be read are listed in :attr:`failed`; what is not taken as a picture is counted in :attr:`left_out`.
        """
        from xretrieve.gallery.build import write_gallery  # a search encodes no pictures, and explains nothing

        write_gallery(matcher, source, out, coarse, index, batch_size, cache, progress, overwrite, tokens,
                      recall, index_options, precision, Patterns.of(include, exclude))  # fmt: skip
        return cls(Store.open(out), matcher, coarse)

    @classmethod
    def open(cls, path: str | Path, matcher: Matcher | None = None, coarse: Matcher | None = None) -> Gallery:
        """Read a gallery; the matcher that made it, and the one it takes its candidates from, are loaded when they are
        first needed, unless they are given here."""
        return cls(Store.open(path), matcher, coarse)

    @property
    def matcher(self) -> Matcher:
        """The matcher that made this gallery; loaded from its source at the first use."""
        return self._matchers.main

    @property
    def coarse(self) -> Matcher | None:
        """Another matcher that the candidates come from, loaded at the first use; None where there is none."""
        return self._matchers.other

    @property
    def scored_in(self) -> str:
        """What searches compute scores in, and why, for people; the matcher is loaded for it."""
        own = getattr(self.matcher, "scored_in", None)  # another kind of matcher may have none
        return own(self.info.get("precision")) if own is not None else ""

    @property
    def bounded(self) -> bool:
        """Whether a search is exact without scoring every picture in full (HMRN), unless it is told otherwise."""
        return Stages(self._store, self._index, self._matchers).by_bound

    def add(
        self, source: Any, batch_size: int = 64, cache: FeatureCache | None = None, progress: bool = False,
        metadata: Sequence[dict[str, Any]] | None = None,
        include: Sequence[str] | None = None, exclude: Sequence[str] | None = None,
    ) -> Changes:  # fmt: skip
        """Add a folder, files or a dataset, as in :meth:`build`; on disk when it returns.

        Only pictures that are new or whose file changed are encoded. A picture that is there already, in another place,
        is noted as a copy; one that was moved takes its id, its folder and its path from where it lies now.

        include: and ``exclude``: new patterns in place of those that the gallery keeps; [] for none.
        metadata: of a list of files, what is known of each, a dict of plain values for filters (``where``); of pictures
            that are there already it is added to what is known.
        """
        with self._writing():
            patterns = Patterns.of(include, exclude, kept_patterns(self.info))
            return self._add(source, patterns, batch_size, cache, progress, metadata)

    def _add(
        self,
        source: Any,
        patterns: Patterns,
        batch_size: int,
        cache: FeatureCache | None,
        progress: bool,
        metadata: Any,
    ) -> Changes:
        plan: Plan = make_plan(source, self._items(), Sources(self._items(), self.info, patterns))
        if metadata is not None:
            give_metadata(plan, source, metadata, self._items())
        spool = self._store.spool()
        items: list[Item] = []
        failed: list[dict[str, str]] = []
        vectors = None
        if plan.new:
            from xretrieve.gallery.encode import Encoder, encode_items

            encoder = Encoder(self.matcher, self.coarse, tokens=spool is not None)
            items, vectors, failed = encode_items(encoder, plan.new, batch_size, cache, progress, spool)
        failed = plan.failed + failed
        kept = [entry for entry in self.failed if entry["path"] not in plan.looked]
        arrived = [item.id for item in items]
        # a changed file that cannot be read keeps its old row
        removed = [id_ for id_, item in plan.removed.items() if item is None or item.id in arrived]
        told = {"failed": kept + failed, **plan.about}
        notes: list[str] = []
        if items or removed or plan.updated or any(self.info.get(key) != value for key, value in told.items()):
            self._store.change(removed, items, vectors, plan.updated, spool, **told)
            notes = self._changed()
        return Changes([id_ for id_ in arrived if id_ not in removed], removed, plan.duplicates, plan.unchanged, failed,
                       notes, plan.moved, plan.left_out, plan.gone, plan.excluded, plan.idle)  # fmt: skip

    def remove(self, ids: str | Sequence[str]) -> list[str]:
        """Remove by id; on disk when it returns. An unknown id is an error, and nothing goes. Notes as in `add`."""
        ids = list(dict.fromkeys([ids] if isinstance(ids, str) else ids))
        with self._writing():
            for id_ in ids:
                self._row(id_)
            if not ids:
                return []
            self._store.change(removed=ids)
            return self._changed()

    def keep_cascade(self, chosen: dict[str, Any]) -> None:
        """Keep what :func:`xretrieve.evaluation.cascade.tune` chose for searches of this gallery; on disk when it
        returns."""
        with self._writing():
            self._store.change(cascade=chosen)

    def save(self) -> list[str]:
        """Tidy up on disk: merge the parts that adding made, drop what was removed, write the index anew.

        Adding and removing are on disk without it. Notes as in `add`.
        """
        with self._writing():
            return self._merge()

    def _merge(self) -> list[str]:
        self._store.compact(index=self._index.described())
        self._index = GalleryIndex(self._store)
        notes = self._index.write()
        self._store.clean()
        self._filter = None
        return notes

    def search(
        self,
        query: Query | str,
        k: int = 10,
        where: dict[str, Any] | None = None,
        drop_reference: bool | None = None,
        rerank: int | str | None = None,
        blend: float | str | None = None,
    ) -> Ranking:
        """The best ``k`` pictures for a query.

        Args:
            query: `Text` (or a plain string), `MultiText`, `Image`, `ImageText`.
            k: number of hits; when fewer can be given, all are, and ``ranking.note`` says so.
            where: metadata that hits must have; a list of values means any of them.
            drop_reference: leave the query's own picture out where its file is in the gallery. The default does so for
                `ImageText` (who asks for a change does not look for the same picture) and not for `Image`.
            rerank: for heads that score token by token, how many candidates of the coarse space the head scores: a
                number, 0 (coarse order only), ``"all"`` (the exact scan of every picture) or ``"auto"``: as many as
                `xretrieve tune` found to be enough. None: that number where it was measured; else 100 where there is
                a trained coarse space, else all; all too where the scan leaves out what cannot be among the hits
                (HMRN without another coarse matcher). Further hits follow in coarse order (``hit.exact`` is false).
                For other heads the vectors are the scores, and there is nothing to rerank.
            blend: the share of the head's score in that of a re-ranked hit, 1 (the head alone) to 0 (the coarse score
                alone), or ``"auto"``, what `xretrieve tune` found best. None: that where it was measured, else 1.
        """
        (found,) = self.search_many([Ask(query, k, where, drop_reference, rerank, blend)])
        if isinstance(found, XRetrieveError):
            raise found
        return found

    def search_many(self, asks: Sequence[Ask]) -> list[Ranking | XRetrieveError]:
        """Several searches, their queries encoded together. The answers are in the order of ``asks``; what is wrong
        with one of them is given in its place and does not touch the others.

        What another program changed since is read first (:meth:`refresh`).
        """
        self.refresh()
        answers = self._search_many(asks)
        for _ in range(READINGS):  # an error may come of files that another program has just replaced
            if not any(isinstance(answer, XRetrieveError) for answer in answers) or not self.refresh():
                break
            answers = self._search_many(asks)
        return answers

    def _search_many(self, asks: Sequence[Ask]) -> list[Ranking | XRetrieveError]:
        done: dict[int, Ranking | XRetrieveError] = {}
        queries: dict[int, Query] = {}
        for place, ask in enumerate(asks):
            try:
                queries[place] = checked_query(ask.query)
            except XRetrieveError as error:
                done[place] = error
        asked = Asked(list(queries.values()), self._matchers)
        for place, query in queries.items():
            try:
                done[place] = self._answer(asks[place], query, asked)
            except XRetrieveError as error:
                done[place] = error
        return [done[place] for place in range(len(asks))]

    def _answer(self, ask: Ask, query: Query, asked: Asked) -> Ranking:
        check_k(ask.k)
        if not len(self):
            raise XRetrieveError(f"{self.path} is empty; add pictures to it first")
        drop = isinstance(query, ImageText) if ask.drop_reference is None else ask.drop_reference
        allowed, notes = self._allowed(query, ask.where, drop, ask.digest)
        found = Stages(self._store, self._index, self._matchers).find(
            query, ask.k, allowed, ask.rerank, asked, ask.blend
        )
        notes += cut_notes(self.matcher, texts_of(query))
        many = len(self) if allowed is None else len(allowed)
        if not many:
            notes.append(f"nothing in the gallery matches where={ask.where}")
        return self._ranking(found, query, ask.k, many, notes)

    def picture(self, id_: str) -> Path:
        """The file of an indexed picture. An unknown id, or features without a picture, is an error."""
        path = self._item(self._row(id_)).path
        if not path:
            raise XRetrieveError(f"{id_!r} was indexed from precomputed features; there is no picture of it")
        return Path(path)

    def explain(self, query: Query | str, id_: str) -> dict[str, Any]:
        """What makes a picture answer a query as it does, found or not: :meth:`xretrieve.Ranking.explain` less rank
        and score."""
        from xretrieve.gallery.explain import explain_hit

        explained = explain_hit(self._store, self._matchers, checked_query(query), self._row(id_))
        return {"id": id_, **explained}

    def session(self, combine: str = "", where: dict[str, Any] | None = None) -> Session:
        """Search for one picture with sentence after sentence, each turn for the price of the new one.

        Args:
            combine, where: as in :class:`xretrieve.session.Session`.
        """
        from xretrieve.session import Session

        self.refresh()
        return Session(self.held(), combine, where)

    def _ranking(self, found: Found, query: Query, k: int, many: int, notes: list[str], whole: bool = True) -> Ranking:
        """What was found of ``many`` pictures, as a ranking; ``whole`` as in ``explain_hit``."""
        if 0 < many < k and len(found.rows) == many:
            notes = [*notes, f"all {many} shown: fewer than the {k} asked for"]
        notes = [*notes, found.note] if found.note else notes
        hits = [
            self._hit(rank, row, score, rank <= found.exact)
            for rank, (row, score) in enumerate(zip(found.rows, found.scores, strict=True), 1)
        ]
        told: dict[str, Any] = {"attends": self._store.has_tokens and whole, "share": found.share, "weak": found.weak}
        return Ranking(hits, query, "; ".join(notes), lambda hit: self._explain(query, hit, whole), **told)

    def _where(self, where: dict[str, Any] | None) -> np.ndarray | None:
        """Rows whose metadata fit, ascending; None where nothing is asked for."""
        if not where:
            return None
        self._filter = self._filter or MetadataFilter(self._store.items)
        return self._filter.rows(where)

    def _allowed(
        self, query: Query, where: dict[str, Any] | None, drop_reference: bool, digest: str = ""
    ) -> tuple[np.ndarray | None, list[str]]:
        """Rows that may be returned (None: all), and notes for the reader."""
        rows = self._where(where)
        if not drop_reference or not isinstance(query, (Image, ImageText)):
            return rows, []
        if not digest and not isinstance(query.image, Path):
            return rows, []
        digest = digest or content_hash(query.image)
        same = [row for row, item in enumerate(self._store.items) if item is not None and item.hash == digest]
        if not same:
            return rows, []
        rows = np.setdiff1d(self._store.live() if rows is None else rows, same)
        return rows, [f"the query's own picture ({', '.join(self._item(row).id for row in same)}) is left out"]

    def _explain(self, query: Query, hit: Hit, whole: bool) -> dict[str, Any]:
        if hit.id not in self._store.rows:
            raise XRetrieveError(f"{hit.id!r} is no longer in {self.path}")
        from xretrieve.gallery.explain import explain_hit

        return explain_hit(self._store, self._matchers, query, self._store.rows[hit.id], whole)

    def _hit(self, rank: int, row: int, score: float, exact: bool) -> Hit:
        item = self._item(row)
        return Hit(rank, item.id, score, Path(item.path) if item.path else None, item.metadata, exact)

    def _item(self, row: int) -> Item:
        item = self._store.items[row]
        assert item is not None, f"row {row} was removed and must not be found"
        return item

    def find(self, id_: str) -> str | None:
        """The id that this one is, however its letters are coded (macOS takes letters and their accents apart); None
        where there is none."""
        if id_ in self._store.rows:
            return id_
        if self._coded is None:
            self._coded = {normalize("NFC", known): known for known in self._store.rows if not known.isascii()}
        composed = normalize("NFC", id_)
        return composed if composed in self._store.rows else self._coded.get(composed)

    def _row(self, id_: str) -> int:
        if (found := self.find(str(id_))) is not None:
            return self._store.rows[found]
        near = get_close_matches(str(id_), itertools.islice(self._store.rows, 20_000), n=1)
        raise UnknownNameError(f"{self.path} has no id {str(id_)!r}" + (f"; did you mean {near[0]!r}?" if near else ""))

    def _changed(self) -> list[str]:
        self._filter = self._coded = None
        return self._merge() if self._store.fragmented else self._index.update()
