"""Small published HMRN and Drill-down checkpoints, and their states under the names of replay."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.interop.parts import build_sentences, build_set_head, published_names
from xretrieve.interop.set_checkpoints import DRILLDOWN_NAMES

VOCABULARY = Vocabulary(["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "cat", "red"])
WIDTHS = {"vocab_size": len(VOCABULARY), "word_dim": 4, "embed_dim": 6, "feat_dim": 7, "sim_dim": 5}


def state_of(family: str) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    options = {"region_norm": "index", "regions": 3} if family == "hmrn" else {}
    head = build_set_head(family, WIDTHS, **options)
    state = published_names(head, build_sentences(WIDTHS, family))
    return {key: value.detach().clone() for key, value in state.items()}


def published(family: str) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """A checkpoint as the published code saves it, and its state under our names."""
    state = state_of(family)
    if family == "drilldown":
        theirs = {ours: name for name, ours in DRILLDOWN_NAMES.items()}
        named = {}
        for key, value in state.items():
            prefix = next(ours for ours in theirs if key.startswith(ours))
            named[theirs[prefix] + key[len(prefix) :]] = value
        return {"epoch": 3, "state_dict": named, "optimizer": {"state": {}, "param_groups": []}}, state
    parts: dict[str, dict[str, torch.Tensor]] = {"img_enc": {}, "txt_enc": {}, "sim_enc": {}}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        parts[part][rest] = value
    opt = argparse.Namespace(
        cross_attention_direction="I-T", alpha=0.5, beta=0.4, tau=40.0, temperature_lambda_i2t=4.0,
        temperature_lambda_t2i=12.0, icr_step=3, max_turns=5, embed_size=6, sim_dim=5, word_dim=4, img_dim=7,
        num_layers=1, bi_gru=True, no_imgnorm=False, no_txtnorm=False,
    )  # fmt: skip
    return {"epoch": 3, "model": list(parts.values()), "best_rsum": 480.5, "opt": opt, "Eiters": 10}, state
