"""Published HMRN and Drill-down checkpoints become run folders; nothing in them is executed."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
import torch

import xretrieve as xr
from tests.interop.set_models import VOCABULARY, published
from xretrieve.cli.main import main
from xretrieve.data.base import FeatureRow
from xretrieve.errors import XRetrieveError

SETS = [["a dog", "a red cat swims"], ["dog", "red", "a cat", "a"]]


@pytest.fixture
def files(tmp_path):
    VOCABULARY.save(tmp_path / "vocab.json")
    np.save(tmp_path / "ims.npy", np.random.default_rng(0).normal(size=(3, 3, 7)).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("family", ["hmrn", "drilldown"])
def test_imported_matcher_scores_every_round_as_the_replay_of_its_state(files, family, zipped):
    checkpoint, state = published(family)
    torch.save(checkpoint, files / "best.pkl", _use_new_zipfile_serialization=zipped)
    xr.interop.import_checkpoint(files / "best.pkl", family, files / "run", files / "vocab.json")
    matcher = xr.load(files / "run")
    texts = matcher.encode_texts([text for said in SETS for text in said])
    images = matcher.encode_images([FeatureRow(files / "ims.npy", row) for row in range(3)])
    sets = matcher.head.combine_sets(texts, [len(said) for said in SETS])
    ids, mask = np.zeros((2, 4, 5), np.int64), np.zeros((2, 4, 5), bool)
    for k, said in enumerate(SETS):
        for t, text in enumerate(said):
            row = VOCABULARY.encode(text)[1:]
            ids[k, t, : len(row)], mask[k, t, : len(row)] = row, True
    options = {"direction": "i2t", "alpha": 0.5, "beta": 0.4, "lambda_i2t": 4.0, "lambda_t2i": 12.0,
               "weight_horizon": 5} if family == "hmrn" else {}  # fmt: skip
    inputs = {"images": np.load(files / "ims.npy"), "captions": ids, "captions_mask": mask}
    found = xr.interop.replay(family, {k: v.numpy() for k, v in state.items()}, inputs, options)
    with torch.inference_mode():
        scores = matcher.head.score_rounds(sets, images)
    np.testing.assert_allclose(scores.numpy(), found["scores"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(matcher.score(sets, images).numpy().T, found["scores"][-1], rtol=0, atol=1e-6)


def test_the_command_takes_what_the_file_does_not_tell(files, capsys):
    torch.save(published("drilldown")[0], files / "best.pkl")
    command = ["import", str(files / "best.pkl"), "--family", "drilldown", "--vocab", str(files / "vocab.json")]
    command += ["--out", str(files / "run"), "--head", "slots=2", "--head", "mode=policy", "--json"]
    assert main(command) == 0
    assert json.loads(capsys.readouterr().out)["head"]["slots"] == 2
    assert xr.load(files / "run").head.mode == "policy"


class Payload:
    """Would make a folder when unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


@pytest.mark.parametrize("family", ["hmrn", "drilldown"])
def test_code_in_a_checkpoint_is_refused_and_not_run(files, family):
    torch.save(published(family)[0] | {"extra": Payload(files / "owned")}, files / "bad.pkl")
    with pytest.raises(XRetrieveError, match="it was not read"):
        xr.interop.import_checkpoint(files / "bad.pkl", family, files / "run", files / "vocab.json")
    assert not (files / "owned").exists() and not (files / "run").exists()


@pytest.mark.parametrize(
    ("family", "spoil", "says"),
    [
        ("hmrn", lambda c: vars(c["opt"]).update(num_layers=2), "trained with num_layers=2"),
        ("hmrn", lambda c: vars(c["opt"]).update(bi_gru=False), "trained with bi_gru=False"),
        ("hmrn", lambda c: vars(c["opt"]).update(no_txtnorm=True), "trained with no_txtnorm=True"),
        ("hmrn", lambda c: vars(c["opt"]).update(cross_attention_direction="up"), "is .up., expected one of I-T"),
        ("hmrn", lambda c: vars(c["opt"]).update(sim_dim=9), "opt.sim_dim is 9, but the parameters are 5 wide"),
        ("hmrn", lambda c: c.pop("opt"), "cross_attention_direction is None"),
        ("hmrn", lambda c: c["model"][2].pop("sim_w.bias"), "no 'sim_enc.sim_w.bias'"),
        ("sgr", lambda c: None, "looks like hmrn"),
        ("drilldown", lambda c: c["state_dict"].update({"net.other": torch.zeros(1)}), "'net.other' is no parameter"),
        ("drilldown", lambda c: c["state_dict"].pop("net.ctx_enc.updater.l3.bias"), "no 'sim_enc.updater.l3.bias'"),
        ("drilldown", lambda c: c.pop("state_dict"), "a dict with 'state_dict'"),
    ],
)
def test_what_does_not_fit_is_one_clear_error_and_leaves_nothing(files, family, spoil, says):
    checkpoint = published("hmrn" if family == "sgr" else family)[0]
    spoil(checkpoint)
    torch.save(checkpoint, files / "best.pkl")
    with pytest.raises(XRetrieveError, match=says):
        xr.interop.import_checkpoint(files / "best.pkl", family, files / "run", files / "vocab.json")
    assert not (files / "run").exists()
