"""`LateMatcher`: a matcher whose backbones are loaded when they are first needed, each for itself.

A search with a text needs no image backbone: neither its weights nor the packages that its code imports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from threading import RLock
from typing import Any

import torch
from torch import nn

from xretrieve.backbones.base import Backbone
from xretrieve.heads.base import Head
from xretrieve.matcher import Matcher

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
            with _LOADING, torch.inference_mode(False):  # weights made in that mode do not tell whether they change
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
