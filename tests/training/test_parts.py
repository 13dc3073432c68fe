"""The small parts: hidden tokens, left-out words, prefetching, the moving average, the optimizer's groups, the log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from xretrieve.heads import create_head
from xretrieve.tokens import Tokens
from xretrieve.training.checkpoint import Ema
from xretrieve.training.feeds import CachedFeed, drop_words, prefetch
from xretrieve.training.log import Log, Meter, read_log
from xretrieve.training.losses import create_loss
from xretrieve.training.optimizer import make_optimizer
from xretrieve.training.recipe import LossConfig, StageConfig
from xretrieve.training.trainee import Trainee, hide_tokens


def test_hidden_tokens_leave_at_least_one_and_never_show_padding() -> None:
    torch.manual_seed(0)
    mask = torch.arange(10) < torch.randint(1, 11, (400, 1))
    tokens = Tokens.from_local(torch.randn(400, 10, 2), mask)
    hidden = hide_tokens(tokens, 0.5)
    assert not (hidden.mask & ~mask).any() and hidden.mask.any(1).all()
    long = mask.sum(1) >= 8
    assert 0.45 < 1 - hidden.mask[long].sum() / mask[long].sum() < 0.55
    assert hide_tokens(tokens, 0.0) is tokens
    assert len(hide_tokens(Tokens.from_pooled(torch.ones(3, 2)), 0.5)) == 3


def test_left_out_words_keep_order_and_at_least_one() -> None:
    rng = np.random.default_rng(0)
    words = "a b c d e f g h".split()
    for share in (0.2, 0.99):
        for _ in range(50):
            left = drop_words(" ".join(words), share, rng).split()
            assert left and left == [w for w in words if w in left]
    assert drop_words("dog", 0.9, rng) == "dog"


def test_prefetch_keeps_order_and_passes_errors_on() -> None:
    assert list(prefetch(lambda x: x * 2, range(5))) == [0, 2, 4, 6, 8]
    assert list(prefetch(lambda x: x, [])) == []
    with pytest.raises(ZeroDivisionError):
        list(prefetch(lambda x: 1 // x, [1, 0, 2]))


def test_a_cached_feed_finds_rows_behind_unreadable_items() -> None:
    class Stored:
        kept, failed = [0, 2, 3], [("b", "broken")]

        def __getitem__(self, rows: np.ndarray) -> list[int]:
            return [int(r) for r in rows]

    assert CachedFeed(Stored(), 4).take(np.array([3, 0, 2])) == [2, 0, 1]


def test_the_average_follows_the_weights_and_swaps_back() -> None:
    module = nn.ModuleDict({"head": nn.Linear(1, 1, bias=False)})
    weight = module["head"].weight
    with torch.no_grad():
        weight.fill_(0)
        ema = Ema(module, 0.5)
        weight.fill_(1)
    ema.update(step=100)
    ema.swap()
    assert weight.item() == 0.5
    ema.swap()
    assert weight.item() == 1


def test_decay_spares_vectors_and_a_part_has_its_own_rate() -> None:
    stage = StageConfig(LossConfig("infonce"), epochs=1, lr=0.1, lr_scale={"text": 0.5}, weight_decay=0.2)
    optimizer = make_optimizer(stage, {"text": nn.Linear(2, 2), "loss": create_loss("infonce")})
    assert [(g["base_lr"], g["weight_decay"]) for g in optimizer.param_groups] == [(0.05, 0.2), (0.05, 0.0), (0.1, 0.0)]


def test_a_head_with_several_matrices_gets_the_sum_of_their_losses() -> None:
    head = create_head("dual", image_dim=3, text_dim=3, dim=2)
    images, texts = Tokens.from_local(torch.randn(4, 2, 3)), Tokens.from_local(torch.randn(4, 2, 3))
    none = torch.zeros(1, 4, 4, dtype=torch.bool)
    single, stats = Trainee(head, create_loss("hinge"))(images, texts, none)

    class Twice(type(head)):
        def training_scores(self, queries, gallery):
            return {"a": self.score(queries, gallery), "b": self.score(queries, gallery)}

    twice = Twice(**head.config)
    twice.load_state_dict(head.state_dict())
    double, same_stats = Trainee(twice, create_loss("hinge"))(images, texts, none)
    assert double.item() == pytest.approx(2 * single.item()) and same_stats["positive"] == stats["positive"]


def test_sets_of_captions_cost_the_mean_of_their_own_losses() -> None:
    head = create_head("dual", image_dim=3, text_dim=3, dim=2)
    images, texts = Tokens.from_local(torch.randn(4, 2, 3)), Tokens.from_local(torch.randn(8, 2, 3))
    same = torch.zeros(2, 4, 4, dtype=torch.bool)
    same[1, 0, 2] = same[1, 2, 0] = True
    trainee = Trainee(head, create_loss("infonce"))
    alone = [trainee(images, texts[4 * k : 4 * k + 4], same[k : k + 1])[0].item() for k in (0, 1)]
    assert trainee(images, texts, same)[0].item() == pytest.approx(sum(alone) / 2)


def test_the_log_is_read_back_and_epochs_without_validation_have_empty_cells(tmp_path: Path) -> None:
    log = Log(tmp_path)
    log.add({"stage": "a", "epoch": 1, "step": 3, "loss": 0.5})
    log.add({"stage": "a", "epoch": 2, "step": 6, "loss": 0.25, "rsum": 100.0})
    assert read_log(tmp_path / "log.csv") == [
        {"stage": "a", "epoch": 1, "step": 3, "loss": 0.5},
        {"stage": "a", "epoch": 2, "step": 6, "loss": 0.25, "rsum": 100},
    ]


def test_a_meter_goes_on_from_its_sums() -> None:
    meter = Meter()
    meter.add({"loss": torch.tensor(1.0)})
    again = Meter(meter.sums, meter.count)
    again.add({"loss": 3.0})
    assert again.means() == {"loss": 2.0}
