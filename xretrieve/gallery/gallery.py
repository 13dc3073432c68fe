"""`Gallery`: what is searched. Pictures' vectors, an index and metadata in one folder on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xretrieve.data.patterns import Patterns
from xretrieve.gallery.items import Changes, Item, Plan, give_metadata
from xretrieve.gallery.plan import make_plan
from xretrieve.gallery.searchable import Searchable
from xretrieve.gallery.sources import Sources, kept_patterns
from xretrieve.gallery.store import Store
from xretrieve.gallery.vector_index import GalleryIndex

if TYPE_CHECKING:
    from xretrieve.data.cache import FeatureCache
    from xretrieve.matcher import Matcher
    from xretrieve.session import Session


class Gallery(Searchable):
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

        The local tokens of such a head are kept beside the vectors (:mod:`xretrieve.gallery.token_files`). Pictures
        that cannot be read are listed in :attr:`failed`; what is not taken as a picture is counted in :attr:`left_out`.
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

    def session(self, combine: str = "", where: dict[str, Any] | None = None) -> Session:
        """Search for one picture with sentence after sentence, each turn for the price of the new one.

        Args:
            combine, where: as in :class:`xretrieve.session.Session`.
        """
        from xretrieve.session import Session

        self.refresh()
        return Session(self.held(), combine, where)

    def _changed(self) -> list[str]:
        self._filter = self._coded = None
        return self._merge() if self._store.fragmented else self._index.update()
