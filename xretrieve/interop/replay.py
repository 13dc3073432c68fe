"""`replay`: recompute stored arrays of the image-text family from their parameters, inputs and options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from xretrieve.backbones.words import Words
from xretrieve.errors import XRetrieveError
from xretrieve.heads.local import LocalHead
from xretrieve.heads.scoring import Items
from xretrieve.interop.parts import (
    COMPOSED_FAMILIES,
    METRICS_FAMILY,
    SET_FAMILIES,
    SIZES,
    build_local_head,
    build_words,
    check_family,
    load_state,
    published_names,
    read_array,
    read_options,
    sizes,
)
from xretrieve.interop.replay_composed import replay_composed
from xretrieve.interop.replay_sets import replay_sets
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.losses import HardestHinge

_COMMON = {"leaky_slope": 0.1, "eps": 1e-8}
_NORMED = {**_COMMON, "bn_eps": 1e-5, "bn_momentum": 0.1}  # built in: another value is refused
_SCAN = {"direction": "t2i", "lambda_softmax": 9.0, "lambda_lse": 6.0, "pooling": "LogSumExp",
         "feature_norm": "clipped_l2norm", "i2t_lambda_softmax": 4.0, "i2t_lambda_lse": 5.0,
         "i2t_pooling": "LogSumExp", "i2t_feature_norm": "clipped_l2norm"}  # fmt: skip
_STREAM = {"direction": "t2i", "lambda_softmax": 9.0}
DEFAULTS: dict[str, dict[str, Any]] = {
    "scan": _COMMON | _SCAN,
    "sgr": _NORMED | _STREAM | {"sgr_steps": 3, "region_norm": "index"},
    "saf": _NORMED | _STREAM | {"sgr_steps": 0, "region_norm": "index", "saf_norm": "caption"},
    "tshsr": _NORMED | {"direction": "both", "lambda_t2i": 9.0, "lambda_i2t": 4.0, "levels": 3, "clusters": None,
                        "context": "cluster", "gate": "vector", "fusion": "mean", "readout": "global",
                        "aux_streams": True, "region_norm": "index", "saf_norm": "caption"},
}  # fmt: skip
# accepted beside them: sizes are checked against the state, dropout is off in everything that is replayed
_OTHER = ("model", "margin", "loss_pairs", "dropout", "gradients", *SIZES)


def replay(
    family: str, state: Mapping[str, Any], inputs: Mapping[str, Any], options: Mapping[str, Any] | None = None
) -> dict[str, np.ndarray]:
    """Recompute a model's arrays in float32 on the CPU.

    Args:
        family: ``scan``, ``sgr``, ``saf`` or ``tshsr``; for ``hmrn`` and ``drilldown`` see :func:`replay_sets`, for
            ``combiner``, ``tirg`` and ``dqu`` :func:`replay_composed`; ``composed_metrics`` has no state, see
            :func:`~xretrieve.evaluation.candidates.replay_metrics`.
        state: parameters and buffers under their published names (``img_enc.fc.weight``, ...).
        inputs: ``images`` (B,R,F), ``captions`` (C,L) word ids, ``lengths`` (C,).
        options: ``direction``, ``lambda_softmax``, ``fusion``, ...; what is left out has the value of the published
            model. With ``loss_pairs`` and ``margin`` the losses and, unless ``gradients`` is false, their gradients.

    Returns:
        Arrays by name, images x captions: ``scores`` (B,C), ``logits`` (not scan), ``img_emb``, ``cap_emb`` and the
        intermediates; ``grad/NAME``, ``grad_sum/NAME``; ``train/scores`` and ``train/state_after/NAME`` (one pass in
        training mode without dropout, not scan, and not of a single image). Places beyond a caption's length are 0.
    """
    if family == METRICS_FAMILY:
        from xretrieve.evaluation.candidates import replay_metrics

        return replay_metrics(dict(inputs), dict(options or {}))
    if check_family(family) in SET_FAMILIES:
        return replay_sets(family, state, inputs, options or {})
    if family in COMPOSED_FAMILIES:
        return replay_composed(family, state, inputs, options or {})
    options = _options(family, options or {})
    weights = {key: read_array(value, f"state {key}") for key, value in state.items()}
    widths = sizes(family, weights, "state")
    for name, width in widths.items():
        if options.get(name, width) != width:
            raise XRetrieveError(f"option {name} is {options[name]}, but {SIZES[name][0]} says {width}")
    images, batch = _inputs(inputs, widths)
    model = _Model(family, weights, widths, options, images, batch)
    with torch.no_grad():
        found = model.outputs()
    if "loss_pairs" in options and "margin" in options:
        found |= model.losses()
    if family != "scan" and len(images) > 1:  # batch norm in training mode needs the statistics of several
        found |= model.training_pass()
    return {key: value.detach().numpy() for key, value in found.items()}


class _Model:
    """One state with its inputs; heads are built per set of options."""

    def __init__(self, family: str, weights: dict[str, Tensor], widths: dict[str, int], options: dict[str, Any],
                 images: Tensor, batch: dict[str, Tensor]) -> None:  # fmt: skip
        self.family, self.weights, self.widths, self.options = family, weights, widths, options
        self.images, self.batch = images, batch

    def build(self, **changes: Any) -> tuple[LocalHead, Words]:
        """Head and text encoder in evaluation mode, filled."""
        o = self.options | changes
        if self.family == "tshsr":
            named = "lambda_t2i lambda_i2t levels context gate fusion readout aux_streams saf_norm"
            own = {key: o[key] for key in named.split()} | {"streams": o["direction"]}
            own |= {"clusters": None if o["clusters"] is None else [int(m) for m in o["clusters"]]}
        else:
            own = {"stream": o["direction"], "temperature": o["lambda_softmax"]}
            own |= {"steps": o["sgr_steps"]} if self.family == "sgr" else {}
            own |= {"saf_norm": o["saf_norm"]} if self.family == "saf" else {}
            own |= {k: o[k] for k in ("pooling", "feature_norm", "lambda_lse")} if self.family == "scan" else {}
        own |= {} if self.family == "scan" else {"dropout": 0.0}
        head, words = build_local_head(self.family, self.widths, **own), build_words(self.widths)
        if self.family != "scan" and o["region_norm"] != head.config["region_norm"]:
            raise XRetrieveError(f"option region_norm is {o['region_norm']!r}, but the state is that of "
                                 f"{head.config['region_norm']!r}")  # fmt: skip
        load_state(head, words, self.weights, "state")
        return head.eval(), words.eval()

    def sides(self, head: LocalHead, words: Words) -> tuple[Prepared, Prepared]:
        """Captions and images, prepared."""
        return head.prepare_queries(words(self.batch)), head.prepare_gallery(Tokens.from_local(self.images))

    def outputs(self) -> dict[str, Tensor]:
        """Everything in evaluation mode."""
        head, words = self.build()
        texts, images = self.sides(head, words)
        found = {"img_emb": images.local, "cap_emb": texts.local, "word_mask": texts.mask}
        scored = head.run(texts, images)
        trace = _trace(head, texts, images)
        if self.family == "scan":
            found |= {"scores": scored["score"].T, **_plain(trace, head.streams[0])}
            changes = {k[4:]: v for k, v in self.options.items() if k.startswith("i2t_")}
            other, words = self.build(direction="i2t", **changes)
            texts, images = self.sides(other, words)
            arrays = _plain(_trace(other, texts, images), "i2t") | {"scores": other.run(texts, images)["score"].T}
            return found | {f"i2t_{name}": value for name, value in arrays.items()}
        found |= {"img_glo": images.pooled, "cap_glo": texts.pooled, "logits": scored["score"].T}
        found["scores"] = head.training_scores(texts, images)["score"].T
        if self.family != "tshsr":
            found |= _plain(trace, head.streams[0])
            return found | (self.other_stream(found["scores"]) if head.streams == ("i2t",) else {})
        for stream in head.streams:
            if stream in scored:
                found |= {f"{stream}_logits": scored[stream].T, f"{stream}_scores": torch.sigmoid(scored[stream].T)}
        return found | trace

    def other_stream(self, scores: Tensor) -> dict[str, Tensor]:
        """The same weights on the t2i stream and at lambda 9, and the mean of both streams."""
        made = {}
        for name, changes in (("scores_lambda9", {}), ("t2i_scores", {"direction": "t2i"})):
            head, words = self.build(lambda_softmax=9.0, **changes)
            made[name] = head.training_scores(*self.sides(head, words))["score"].T
        return made | {"fused_mean": (scores + made["t2i_scores"]) / 2}

    def losses(self) -> dict[str, Tensor]:
        """Both hinges on the leading square block, and their gradients."""
        runs: list[tuple[str, dict[str, Any]]] = [("", {})]
        if self.family == "scan":
            runs.append(("i2t_", {"direction": "i2t"} | {k[4:]: v for k, v in self.options.items() if k[:4] == "i2t_"}))
        found = {}
        for prefix, changes in runs:
            for kind, name, grad in (("hardest", "loss_max", "grad"), ("all", "loss_sum", "grad_sum")):
                head, words = self.build(**changes)
                matrices = head.training_scores(*self.sides(head, words))
                p = int(self.options["loss_pairs"])
                hinge = HardestHinge(float(self.options["margin"]), negatives=kind, mask_duplicates=False)
                parts = [hinge(scores[:p, :p])[0] for scores in matrices.values()]
                total = torch.stack(parts).sum()
                found[f"{prefix}{name}"] = total
                if self.family == "tshsr" and kind == "hardest":
                    found["loss_main"] = parts[0]
                if self.options.get("gradients", True):
                    total.backward()
                    for key, value in published_names(head, words).items():
                        if isinstance(value, torch.nn.Parameter):
                            own = torch.zeros_like(value) if value.grad is None else value.grad
                            found[f"{prefix}{grad}/{key}"] = own
        return found

    def training_pass(self) -> dict[str, Tensor]:
        """One forward pass in training mode (the parts were built without dropout)."""
        head, words = self.build()
        head.train()
        with torch.no_grad():
            scores = head.training_scores(*self.sides(head, words))["score"].T
        buffers = {f"sim_enc.{name}" for name, _ in head.named_buffers()}
        after = {key: value for key, value in published_names(head, words).items() if key in buffers}
        return {"train/scores": scores, **{f"train/state_after/{key}": value for key, value in after.items()}}


def _trace(head: LocalHead, texts: Prepared, images: Prepared) -> dict[str, Tensor]:
    """Intermediate arrays, images first (B,C,...), 0 at padded words."""
    found: dict[str, Tensor] = {}
    head.block(Items.of(texts), Items.of(images), head.fold(), found)
    longest = texts.mask.shape[1]
    made = {}
    for name, value in found.items():
        value = value[0].transpose(0, 1) if name.startswith("i2t") else value[0]
        if name.startswith("t2i") and not name.endswith("_vec"):  # axis 2 runs over words, or over nodes
            first = 0 if name.split("_")[1] in ("attention", "context") else 1
            mask = torch.nn.functional.pad(texts.mask, (first, 0), value=True)  # (C,q)
            value = torch.nn.functional.pad(value, (0, 0) * (value.ndim - 3) + (0, longest + first - value.shape[2]))
            value = value * mask.view(1, *mask.shape, *[1] * (value.ndim - 3))
        elif name == "i2t_attention":
            value = torch.nn.functional.pad(value, (0, longest - value.shape[-1]))
        made[name] = value
    return made


def _plain(trace: dict[str, Tensor], stream: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{stream}_"): value for name, value in trace.items()}


def _options(family: str, given: Mapping[str, Any]) -> dict[str, Any]:
    return read_options(family, given, DEFAULTS[family], _OTHER, {**_COMMON, **_NORMED})


def _inputs(inputs: Mapping[str, Any], widths: dict[str, int]) -> tuple[Tensor, dict[str, Tensor]]:
    for key in ("images", "captions", "lengths"):
        if key not in inputs:
            raise XRetrieveError(f"inputs: no {key!r}; images (B,R,F), captions (C,L) and lengths (C,) are needed")
    images, ids, lengths = (read_array(inputs[key], f"inputs {key}") for key in ("images", "captions", "lengths"))
    if images.ndim != 3 or images.shape[2] != widths["feat_dim"]:
        raise XRetrieveError(f"inputs: images has shape {tuple(images.shape)}, expected (B,R,{widths['feat_dim']})")
    if ids.ndim != 2 or lengths.shape != ids.shape[:1] or ids.is_floating_point() or lengths.is_floating_point():
        raise XRetrieveError(f"inputs: captions {tuple(ids.shape)} and lengths {tuple(lengths.shape)} must be whole "
                             "numbers (C,L) and (C,)")  # fmt: skip
    if int(lengths.min()) < 1 or int(lengths.max()) > ids.shape[1]:
        raise XRetrieveError(f"inputs: lengths must lie between 1 and {ids.shape[1]}, found {int(lengths.min())} to "
                             f"{int(lengths.max())}")  # fmt: skip
    real = ids.masked_fill(torch.arange(ids.shape[1]) >= lengths[:, None], 0)  # what lies beyond a length is ignored
    if int(real.min()) < 0 or int(real.max()) >= widths["vocab_size"]:
        wrong = int(real.max()) if int(real.min()) >= 0 else int(real.min())
        raise XRetrieveError(f"inputs: captions hold word id {wrong}, the vocabulary has {widths['vocab_size']}")
    return images.float(), {"ids": real.long(), "lengths": lengths.long()}
