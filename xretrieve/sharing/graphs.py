"""A matcher as ONNX graphs: one for each side, from prepared inputs to the tokens and to what the head makes of them.

Inputs are what the backbone's ``prepare`` gives: ``pixels`` (N,3,H,W), ``ids`` with ``mask_in`` or ``lengths``, ... (an
input that is called as an output ends in ``_in``). Outputs:

- ``local`` (N,L,D), ``mask`` (N,L), ``pooled`` (N,P): the backbone's tokens (`local` and `mask` where it has any);
- ``vector`` (N,D): the head's coarse vector, whose inner product with one of the other side is the score of a head
  without a pair stage;
- ``prepared_local``, ``prepared_mask`` and other ``prepared_...``: what a head's pair stage reads, where it has one.

N and L are free. What needs both sides (the pair stage) stays in torch.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xretrieve.backbones.base import Backbone, Batch
from xretrieve.backbones.onnx_graph import GRAPH, INPUT_MARK, TOKENS
from xretrieve.errors import XRetrieveError, first_line
from xretrieve.heads.base import Head
from xretrieve.matcher import Matcher
from xretrieve.utils.files import write_json
from xretrieve.utils.onnx import need_onnx, open_session

SIDES = ("image", "text")
TOLERANCE = 1e-4  # of the largest value of an output, at least of 1
INPUT = {"image": "pixels", "text": "features"}  # of a backbone whose batch is one tensor
TRACED, CHECKED = (2, 5), ((3, 7), (1, 3))  # items, tokens
LARGEST = 1_800_000_000  # bytes of weights in one .onnx file; protobuf ends at 2 GiB


class SideGraph(nn.Module):
    """One side of a matcher as a function of tensors.

    Args:
        backbone: of the side.
        head: whose one-sided work follows it.
    """

    def __init__(self, backbone: Backbone, head: Head) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def named(self, batch: Batch) -> dict[str, Tensor]:
        """The outputs by name (see the module)."""
        tokens = self.backbone(batch)
        images = self.backbone.modality == "image"
        prepared = self.head.prepare_gallery(tokens) if images else self.head.prepare_queries(tokens)
        found = {"local": tokens.local, "mask": tokens.mask} if tokens.local.shape[1] else {}
        found |= {"pooled": tokens.pooled, "vector": prepared.pooled}
        if prepared.local.shape[1]:
            found |= {"prepared_local": prepared.local, "prepared_mask": prepared.mask}
        found |= {f"prepared_{name}": value for name, value in prepared.extra.items()}
        return {name: value.clone() for name, value in found.items()}  # an output may be an input, or another output

    def forward(self, batch: Batch) -> tuple[Tensor, ...]:
        """The values of :meth:`named`."""
        return tuple(self.named(batch).values())


def export_graphs(matcher: Matcher, folder: Path) -> dict[str, Any]:
    """Write a matcher with graphs in place of its backbones' weights into a folder that is there.

    Args:
        matcher: any; it is copied to the CPU, not changed.
        folder: gets ``image/`` and ``text/`` with ``model.onnx`` each, ``config.json``, ``head.safetensors`` (the pair
            stage) and ``onnx.json``.

    Returns:
        what ``onnx.json`` holds: for each side inputs, outputs and the largest difference from torch, relative to an
        output's largest value where that is above 1.

    Raises:
        XRetrieveError: the packages are missing, a side cannot be exported, or its graph gives other numbers.
    """
    for module in ("onnx", "onnxscript", "onnxruntime"):
        need_onnx(module, "an ONNX export needs onnx, onnxscript and onnxruntime")
    about = {}
    for side in SIDES:
        backbone = matcher.image if side == "image" else matcher.text
        (folder / side).mkdir()
        backbone.describe(folder / side)
        graph = copy.deepcopy(SideGraph(backbone, matcher.head)).cpu().float().eval()
        about[side] = _export(graph, folder / side / GRAPH, f"the {side} side of {matcher.name!r}")
    matcher.save_head(folder)
    write_json(folder / "onnx.json", {"format": 1, "sides": about})
    return about


def _export(graph: SideGraph, path: Path, what: str) -> dict[str, Any]:
    backbone = graph.backbone
    instead = "share it with its weights instead: xretrieve export RUN --folder"
    try:
        batch, others = backbone.example(*TRACED), [backbone.example(*size) for size in CHECKED]
        with torch.no_grad():
            outputs = list(graph.named(batch))
        with _quiet():
            _forget_gru()
            program = torch.onnx.export(
                graph, kwargs={"batch": batch}, dynamo=True, verbose=False, input_names=list(_inputs(backbone, batch)),
                output_names=outputs, dynamic_shapes={"batch": _axes(batch, others[0])})  # fmt: skip
            assert program is not None
            large = sum(p.numel() * p.element_size() for p in graph.parameters()) > LARGEST
            program.save(str(path), external_data=large)
    except Exception as error:  # the exporter passes on whatever a model's code raises under it
        cause = error.__cause__ or error
        said = first_line(cause) or "no reason given"
        raise XRetrieveError(
            f"{what} (backbone {backbone.name}, head {graph.head.name!r}) cannot be exported to ONNX "
            f"({type(cause).__name__}: {said}); {instead}"
        ) from error
    session = open_session(path)
    worst = 0.0
    for other in others:
        for name, difference in _differences(graph, session, other).items():
            worst = max(worst, difference)
            if not difference <= TOLERANCE:
                raise XRetrieveError(
                    f"{what}: its ONNX graph differs from torch by {difference:.2g} in {name!r}, more than "
                    f"{TOLERANCE:g}; {instead}"
                )
    return {
        "inputs": {i.name: [i.type, *i.shape] for i in session.get_inputs()},
        "outputs": {o.name: [o.type, *o.shape] for o in session.get_outputs()},
        "largest_difference": worst,
    }


def _inputs(backbone: Backbone, batch: Batch) -> dict[str, Tensor]:
    if isinstance(batch, Tensor):
        return {INPUT[backbone.modality] if batch.ndim == 4 else "features": batch}
    return {name + INPUT_MARK if name in TOKENS else name: value for name, value in batch.items()}


def _axes(batch: Batch, other: Batch) -> Any:
    """Names of the free axes: the first, and whatever differs between two batches."""
    if not isinstance(batch, Tensor):
        return {name: _axes(value, other[name]) for name, value in batch.items()}
    names = {i: "length" for i in range(1, batch.ndim) if batch.shape[i] != other.shape[i]}
    return {0: "batch", **names}


def _differences(graph: SideGraph, session: Any, batch: Batch) -> dict[str, float]:
    """By output, the largest difference from torch relative to the output's largest value (at least 1)."""
    with torch.no_grad():
        expected = graph.named(batch)
    given = _inputs(graph.backbone, batch)
    found = session.run(list(expected), {i.name: given[i.name].numpy() for i in session.get_inputs()})
    differences = {}
    for (name, right), mine in zip(expected.items(), found, strict=True):
        whole = torch.from_numpy(mine)
        value = whole[tuple(slice(size) for size in right.shape)]  # torch cuts padding off, a graph cannot
        if whole.ndim != right.ndim or value.shape != right.shape:
            raise XRetrieveError(f"the ONNX graph gives {name!r} the shape {mine.shape}, torch {tuple(right.shape)}")
        if right.dtype == torch.bool:
            differences[name] = float((value != right).any() or whole[:, right.shape[1] :].any())
        elif right.numel():
            differences[name] = float((value - right).abs().max() / right.abs().max().clamp(min=1))
    return differences


def _forget_gru() -> None:
    """An export leaves in torch how a GRU was taken apart, for shapes that are fixed; the next one would use that."""
    getattr(torch.ops.aten.gru.input, "_dispatch_cache", {}).clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """The exporter prints and warns about its own inner workings."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
