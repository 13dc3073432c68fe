"""Published checkpoints of heads over query sets: HMRN (`.pth.tar`) and Drill-down (`.pkl`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from xretrieve.errors import XRetrieveError
from xretrieve.utils.plain_values import without_wrapper

# HMRN: option of the head -> field of `opt`
HMRN_OPTIONS = {"alpha": "alpha", "beta": "beta", "lambda_i2t": "temperature_lambda_i2t",
                "lambda_t2i": "temperature_lambda_t2i", "steps": "icr_step", "weight_horizon": "max_turns"}  # fmt: skip
DIRECTIONS = {"I-T": "i2t", "T-I": "t2i"}
REQUIRED = {"num_layers": 1, "bi_gru": True, "no_imgnorm": False, "no_txtnorm": False}
DRILLDOWN_NAMES = {  # published prefix -> ours
    "net.img_enc.project.0.": "img_enc.fc.",
    "net.txt_enc.embed.": "txt_enc.embed.",
    "net.txt_enc.rnn.": "txt_enc.cap_rnn.",
    "net.ctx_enc.updater.": "sim_enc.updater.",
    "net.ctx_enc.policy.general.": "sim_enc.policy.",
}


def hmrn_options(opt: Mapping[str, Any], widths: Mapping[str, int], where: str) -> dict[str, Any]:
    """Options of the head from what the checkpoint was trained with; what cannot be honoured is refused by its name."""
    for field, wanted in REQUIRED.items():
        if field in opt and opt[field] != wanted:
            raise XRetrieveError(f"{where}: trained with {field}={opt[field]}; only models with {wanted} are read")
    field = "cross_attention_direction"
    if opt.get(field) not in DIRECTIONS:
        raise XRetrieveError(f"{where}: opt.{field} is {opt.get(field)!r}, expected one of {', '.join(DIRECTIONS)}")
    for field, name in (("embed_size", "embed_dim"), ("sim_dim", "sim_dim"), ("word_dim", "word_dim"),
                        ("img_dim", "feat_dim")):  # fmt: skip
        if field in opt and opt[field] != widths[name]:
            raise XRetrieveError(f"{where}: opt.{field} is {opt[field]}, but the parameters are {widths[name]} wide")
    if "num_regions" not in widths:
        missing = "sim_enc.v_global_w.embedding_local.1.weight"
        raise XRetrieveError(f"{where}: no {missing!r}; this is not a whole hmrn model")
    options = {ours: opt[theirs] for ours, theirs in HMRN_OPTIONS.items() if theirs in opt}
    options |= {"direction": DIRECTIONS[opt["cross_attention_direction"]]}
    return options | {"region_norm": "index", "regions": widths["num_regions"]}


def drilldown_state(stored: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The state dict under our names; an unknown key is an error that names it."""
    given = stored.get("state_dict")
    if not isinstance(given, Mapping) or not all(isinstance(value, Tensor) for value in given.values()):
        raise XRetrieveError(f"{where}: expected a dict with 'state_dict', parameters by name")
    state = {}
    for key, value in given.items():
        own = without_wrapper(key)
        prefix = next((p for p in DRILLDOWN_NAMES if own.startswith(p)), None)
        if prefix is None:
            raise XRetrieveError(f"{where}: {key!r} is no parameter of a drilldown model with slots")
        name = DRILLDOWN_NAMES[prefix] + own[len(prefix) :]
        state[name] = value.float() if value.is_floating_point() else value
    return state
