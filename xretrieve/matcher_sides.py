"""`LateMatcher`: a matcher whose backbones are loaded when they are first needed, each for itself.

A search with a text needs no image backbone: neither its weights nor the packages that its code imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from threading import RLock
from typing import Any

import torch
from torch import nn

from xretrieve.backbones import check_saved, create_backbone, load_backbone
from xretrieve.backbones.base import Backbone
from xretrieve.heads import head_class
from xretrieve.heads.base import Head
from xretrieve.matcher import HUB, WEIGHTS, Matcher, load_one, read_saved, saved_folder
from xretrieve.utils.checksums import verify
from xretrieve.utils.paths import is_file, is_there

SIDES = ("image", "text")
_LOADING = RLock()  # two searches at once must not load one side twice

Loaders = dict[str, Callable[[], Backbone]]


class LateMatcher(Matcher):
    """A :class:`~xretrieve.matcher.Matcher`; what walks through all its modules (moving, saving it) loads both sides.

    Args:
        load: of each side (`image`, `text`), gives its backbone; called once.
        prints: the fingerprint that each side must have; ``load`` sees to it.
        head: of the matcher.
        name, source, source_options: as there.
    """

    def __init__(
        self,
        load: Loaders,
        prints: Mapping[str, str],
        head: Head,
        name: str,
        source: str = "",
        source_options: dict[str, Any] | None = None,
    ) -> None:
        nn.Module.__init__(self)
        self._later, self._prints = dict(load), dict(prints)
        self.head, self.name = head, name
        self.source, self.source_options = source, dict(source_options or {})
        self.eval()

    def __getattr__(self, name: str) -> Any:
        """``image`` and ``text``, loaded now."""
        if name in SIDES and name not in self.__dict__.get("_modules", ()) and "_later" in self.__dict__:
            with _LOADING:
                if name not in self._modules:
                    setattr(self, name, self._later[name]().train(self.training))
                    for part in [*SIDES, "head"] if len(self._modules) > len(SIDES) else ():
                        self._modules[part] = self._modules.pop(part)  # in the order of a matcher
        return super().__getattr__(name)

    def loaded(self, side: str) -> bool:
        """Whether a side is there already."""
        return side in self._modules

    def side_fingerprint(self, side: str) -> str:
        """As it must be; a side is held against it when it is loaded."""
        return self._prints[side]

    @property
    def device(self) -> torch.device:
        """Where it runs; nothing is loaded to know it."""
        there = (p.device for part in self._modules.values() if part is not None for p in part.parameters())
        return next(there, torch.device("cpu"))

    def train(self, mode: bool = True) -> LateMatcher:
        """The mode of what is there; a side that comes later takes it over."""
        self.training = mode
        for part in self._modules.values():
            if part is not None:
                part.train(mode)
        return self

    def named_children(self) -> Iterator[tuple[str, nn.Module]]:
        """Both sides and the head."""
        self._whole()
        return super().named_children()

    def named_modules(self, *args: Any, **kwargs: Any) -> Iterator[tuple[str, nn.Module]]:
        """Of both sides and the head."""
        self._whole()
        return super().named_modules(*args, **kwargs)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Of both sides and the head."""
        self._whole()
        return super().state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Of both sides and the head."""
        self._whole()
        return super().load_state_dict(*args, **kwargs)

    def _whole(self) -> None:
        self.image, self.text  # noqa: B018  loaded


def find_sides(source: str, options: dict[str, Any], head: dict[str, Any]) -> tuple[Loaders, Head]:
    """What :func:`xretrieve.load` would give for one matcher, without its backbones: how to load each, and the head.

    Args:
        source: a run or matcher folder, a model of the hub, or a pretrained model.
        options: as ``load`` takes them.
        head: ``name`` and ``options`` of the head, where the source is a pretrained model.

    What is missing from a folder, or cut short, is an error now; the rest is one when a side is loaded.
    """
    folder = saved_folder(source)
    if folder is None and source.startswith(HUB) and not is_there(source):
        from xretrieve.sharing.hub import fetch

        folder = saved_folder(fetch(source.removeprefix(HUB)))
    if folder is None and (":" not in source or is_there(source)):
        load_one(source, **options)  # it is not there any more: says so
    if folder is not None and is_file(folder / "ensemble.json"):
        load_one(folder)  # says that an ensemble cannot be searched
    if folder is not None:
        for side in SIDES:
            check_saved(folder / side)
        saved = read_saved(folder)[0]
        verify(folder, WEIGHTS, only="head.")  # a side is compared by its fingerprint when it is loaded
        return {side: partial(load_backbone, folder / side) for side in SIDES}, saved
    make: Loaders = {side: partial(create_backbone, source, modality=side, frozen=True, **options) for side in SIDES}
    return make, head_class(head["name"])(**head["options"])
