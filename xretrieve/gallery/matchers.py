"""The matchers behind a gallery: the one that scores, and the one whose vectors choose the candidates.

`gallery.json` names both. Under ``coarse`` it says whose the vectors are: of another ``matcher`` (an identity as under
``matcher``), of the ``head`` itself, whose coarse space was trained, or of ``none``: then they choose nothing. Without
the key they are the head's and their inner product is its score.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from xretrieve.errors import XRetrieveError
from xretrieve.gallery.store import Store
from xretrieve.utils.paths import is_there

if TYPE_CHECKING:
    from xretrieve.backbones.base import Backbone
    from xretrieve.matcher import Matcher

T = TypeVar("T")
_log = logging.getLogger("xretrieve.loading")

# key of gallery.json: argument of Gallery.open, option on the command line
GIVEN = {"matcher": ("matcher=", "--model"), "coarse": ("coarse=", "--coarse")}


class Matchers:
    """Each is the one given, or loaded from its source when it is first needed; another one is refused.

    Args:
        store: the gallery on disk.
        matcher: made the gallery.
        coarse: made its vectors.
    """

    def __init__(self, store: Store, matcher: Matcher | None = None, coarse: Matcher | None = None) -> None:
        self._store = store
        self._shared: dict[str, bool] = {}  # side: whether both matchers have one backbone there
        self._loaded = {key: one for key, one in (("matcher", matcher), ("coarse", coarse)) if one is not None}
        if coarse is not None and self.coarse_by != "matcher":
            raise XRetrieveError(f"{store.folder} was built without a coarse matcher; leave out {GIVEN['coarse'][0]}")
        for key, one in self._loaded.items():
            self._check(key, one)

    def over(self, store: Store) -> Matchers:
        """The matchers of a newer state of the gallery: those that are loaded, where it still names them."""
        newer = Matchers(store)
        newer._loaded = {
            key: one
            for key, one in self._loaded.items()
            if store.info.get(key, {}).get("fingerprint") == self._store.info[key]["fingerprint"]
        }
        return newer

    @property
    def main(self) -> Matcher:
        """The matcher that scores."""
        return self._get("matcher")

    @property
    def coarse_by(self) -> str:
        """Whose the coarse vectors are: `matcher` (another one), `head` (the head's own) or `none`."""
        return self._store.info.get("coarse", {"by": "head"})["by"]

    @property
    def coarse(self) -> Matcher:
        """The matcher whose vectors the index holds."""
        return self._get("coarse") if self.coarse_by == "matcher" else self.main

    def ready(self) -> None:
        """Load what is not loaded yet, both sides of both matchers."""
        for matcher in (self.main, self.coarse):
            for side in ("image", "text"):
                getattr(matcher, side, None)

    @property
    def other(self) -> Matcher | None:
        """The coarse matcher where it is another one."""
        return self.coarse if self.coarse_by == "matcher" else None

    @property
    def pair_dtype(self) -> torch.dtype | None:
        """What token by token scores are made in: the precision that the gallery was built with, by default the
        matcher's own (``auto``)."""
        own = getattr(self.main, "pair_dtype", None)  # another kind of matcher may have none
        return own(self._store.info.get("precision")) if own is not None else None

    def beside(self, matcher: Matcher, side: str) -> list[Matcher]:
        """The matchers over the same backbone of a side (`image`, `text`), so that what both need goes through it once:
        both of them, or only the one given. One that is not loaded yet is left alone."""
        both = list(self._loaded.values())
        if self.coarse_by != "matcher" or len(both) < 2 or not any(one is matcher for one in both):
            return [matcher]
        if side not in self._shared:
            prints = {one.side_fingerprint(side) for one in both}
            self._shared[side] = len(prints) == 1
        return both if self._shared[side] else [matcher]

    def _get(self, key: str) -> Matcher:
        if key not in self._loaded:
            with torch.inference_mode(False):  # as in LateMatcher
                matcher = self._load(key)
            self._check(key, matcher)
            self._loaded[key] = matcher
        return self._loaded[key]

    def _load(self, key: str) -> Matcher:
        from xretrieve.loading import find_sides, load_one
        from xretrieve.matcher_sides import LateMatcher, Loaders

        folder, about = self._store.folder, self._store.info[key]
        argument, option = GIVEN[key]
        made = "was made by" if key == "matcher" else "takes its candidates from"
        if not about["source"]:
            raise XRetrieveError(
                f"{folder} {made} {about['name']!r}, which was never saved; pass {argument} to Gallery.open"
            )
        options = about.get("source_options", {})

        def whole(load: Callable[[], T], what: str = "") -> T:
            if what:
                _log.info("loading %s%s", what, about["source"])
            try:
                return load()
            except XRetrieveError as error:
                raise XRetrieveError(
                    f"{folder} {made} {about['source']}, which cannot be loaded: {error} "
                    f"(moved? pass {argument} to Gallery.open, or {option} on the command line)"
                ) from error

        prints = about.get("sides")
        if not prints:  # a gallery of before there were fingerprints of sides
            return whole(lambda: load_one(about["source"], **options), "both sides of ")
        sides, head = whole(lambda: find_sides(about["source"], options, about["head"]))

        def load(side: str) -> Backbone:
            backbone = whole(sides[side], f"the {side} side of ")
            if (given := backbone.fingerprint()) != prints[side]:
                raise XRetrieveError(
                    f"{folder} {made} {about['source']}, whose {side} side is another one now ({given[:16]}, not "
                    f"{prints[side][:16]}): their vectors cannot be compared; put the first one back, or build the "
                    "gallery again"
                )
            return backbone

        loaders: Loaders = {side: partial(load, side) for side in sides}
        return LateMatcher(loaders, prints, head, about["name"], about["source"], options)

    def _check(self, key: str, matcher: Matcher) -> None:
        about = self._store.info[key]
        made, given = about["fingerprint"], matcher.fingerprint()
        if made != given:
            what = "was made by" if key == "matcher" else "takes its candidates from coarse"
            raise XRetrieveError(
                f"{self._store.folder} {what} matcher {made} ({about['name']}), "
                f"not by {given} ({matcher.name}): their vectors cannot be compared; "
                "use the first, or build the gallery again"
            )


def identity(matcher: Matcher) -> dict[str, Any]:
    """Name, fingerprint, what :func:`xretrieve.load` needs to give it again (folders as absolute paths), and how
    pictures are prepared, which is in the fingerprint too."""
    source = str(getattr(matcher, "source", "") or "")
    options = getattr(matcher, "source_options", {})
    try:
        json.dumps(options)
    except TypeError:  # made with Python objects: only the caller can make it again
        source, options = "", {}
    place = str(Path(source).resolve()) if source and is_there(Path(source)) else source
    about = {"name": matcher.name, "fingerprint": matcher.fingerprint(), "source": place, "source_options": options}
    if hasattr(matcher, "side_fingerprint"):  # so that a search loads the sides that it needs
        about["sides"] = {side: matcher.side_fingerprint(side) for side in ("image", "text")}
        about["head"] = {"name": matcher.head.name, "options": matcher.head.config}
    image = getattr(matcher, "image", None)  # an ensemble has several
    if image is not None:
        about["image"] = {"backbone": image.name, "preprocessing": image.preprocessing()}
    return about


def coarse_entry(matcher: Matcher, coarse: Matcher | None, index: str) -> dict[str, Any]:
    """The ``coarse`` entry of a new gallery: ``{}`` where an index of vectors is all that the head needs.

    A matcher that cannot choose candidates, or one where none is wanted, is refused.
    """
    head = getattr(matcher, "head", None)
    if head is None or head.indexable:
        if coarse is not None:
            raise XRetrieveError(
                f"{matcher.name}: the vectors of its head {getattr(head, 'name', 'dual')!r} are its scores, so it "
                "rides on nothing; leave out coarse (--coarse)"
            )
        return {}
    if coarse is not None:
        if not coarse.head.indexable:
            raise XRetrieveError(
                f"coarse matcher {coarse.name}: head {coarse.head.name!r} scores token by token; give a run with a "
                "dual encoder, or a pretrained model such as open_clip:ARCH/TAG"
            )
        return {"by": "matcher", **identity(coarse)}
    if getattr(head, "coarse", head.indexable):
        return {"by": "head"}
    if index not in ("auto", "flat"):
        raise XRetrieveError(
            f"head {head.name!r} has no trained coarse space, so index {index!r} would choose at random: leave it out "
            "(every picture is scored), or give coarse (--coarse RUN), a dual encoder that chooses the candidates"
        )
    return {"by": "none"}
