"""A published state (`img_enc.`, `txt_enc.`, `sim_enc.`) as this project's parts: the words backbone and a head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.backbones.sentences import Sentences
from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.backbones.words import Words
from xretrieve.errors import XRetrieveError, unknown
from xretrieve.heads import create_head
from xretrieve.heads.base import Head
from xretrieve.heads.local import LocalHead
from xretrieve.heads.multi import MultiQueryHead

COMPOSED_FAMILIES = ("combiner", "tirg", "dqu")  # composed queries
METRICS_FAMILY = "composed_metrics"  # no model: scores become metrics
FAMILIES = ("scan", "sgr", "saf", "tshsr", "hmrn", "drilldown", *COMPOSED_FAMILIES)
SET_FAMILIES = ("hmrn", "drilldown")  # query sets instead of captions
SIZES = {  # what of a state says how wide things are: (key, axis)
    "feat_dim": ("img_enc.fc.weight", 1),
    "embed_dim": ("img_enc.fc.weight", 0),
    "vocab_size": ("txt_enc.embed.weight", 0),
    "word_dim": ("txt_enc.embed.weight", 1),
    "sim_dim": ("sim_enc.sim_tranglo_w.weight", 0),
    "num_regions": ("sim_enc.v_global_w.embedding_local.1.weight", 0),
}
# a state may hold both fusions of TSHSR and both of its streams; region_norm=none leaves HMRN's BatchNorm out
SPARE = {
    "hmrn": ("sim_enc.v_global_w.embedding_local.1.", "sim_enc.v_global_w.embedding_global.1."),
    "tshsr": ("sim_enc.sim_eval_w.", "sim_enc.t2i.", "sim_enc.i2t."),
}


def check_family(family: str) -> str:
    """A family's name, or an error that lists them."""
    if family not in FAMILIES:
        raise unknown("family", str(family), [*FAMILIES, METRICS_FAMILY])
    return family


def sizes(family: str, state: Mapping[str, Tensor], where: str) -> dict[str, int]:
    """The widths that a state implies; an absent key or a scalar in its place is an error that names it."""
    wanted = ["feat_dim", "embed_dim", "vocab_size", "word_dim"]
    if family not in ("scan", "drilldown"):
        wanted.append("sim_dim")
    found = {}
    for name in wanted:
        key, axis = SIZES[name]
        if key not in state:
            raise XRetrieveError(f"{where}: no {key!r}; this is not a whole {family} model{_looks_like(family, state)}")
        if state[key].ndim != 2:
            raise XRetrieveError(f"{where}: {key} has shape {tuple(state[key].shape)}, expected two axes")
        found[name] = state[key].shape[axis]
    key, axis = SIZES["num_regions"]
    if key in state and state[key].ndim == 1:  # without the region BatchNorm there is no such key
        found["num_regions"] = state[key].shape[axis]
    return found


def _looks_like(family: str, state: Mapping[str, Tensor]) -> str:
    marks = {"sgr": "sim_enc.SGR_module.", "saf": "sim_enc.SAF_module.", "tshsr": "sim_enc.t2i.",
             "hmrn": "sim_enc.ICR_module.", "drilldown": "sim_enc.updater."}  # fmt: skip
    seen = [name for name, mark in marks.items() if any(key.startswith(mark) for key in state)]
    if not seen and not any(key.startswith("sim_enc.") for key in state):
        seen = ["scan"]
    return f" (it looks like {seen[0]})" if seen and family not in seen else ""


def build_words(widths: dict[str, int], vocabulary: Vocabulary | None = None, dropout: float = 0.0) -> Words:
    """The text encoder; without a vocabulary the words get made-up names (ids are given, no text is read)."""
    count = widths["vocab_size"]
    if vocabulary is None:
        special = ["<pad>", "<start>", "<end>", "<unk>"]
        vocabulary = Vocabulary([*special, *(f"word {i}" for i in range(len(special), count))])
    if len(vocabulary) != count:
        raise XRetrieveError(
            f"the vocabulary has {len(vocabulary)} words but txt_enc.embed.weight has {count} rows; a checkpoint needs "
            "the vocabulary file it was trained with"
        )
    return Words(vocabulary, widths["word_dim"], widths["embed_dim"], dropout)


