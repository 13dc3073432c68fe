"""A backbone whose network is an ONNX graph, run by onnxruntime: what `xretrieve export --onnx` wrote, read back."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from xretrieve.backbones.base import Backbone, Batch
from xretrieve.backbones.places import Layout
from xretrieve.errors import XRetrieveError
from xretrieve.tokens import Tokens
from xretrieve.utils.files import content_hash
from xretrieve.utils.onnx import need_onnx, open_session

GRAPH = "model.onnx"
TOKENS = ("local", "mask", "pooled")  # its outputs that are tokens
INPUT_MARK = "_in"  # ends the name of an input that would else be called as an output


class OnnxBackbone(Backbone):
    """Reads items as the backbone it was exported from does; its tokens come from the graph. It cannot be trained.

    Args:
        like: the same backbone built without its weights: it knows how raw items become tensors.
        folder: with ``model.onnx``, ``backbone.json`` and the assets.
    """

    def __init__(self, like: Backbone, folder: str | Path) -> None:
        super().__init__(like.name, like.modality, like.options)
        need_onnx("onnxruntime", f"{folder} is an ONNX export, which onnxruntime runs")
        self.local_dim, self.pooled_dim, self.cacheable = like.local_dim, like.pooled_dim, like.cacheable
        self.folder = Path(folder).resolve()
        # In a tuple, so that it is no part of this module, and on no device: its weights are of no use.
        self._like = (like.to("meta"),)
        self._session: Any = None
        self._place: Tensor
        self.register_buffer("_place", torch.zeros(0), persistent=False)  # knows the device
        self.freeze()

    @property
    def device(self) -> torch.device:
        """Where the tokens are wanted; onnxruntime runs the graph on a GPU where its own build can."""
        return self._place.device

    @property
    def session(self) -> Any:
        """The onnxruntime session, opened on first use."""
        if self._session is None:
            self._session = open_session(self.folder / GRAPH)
        return self._session

    def prepare(self, items: Sequence[Any]) -> Batch:
        """As the backbone that was exported."""
        return self._like[0].prepare(items)

    def forward(self, batch: Batch) -> Tokens:
        """Tokens of a prepared batch, without gradients."""
        wanted = [i.name for i in self.session.get_inputs()]
        if isinstance(batch, Tensor):
            given = {wanted[0]: batch}
        else:
            given = {name: batch[name.removesuffix(INPUT_MARK)] for name in wanted}
        outputs = [o.name for o in self.session.get_outputs() if o.name in TOKENS]
        found = self.session.run(outputs, {name: value.cpu().numpy() for name, value in given.items()})
        arrays = {name: torch.from_numpy(a).to(self.device) for name, a in zip(outputs, found, strict=True)}
        if "local" not in arrays:
            return Tokens.from_pooled(arrays["pooled"])
        return Tokens(**arrays).trim()

    def token_texts(self, items: Sequence[Any]) -> list[list[str]]:
        """As the backbone that was exported."""
        return self._like[0].token_texts(items)

    def cut(self, items: Sequence[Any]) -> list[tuple[int, int]]:
        """As the backbone it was exported from."""
        return self._like[0].cut(items)

    def layout(self, items: Sequence[Any]) -> list[Layout | None]:
        """As the backbone that was exported."""
        return self._like[0].layout(items)

    def preprocessing(self) -> Any:
        """How raw items become tensors, and the content of the graph."""
        return [self._like[0].preprocessing(), content_hash(self.folder / GRAPH)]

    def save(self, folder: str | Path) -> None:
        """A copy of the folder it was read from."""
        if not (self.folder / GRAPH).is_file():
            raise XRetrieveError(f"{self.folder / GRAPH} is gone; export the run again")
        shutil.copytree(self.folder, folder)

    def __getstate__(self) -> dict[str, Any]:
        """Without the session: copies and other processes open their own."""
        return {**super().__getstate__(), "_session": None}
