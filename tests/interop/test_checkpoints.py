"""Checkpoints in the published layout become run folders; nothing in them is executed."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import types
from collections import defaultdict
from pathlib import Path, PureWindowsPath

import numpy as np
import pytest
import torch

import xretrieve as xr
from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.cli.main import main
from xretrieve.data.base import FeatureRow
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.interop.parts import build_words, published_names
from xretrieve.utils.plain_values import load_plain

CAPTIONS = ["a dog", "a red cat swims", "dog"]
VOCABULARY = Vocabulary(["<pad>", "<start>", "<end>", "<unk>", "a", "dog", "cat", "red"])
WIDTHS = {"vocab_size": len(VOCABULARY), "word_dim": 4, "embed_dim": 6}


def published(family: str) -> tuple[dict, dict[str, torch.Tensor]]:
    """A checkpoint dict as SCAN and SGRAF save it, and its state under the names of replay."""
    torch.manual_seed(0)
    more = {} if family == "scan" else {"sim_dim": 5, "region_norm": "index", "regions": 3}
    head, words = create_head(family, image_dim=7, text_dim=6, dim=6, **more), build_words(WIDTHS)
    state = {key: value.detach().clone() for key, value in published_names(head, words).items()}
    parts: dict[str, dict[str, torch.Tensor]] = {"img_enc": {}, "txt_enc": {}, "sim_enc": {}}
    for key, value in state.items():
        part, _, rest = key.partition(".")
        parts[part][rest.replace("cap_rnn", "rnn") if family == "scan" else rest] = value
    options = argparse.Namespace(margin=0.2, module_name=family.upper(), data_path="/somewhere")
    if family == "scan":
        vars(options).update(cross_attn="i2t", agg_func="Mean", raw_feature_norm="clipped_l2norm", lambda_softmax=4.0)
    model = [part for part in parts.values() if part]
    return {"epoch": 3, "model": model, "best_rsum": 480.5, "opt": options, "Eiters": 10}, state


@pytest.fixture
def files(tmp_path):
    VOCABULARY.save(tmp_path / "vocab.json")
    np.save(tmp_path / "ims.npy", np.random.default_rng(0).normal(size=(2, 3, 7)).astype(np.float32))
    return tmp_path


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("family", ["scan", "sgr", "saf"])
def test_imported_matcher_scores_as_the_replay_of_its_state(files, family, zipped):
    checkpoint, state = published(family)
    torch.save(checkpoint, files / "model_best.pth.tar", _use_new_zipfile_serialization=zipped)
    xr.interop.import_checkpoint(files / "model_best.pth.tar", family, files / "run", files / "vocab.json")
    matcher = xr.load(files / "run")
    texts = matcher.encode_texts(CAPTIONS)
    images = matcher.encode_images([FeatureRow(files / "ims.npy", row) for row in range(2)])
    batch = matcher.text.prepare(CAPTIONS)
    inputs = {"images": np.load(files / "ims.npy"), "captions": batch["ids"], "lengths": batch["lengths"]}
    options = {"direction": "i2t", "pooling": "Mean", "lambda_softmax": 4.0} if family == "scan" else {}
    found = xr.interop.replay(family, {k: v.numpy() for k, v in state.items()}, inputs, options)
    want = found["scores" if family == "scan" else "logits"].T
    np.testing.assert_allclose(matcher.score(texts, images).numpy(), want, rtol=0, atol=1e-6)


def test_the_command_says_what_it_made_and_keeps_the_options(files, capsys):
    torch.save(published("sgr")[0], files / "best.pth.tar")
    command = ["import", str(files / "best.pth.tar"), "--family", "sgr", "--vocab", str(files / "vocab.json")]
    assert main([*command, "--out", str(files / "run"), "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made["family"] == "sgr" and made["head"]["steps"] == 3
    about = json.loads((files / "run" / "import.json").read_text())
    assert about["best_rsum"] == 480.5 and about["options"]["margin"] == 0.2 and len(about["sha256"]) == 64
    assert main([*command, "--out", str(files / "run")]) == 2
    assert "exists already" in capsys.readouterr().err


class Payload:
    """Would make a folder when unpickled."""

    def __init__(self, target):
        self.target = str(target)

    def __reduce__(self):
        return os.mkdir, (self.target,)


class EasyDict(dict):
    """As many authors keep their options."""


EasyDict.__module__ = "easydict"


@pytest.mark.parametrize("zipped", [True, False])
def test_plain_values_of_every_kind_are_read_beside_the_weights(files, zipped, monkeypatch):
    monkeypatch.setitem(sys.modules, "easydict", types.SimpleNamespace(EasyDict=EasyDict))
    meters = defaultdict(list, {"loss": [np.float32(0.5), 1.0]})
    checkpoint, state = published("sgr")
    checkpoint |= {"best_rsum": np.float64(480.5), "epoch": np.int64(3), "meters": meters, "table": np.eye(2),
                   "flag": np.bool_(True), "size": torch.Size([2]), "nothing": None, "bins": np.arange(3, dtype=">i2"),
                   "args": types.SimpleNamespace(seed=1), "words": np.array(["a", "dog"])}  # fmt: skip
    options = {"data_path": Path("/some/where"), "windows": PureWindowsPath("C:/x"), "lr": np.float32(0.25), "steps": 3}
    for kind in (dict, lambda o: argparse.Namespace(**o), EasyDict):
        checkpoint["opt"] = kind(options)
        checkpoint["model"] = [{f"module.{k}": v for k, v in part.items()} for part in published("sgr")[0]["model"]]
        torch.save(checkpoint, files / "best.pth.tar", _use_new_zipfile_serialization=zipped)
        shutil.rmtree(files / "run", ignore_errors=True)
        matcher = xr.interop.import_checkpoint(files / "best.pth.tar", "sgr", files / "run", files / "vocab.json")
        made = published_names(matcher.head, matcher.text)
        assert all(torch.equal(made[key], value) for key, value in state.items())
        about = json.loads((files / "run" / "import.json").read_text())
        assert about["best_rsum"] == 480.5 and about["epoch"] == 3
        assert about["options"] == {"data_path": "/some/where", "windows": "C:\\x", "lr": 0.25, "steps": 3}
    read = load_plain(files / "best.pth.tar")
    assert read["meters"] == {"loss": [0.5, 1.0]} and read["flag"] is True and read["args"].seed == 1
    assert np.array_equal(read["table"], np.eye(2)) and read["bins"].tolist() == [0, 1, 2]
    assert read["words"].tolist() == ["a", "dog"]


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_checkpoint_is_refused_and_not_run(files, zipped):
    checkpoint = published("sgr")[0] | {"extra": Payload(files / "owned")}
    torch.save(checkpoint, files / "bad.pth.tar", _use_new_zipfile_serialization=zipped)
    with pytest.raises(XRetrieveError, match=r"asks for \w+.mkdir; it was not read") as caught:
        xr.interop.import_checkpoint(files / "bad.pth.tar", "sgr", files / "run", files / "vocab.json")
    assert not (files / "owned").exists() and not (files / "run").exists()
    assert "weights_only" not in str(caught.value) and "add_safe_globals" not in str(caught.value)


@pytest.mark.parametrize(
    ("family", "spoil", "says"),
    [
        ("saf", lambda c: None, "no 'sim_enc.SAF_module.*looks like sgr"),
        ("scan", lambda c: None, "'model' has 3 state dicts, a scan checkpoint has 2"),
        ("tshsr", lambda c: None, "no published checkpoints of tshsr"),
        ("sgrr", lambda c: None, "did you mean 'sgr'"),
        ("sgr", lambda c: c["model"][2].pop("sim_eval_w.bias"), "no 'sim_enc.sim_eval_w.bias'"),
        ("sgr", lambda c: c["model"][0].update(extra=torch.zeros(1)), "has no 'img_enc.extra'"),
        ("sgr", lambda c: c["model"][0].update({"fc.bias": torch.zeros(5)}), r"img_enc.fc.bias has shape \(5,\)"),
        ("sgr", lambda c: c["model"][1].update({"embed.weight": torch.zeros(9, 4)}), "word vectors for 9"),
        ("sgr", lambda c: c.update(opt=["margin"]), "'opt' is a list, expected options by name"),
        ("sgr", lambda c: vars(c["opt"]).update(no_imgnorm=True), "trained with --no_imgnorm"),
        ("sgr", lambda c: c.pop("model"), "a dict with 'model'"),
    ],
)
def test_what_does_not_fit_is_one_clear_error_and_leaves_nothing(files, family, spoil, says):
    checkpoint = published("sgr")[0]
    spoil(checkpoint)
    torch.save(checkpoint, files / "best.pth.tar")
    with pytest.raises(XRetrieveError, match=says):
        xr.interop.import_checkpoint(files / "best.pth.tar", family, files / "run", files / "vocab.json")
    assert not (files / "run").exists()


def test_a_file_that_is_no_checkpoint_is_named(files):
    (files / "text.pth.tar").write_text("not a checkpoint")
    for name, says in (("text.pth.tar", "text.pth.tar"), ("none.pth.tar", "no checkpoint file")):
        with pytest.raises(XRetrieveError, match=says):
            xr.interop.import_checkpoint(files / name, "sgr", files / "run", files / "vocab.json")
    torch.save(published("sgr")[0], files / "whole.pth.tar")
    (files / "cut.pth.tar").write_bytes((files / "whole.pth.tar").read_bytes()[:2000])
    with pytest.raises(XRetrieveError, match="cut.pth.tar"):
        xr.interop.import_checkpoint(files / "cut.pth.tar", "sgr", files / "run", files / "vocab.json")