def build_sentences(
    widths: dict[str, int], family: str, vocabulary: Vocabulary | None = None, dropout: float = 0.0
) -> Sentences:
    """The text encoder of a family over query sets; made-up names as in :func:`build_words`."""
    words = build_words(widths, vocabulary)
    both = family == "hmrn"
    return Sentences(words.vocabulary, widths["word_dim"], widths["embed_dim"], dropout, both, xavier=not both)


def build_set_head(family: str, widths: dict[str, int], **options: Any) -> MultiQueryHead:
    """The family's head for these widths, on `regions` and `sentences`."""
    d = widths["embed_dim"]
    options |= {"sim_dim": widths["sim_dim"]} if family == "hmrn" else {}
    head = create_head(family, image_dim=widths["feat_dim"], text_dim=d, dim=d, **options)
    assert isinstance(head, MultiQueryHead)
    return head


def build_local_head(family: str, widths: dict[str, int], **options: Any) -> LocalHead:
    """The family's head for these widths, on `regions` and `words`."""
    d = widths["embed_dim"]
    if family != "scan":
        options |= {"sim_dim": widths["sim_dim"]}
        options |= {"region_norm": "index", "regions": widths["num_regions"]} if "num_regions" in widths else {}
    head = create_head(family, image_dim=widths["feat_dim"], text_dim=d, dim=d, **options)
    assert isinstance(head, LocalHead)
    return head


def published_names(head: Head, words: Words) -> dict[str, Tensor]:
    """Every parameter and buffer (not copied) under its published name."""
    named = {f"txt_enc.{key}": value for key, value in words.state_dict(keep_vars=True).items()}
    for key, value in head.state_dict(keep_vars=True).items():
        part, _, rest = key.partition(".")
        named[f"img_enc.{rest}" if part == "image" else f"sim_enc.{key}"] = value
    return named


def load_state(head: Head, words: Words, state: Mapping[str, Tensor], where: str) -> None:
    """Fill both parts; the first missing, unexpected or wrong-shaped key is one error that names it."""
    own = published_names(head, words)
    hint = _looks_like(head.name, state)
    for key, value in own.items():
        if key not in state:
            raise XRetrieveError(f"{where}: no {key!r}; this is not a whole {head.name} model{hint}")
        if state[key].shape != value.shape:
            raise XRetrieveError(
                f"{where}: {key} has shape {tuple(state[key].shape)}, the model needs {tuple(value.shape)}{hint}"
            )
        if state[key].is_floating_point() and not bool(torch.isfinite(state[key]).all()):
            raise XRetrieveError(f"{where}: {key} holds NaN or infinite values")
    spare = SPARE.get(head.name, ())
    for key in state:
        if key not in own and not key.startswith(spare or "\n"):
            raise XRetrieveError(f"{where}: a {head.name} model has no {key!r}{hint}")
    with torch.no_grad():
        for key, value in own.items():
            value.copy_(state[key])


def read_options(
    family: str, given: Mapping[str, Any], known: Mapping[str, Any], other: Sequence[str], fixed: Iterable[str]
) -> dict[str, Any]:
    """Options of a family with the published values where none is given.

    Args:
        family: for messages.
        given: as stored, arrays without axes.
        known: the options that change something, with their defaults.
        other: further accepted ones.
        fixed: those that are built in; another value than the default is refused.
    """
    options = {key: np.asarray(value).tolist() for key, value in given.items()}
    for key in options:
        if key not in known and key not in other:
            raise unknown(f"option of {family}:", key, [*known, *other])
    if str(options.get("model", family)).lower() != family:
        raise XRetrieveError(f"option model is {options['model']!r}, but the family asked for is {family!r}")
    for key in fixed:
        if key in known and options.get(key, known[key]) != known[key]:
            raise XRetrieveError(f"option {key}={options[key]} cannot be replayed, only {known[key]}")
    return {**known, **options}


def read_array(value: Any, what: str) -> Tensor:
    """Numbers as a tensor, float32 where they are not whole; ``what`` names them in the error."""
    try:
        tensor = torch.as_tensor(np.array(value))
    except (TypeError, ValueError) as error:
        raise XRetrieveError(f"{what} is not an array of numbers") from error
    return tensor.float() if tensor.is_floating_point() else tensor
