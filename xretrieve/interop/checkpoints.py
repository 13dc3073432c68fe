"""Published checkpoints (of SCAN, SGRAF, HMRN, Drill-down and the Combiner) as run folders."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from xretrieve.backbones import create_backbone
from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.backbones.words import Words
from xretrieve.errors import XRetrieveError
from xretrieve.heads.base import Head
from xretrieve.heads.local import LocalHead
from xretrieve.interop.composed_checkpoints import combiner_matcher, combiner_state
from xretrieve.interop.parts import (
    SET_FAMILIES,
    build_local_head,
    build_sentences,
    build_set_head,
    build_words,
    check_family,
    load_state,
    sizes,
)
from xretrieve.interop.set_checkpoints import drilldown_state, hmrn_options
from xretrieve.matcher import Matcher
from xretrieve.utils.files import atomic_folder, content_hash, write_json
from xretrieve.utils.paths import expand, is_folder, is_there
from xretrieve.utils.plain_values import load_plain, without_wrapper

ENCODERS = ("img_enc", "txt_enc")
PARTS = {
    "scan": ENCODERS,
    "sgr": (*ENCODERS, "sim_enc"),
    "saf": (*ENCODERS, "sim_enc"),
    "hmrn": (*ENCODERS, "sim_enc"),
    "drilldown": (),
    "combiner": (),
}  # the last two have one state dict
# SCAN's own option names: (ours, theirs)
SCAN_OPTIONS = {"stream": "cross_attn", "pooling": "agg_func", "feature_norm": "raw_feature_norm",
                "temperature": "lambda_softmax", "lambda_lse": "lambda_lse"}  # fmt: skip


def import_checkpoint(
    path: str | Path, family: str, out: str | Path, vocab: str | Path | None = None,
    head: Mapping[str, Any] | None = None, backbone: str | None = None, weights: str | Path | None = None,
) -> Matcher:  # fmt: skip
    """Turn a published checkpoint into a run folder that :func:`xretrieve.load` reads.

    Nothing in the file is executed: tensors and the option namespace are read, anything else is refused.

    Args:
        path: a dict with ``model``, a list of state dicts (image, text and, except for SCAN, similarity encoder), and
            ``opt``, an ``argparse.Namespace``; of Drill-down a dict with ``state_dict``, of CLIP4Cir one with
            ``Combiner``. Old and new torch formats.
        family: ``scan``, ``sgr``, ``saf``, ``hmrn``, ``drilldown`` or ``combiner``.
        out: the run folder to make; it must not exist, or be empty.
        vocab: the vocabulary file that the checkpoint was trained with (ids have no order of their own); a Combiner has
            none.
        head: options of the head that the file does not tell, such as Drill-down's ``slots`` and ``mode``.
        backbone: of a Combiner the two-tower model whose features it composes, ``open_clip:RN50x4/openai``, say;
            without one the matcher takes raw features in place of pictures and texts.
        weights: a local file with the weights of that model's towers.

    Returns:
        The matcher: `regions`, `words` (over query sets `sentences`) and the head.
    """
    path, out = expand(path), Path(out)
    check_family(family)
    if family not in PARTS:
        raise XRetrieveError(f"there are no published checkpoints of {family}; known families: {', '.join(PARTS)}")
    if is_there(out) and (not is_folder(out) or any(out.iterdir())):
        raise XRetrieveError(f"{out} exists already; name a new folder")
    stored, where = read_checkpoint(path), str(path)
    if family == "combiner":
        if vocab is not None:
            raise XRetrieveError("a combiner reads no words; leave out vocab (--vocab)")
        name = f"{path.name.split('.')[0]} ({family})"
        matcher = combiner_matcher(combiner_state(stored, where), where, name, head or {}, backbone, weights, str(out))
        return _written(matcher, stored, family, path, out)
    if vocab is None or backbone or weights:
        raise XRetrieveError(f"a {family} checkpoint needs vocab (--vocab), the vocabulary file it was trained with, "
                             "and takes no backbone")  # fmt: skip
    state = drilldown_state(stored, where) if family == "drilldown" else _state(stored, family, where)
    vocabulary = Vocabulary.load(vocab)
    widths = sizes(family, state, where)
    if len(vocabulary) != widths["vocab_size"]:
        raise XRetrieveError(
            f"{vocab} has {len(vocabulary)} words, but {path} has word vectors for {widths['vocab_size']}; give the "
            "vocabulary file it was trained with"
        )
    dropout = 0.0 if family in ("scan", "drilldown") else 0.4
    known, own = vars(stored["opt"]) if "opt" in stored else {}, dict(head or {})
    words: Words
    model: Head
    if family in SET_FAMILIES:
        words = build_sentences(widths, family, vocabulary, dropout)
        options = hmrn_options(known, widths, where) if family == "hmrn" else {}
        model = build_set_head(family, widths, **{**options, **own})
    else:
        words = build_words(widths, vocabulary, dropout)
        model = _head(family, widths, state, known, where, own)
    load_state(model, words, state, where)
    image = create_backbone("regions", dim=widths["feat_dim"])
    matcher = Matcher(image, words, model, name=f"{path.name.split('.')[0]} ({family})", source=str(out))
    return _written(matcher, stored, family, path, out)


def _written(matcher: Matcher, stored: Mapping[str, Any], family: str, path: Path, out: Path) -> Matcher:
    """Write the run folder of an imported matcher."""
    with atomic_folder(out) as part:
        matcher.save(part / "matcher")
        about = {"family": family, "file": path.name, "sha256": content_hash(path)}
        numbers = {key: _plain(stored[key]) for key in ("epoch", "best_rsum") if key in stored}
        options = {key: _plain(value) for key, value in vars(stored["opt"]).items()} if "opt" in stored else {}
        write_json(part / "import.json", about | numbers | {"options": options})
    return matcher


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The dict in a checkpoint file; a file with anything but tensors, plain values and a namespace is refused."""
    stored = load_plain(path)
    if not isinstance(stored, dict):
        raise XRetrieveError(f"{path}: expected a dict, found {type(stored).__name__}")
    if isinstance(stored.get("opt"), dict):
        stored["opt"] = argparse.Namespace(**{str(key): value for key, value in stored["opt"].items()})
    if "opt" in stored and not isinstance(stored["opt"], argparse.Namespace):
        raise XRetrieveError(f"{path}: 'opt' is a {type(stored['opt']).__name__}, expected options by name")
    return stored


