"""A few steps on the built-in scenes lower the loss of the heads that compare tokens: pixels of cells against words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import xretrieve as xr
from xretrieve.backbones.sentences import Sentences
from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.backbones.words import Words
from xretrieve.heads import create_head
from xretrieve.tokens import Tokens
from xretrieve.training.losses import InfoNCE
from xretrieve.training.set_trainee import SetTrainee
from xretrieve.training.trainee import Gather, Trainee

PICTURES, CELLS, SIDE, SAID, STEPS = 12, 4, 12, 4, 60
STREAMS = {"dim": 32, "sim_dim": 16, "dropout": 0.0, "train_on": "logit"}
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "tshsr": ("tshsr", STREAMS),
    "sgr": ("sgr", STREAMS),
    "hmrn": ("hmrn", {"dim": 32, "sim_dim": 16, "dropout": 0.0, "weight_horizon": SAID}),
    "drilldown": ("drilldown", {"dim": 32, "slots": 2}),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> tuple[Tokens, list[list[str]]]:
    """The pixels of 4 x 4 cells of some scenes (N,16,432), and four captions of each."""
    size = {"train": PICTURES, "val": 2, "test": 2, "size": CELLS * SIDE}
    data = xr.datasets.load("scenes", str(tmp_path_factory.mktemp("scenes")), "train", **size)
    cells = []
    for path in data.images:
        pixels = np.asarray(Image.open(path).convert("RGB"), np.float32) / 127.5 - 1  # (48,48,3)
        cells.append(pixels.reshape(CELLS, SIDE, CELLS, SIDE, 3).swapaxes(1, 2).reshape(CELLS**2, -1))
    return Tokens.from_local(torch.tensor(np.stack(cells))), [data.captions_of(i)[:SAID] for i in range(PICTURES)]


@pytest.mark.parametrize("case", HEADS)
def test_a_few_steps_lower_the_loss(case: str, scenes: tuple[Tokens, list[list[str]]]) -> None:
    images, said = scenes
    name, options = HEADS[case]
    torch.manual_seed(0)
    words = Vocabulary.build([text for texts in said for text in texts], min_count=1)
    head = create_head(name, image_dim=images.local.shape[2], text_dim=32, **options)
    sets = name in ("hmrn", "drilldown")
    text = (Sentences if sets else Words)(words, word_dim=16, dim=32, dropout=0.0)
    loss = InfoNCE(0.1 if sets else 1.0, learnable=False)
    trainee = (SetTrainee if sets else Trainee)(head, loss, None, text, Gather()).train()
    if sets:
        flat = text.prepare([one for texts in said for one in texts])
        inputs: tuple[Any, ...] = ((flat, torch.full((PICTURES,), SAID)), torch.zeros(SAID, PICTURES, PICTURES) > 0)
    else:
        inputs = (text.prepare([texts[0] for texts in said]), torch.zeros(1, PICTURES, PICTURES) > 0)
    adam, losses = torch.optim.Adam([p for p in trainee.parameters() if p.requires_grad], 5e-3), []
    for _ in range(STEPS):
        total, _ = trainee(images, *inputs)
        adam.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(trainee.parameters(), 2.0)
        adam.step()
        losses.append(float(total.detach()))
    assert sum(losses[-3:]) < 0.7 * sum(losses[:3]), losses[::10]
