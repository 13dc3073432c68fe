"""Sharing a trained model: as a folder with weights or with ONNX graphs, with a model card, on disk or on the Hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from xretrieve.ensemble import Ensemble
from xretrieve.errors import XRetrieveError
from xretrieve.loading import load
from xretrieve.matcher import Matcher
from xretrieve.sharing.card import Source, model_card
from xretrieve.sharing.graphs import export_graphs
from xretrieve.sharing.hub import fetch, push
from xretrieve.utils.files import atomic_folder, write_json, write_text
from xretrieve.utils.paths import is_there

Kind = Literal["folder", "onnx"]
__all__ = ["Kind", "export", "fetch", "push"]


def export(
    run: str | Path, out: str | Path, kind: Kind = "folder", *, name: str = "", license: str = "",
    overwrite: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Write what another person needs to use a run: :func:`xretrieve.load` reads the folder back, with equal scores.

    Args:
        run: a run folder, a matcher folder, or any other name that :func:`xretrieve.load` knows.
        out: the folder to write. It holds the model, ``README.md`` (the model card), and of a run ``recipe.yaml`` and
            ``results.json``, without pictures, paths and single queries.
        kind: ``folder`` (safetensors) or ``onnx`` (:mod:`xretrieve.sharing.graphs`).
        name: what the card tells others to load; default: the name of ``out``.
        license: of the weights, as the Hub spells it (``cc-by-nc-4.0``); without it the card says that none is stated.
        overwrite: replace ``out``.

    Returns:
        of an ONNX export what :func:`xretrieve.sharing.graphs.export_graphs` returns, else nothing.

    Raises:
        XRetrieveError: no such run, ``out`` is there, or the model cannot be exported so.
    """
    out = Path(out)
    if is_there(out) and not overwrite:
        raise XRetrieveError(f"{out} is there already: --overwrite replaces it, --out DIR goes elsewhere")
    matcher = load(run)
    source = Source.of(run, matcher)
    graphs: dict[str, Any] = {}
    with atomic_folder(out) as part:
        if kind == "folder":
            matcher.save(part)
        elif isinstance(matcher, Matcher):
            graphs = export_graphs(matcher, part)
        else:
            raise XRetrieveError(_members_instead(matcher))
        if source.recipe is not None:
            write_text(part / "recipe.yaml", source.recipe_text)
        if source.reports:
            write_json(part / "results.json", [asdict(result) for result in source.results])
        write_text(part / "README.md", model_card(matcher, source, name or out.name, license, graphs))
    return graphs


def _members_instead(ensemble: Ensemble) -> str:
    each = ", ".join(f"{ensemble.source}/members/{name}" for name in ensemble.names)
    return f"{ensemble.name!r} averages {len(ensemble.names)} models; ONNX takes one at a time: {each}"