def _state(stored: dict[str, Any], family: str, where: str) -> dict[str, Tensor]:
    """One state dict under the published names with ``img_enc.``, ``txt_enc.``, ``sim_enc.`` in front."""
    parts = PARTS[family]
    if not isinstance(stored.get("model"), (list, tuple)):
        raise XRetrieveError(f"{where}: expected a dict with 'model', a list of state dicts")
    if len(stored["model"]) != len(parts):
        raise XRetrieveError(
            f"{where}: 'model' has {len(stored['model'])} state dicts, a {family} checkpoint has {len(parts)} "
            f"({', '.join(parts)}); is it of another family?"
        )
    state = {}
    for prefix, values in zip(parts, stored["model"], strict=True):
        if not isinstance(values, dict) or not all(isinstance(v, Tensor) for v in values.values()):
            raise XRetrieveError(f"{where}: the state dict of {prefix} holds something else than tensors")
        for key, value in values.items():
            key = without_wrapper(key)
            if prefix == "txt_enc" and key.startswith("rnn."):  # SCAN's name of the GRU
                key = f"cap_{key}"
            state[f"{prefix}.{key}"] = value.float() if value.is_floating_point() else value
    return state


def _head(
    family: str, widths: dict[str, int], state: dict[str, Tensor], options: dict[str, Any], where: str,
    given: dict[str, Any],
) -> LocalHead:  # fmt: skip
    for key in ("no_imgnorm", "no_txtnorm"):
        if options.get(key):
            raise XRetrieveError(f"{where}: trained with --{key}; only models with unit-length tokens are read")
    own: dict[str, Any] = {}
    if family == "sgr":
        steps = [int(key.split(".")[2]) for key in state if key.startswith("sim_enc.SGR_module.")]
        own = {"steps": max(steps) + 1} if steps else {}
    if family == "scan":
        own = {ours: options[theirs] for ours, theirs in SCAN_OPTIONS.items() if theirs in options}
    elif "lambda_softmax" in options:
        own["temperature"] = float(options["lambda_softmax"])
    return build_local_head(family, widths, **{**own, **given})


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    return value if isinstance(value, (str, int, float, bool, list, type(None))) else str(value)
