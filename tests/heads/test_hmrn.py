"""HMRN: what its levels mean, region BatchNorm under masks, round weights, training, explanations."""

from __future__ import annotations

import pytest
import torch

from tests.heads.set_cases import SIZES, images, make, sentences, sides
from xretrieve.backbones.sentences import Sentences
from xretrieve.backbones.vocabulary import Vocabulary
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.products import linear, short_softmax
from xretrieve.heads.region_vector import RegionBatchNorm
from xretrieve.heads.scoring import Items
from xretrieve.tokens import Prepared, Tokens
from xretrieve.training.losses import InfoNCE


def test_the_local_level_worked_out_by_hand_is_oriented_images_by_sets():
    head = create_head("hmrn", image_dim=2, text_dim=2, dim=2, sim_dim=3, direction="i2t", alpha=1.0, beta=0.0).eval()
    axis, unit = torch.eye(2), 0.5**0.5
    gallery = Prepared(torch.stack([torch.stack([axis[0], axis[1]]), torch.stack([axis[0], axis[0]])]),
                       torch.ones(2, 2, dtype=torch.bool), torch.zeros(2, 2))  # fmt: skip
    said = torch.stack([torch.stack([axis[0], axis[1]]), torch.stack([axis[1], axis[1]]),
                        torch.stack([torch.full((2,), unit), -axis[0]])])  # fmt: skip
    sets = head.combine_sets(Prepared.from_pooled(said.flatten(0, 1)), [2, 2, 2])
    # e^5 = 148.41: one of two sentences is found, the other has dot 0
    found = 148.4132 / 149.4132
    # third set, second round: dots unit and -0.1 on axis 0 (LeakyReLU), unit and 0 on axis 1
    a, b, c = 34.3186, 0.606531, 1.0
    third = [(a * unit - 0.1 * b) / (a + b), a * unit / (a + c)]
    want = torch.tensor([
        [[0.5, 0.5, unit], [1.0, 0.0, unit]],  # after one sentence: images x sets
        [[found, 0.5, sum(third) / 2], [found, 0.0, third[0]]],
    ])  # fmt: skip
    torch.testing.assert_close(head.score_rounds(sets, gallery), want, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("horizon", "want"), [(10, [0.02, 0.05, 0.11, 0.18, 0.27, 0.38, 0.51, 0.65, 0.82, 1, 1]),
                                               (5, [0.07, 0.2, 0.4, 0.67, 1, 1]), (1, [1, 1])])  # fmt: skip
def test_round_weights_are_rounded_and_stay_1_beyond_the_horizon(horizon, want):
    head = make("hmrn-t2i", weight_horizon=horizon)
    assert head.round_weights(len(want)).tolist() == want


def test_the_weight_of_the_reasoning_follows_the_sentences_said_and_is_1_in_training():
    head = make("hmrn-t2i")
    sets, gallery = sides(head)
    levels = head.score_rounds(sets, gallery, levels=True)
    for r in range(4):
        for k, size in enumerate(SIZES):
            w = head.round_weights(4)[min(r + 1, size) - 1].float()
            want = 0.6 * levels["local"] + 0.3 * w * levels["reason"] + 0.1 * levels["global"]
            torch.testing.assert_close(levels["score"][r, :, k], want[r, :, k], atol=1e-6, rtol=0)
    made = head.train().training_levels(sets, gallery)
    torch.testing.assert_close(made["reason"], levels["reason"][-1].T, atol=1e-6, rtol=0)
    torch.testing.assert_close(made["local"].permute(2, 1, 0), levels["local"], atol=1e-6, rtol=0)


def test_published_sizes():
    words = Vocabulary(["<pad>", "<start>", "<end>", "<unk>", *(f"w{i}" for i in range(14280))])
    text, head = Sentences(words), create_head("hmrn", image_dim=2048, text_dim=256, region_norm="index")
    assert sum(p.numel() for part in (text, head) for p in part.parameters()) == 6_655_067
    text, head = Sentences(words, dim=128, bidirectional=False), create_head("drilldown", image_dim=2048, text_dim=128)
    assert sum(p.numel() for part in (text, head) for p in part.parameters()) == 4_861_201


@pytest.mark.parametrize("axis", ["index", "feature"])
def test_region_statistics_count_present_regions_only(axis):
    torch.manual_seed(0)
    x = torch.randn(4, 5, 3)
    mask = torch.rand(4, 5) < 0.6
    mask[:, 4] = False  # a channel of `index` without an entry
    norm = RegionBatchNorm(6 if axis == "index" else 3, axis)
    found = norm(x, mask)
    for channel in range(5 if axis == "index" else 3):
        picked = x[:, channel][mask[:, channel]].flatten() if axis == "index" else x[..., channel][mask]
        if not len(picked):
            assert norm.running_mean[channel] == 0 and norm.running_var[channel] == 1
            continue
        want = (picked - picked.mean()) / (picked.var(unbiased=False) + 1e-5).sqrt()
        got = found[:, channel][mask[:, channel]].flatten() if axis == "index" else found[..., channel][mask]
        torch.testing.assert_close(got, want, atol=1e-5, rtol=0)
        torch.testing.assert_close(norm.running_mean[channel], 0.1 * picked.mean())
        torch.testing.assert_close(norm.running_var[channel], 0.9 + 0.1 * picked.var())
    assert norm.num_batches_tracked == 1
    plain = torch.nn.BatchNorm1d(5 if axis == "index" else 3)
    whole = RegionBatchNorm(5 if axis == "index" else 3, axis)(x, torch.ones(4, 5, dtype=torch.bool))
    torch.testing.assert_close(whole, plain(x) if axis == "index" else plain(x.mT).mT, atol=1e-5, rtol=0)


def test_more_regions_than_channels_names_the_other_norms():
    with pytest.raises(XRetrieveError, match="trained with 9 regions per image, found 10; use region_norm=feature or"):
        make("hmrn-index").prepare_gallery(images((10, 2), 10))


def test_a_level_without_weight_learns_nothing_and_is_not_computed():
    head = make("hmrn-t2i", alpha=1.0, beta=0.0)
    made = head.training_levels(*sides(head))
    assert "reason" not in made and not head.coarse
    learns = {name.split(".")[0] for name, p in head.named_parameters() if p.requires_grad}
    assert learns == {"image", "text"}
    only = make("hmrn-t2i", alpha=0.0, beta=1.0)  # the reasoning reads both global vectors
    total, _ = only.training_loss(*sides(only, (3, 3, 3)), InfoNCE(1 / 40, learnable=False))
    total.backward()
    assert all(p.grad is not None for p in only.parameters() if p.requires_grad)
    assert only.v_global_w.embedding_local[0].weight.grad.any()


def task(count: int, seed: int) -> tuple[Tokens, Tokens]:
    """Images of three things each, and three sentences about each, one per thing; things are random directions."""
    generator = torch.Generator().manual_seed(seed)
    things = torch.randn(30, 12, generator=torch.Generator().manual_seed(7))
    said = torch.stack([torch.randperm(30, generator=generator)[:3] for _ in range(count)])  # (B,3)
    regions = things[said] + 0.3 * torch.randn(count, 3, 12, generator=generator)
    return Tokens.from_local(regions), Tokens.from_pooled(things[said].flatten(0, 1))


@pytest.mark.parametrize("direction", ["t2i", "i2t"])
def test_training_lowers_every_loss_and_each_level_ranks_alone(direction):
    torch.manual_seed(0)
    head = create_head("hmrn", image_dim=12, text_dim=12, dim=16, sim_dim=16, direction=direction, weight_horizon=3,
                       dropout=0.1, text_project=True)  # fmt: skip
    loss = InfoNCE(1 / 40, learnable=False, directions="sum")
    learns = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], 5e-3)
    logged = []
    for step in range(60):
        regions, said = task(24, step)
        sets = head.combine_sets(head.prepare_queries(said), [3] * 24)
        total, stats = head.training_loss(sets, head.prepare_gallery(regions), loss)
        learns.zero_grad()
        total.backward()
        assert all(p.grad is not None for p in head.parameters() if p.requires_grad)  # DDP would stop
        learns.step()
        logged.append(stats)
    for name in ("loss_local", "loss_global", "loss_reasoning"):
        first, last = (sum(float(s[name]) for s in part) for part in (logged[:5], logged[-5:]))
        assert last < 0.7 * first, name
    head.eval()
    regions, said = task(40, 1000)
    with torch.no_grad():
        sets = head.combine_sets(head.prepare_queries(said), [3] * 40)
        levels = head.score_rounds(sets, head.prepare_gallery(regions), levels=True)
    for name in ("local", "global", "reason", "score"):
        hits = (levels[name][-1].argmax(0) == torch.arange(40)).float().mean()
        assert hits > 0.3, (name, hits)  # chance is 0.025


def test_explanations_add_up_to_the_score():
    head = make("hmrn-i2t")
    sets, gallery = sides(head)
    found = head.explain(sets, gallery)
    assert found["regions"].shape == (4, 3, 4, 5) and found["nodes"].shape == (4, 3, 5)
    torch.testing.assert_close(found["regions"].sum(-1), torch.ones(4, 3, 4))
    assert (found["regions"][:, 1, :, 3:] == 0).all()
    torch.testing.assert_close(found["nodes"].sum(-1), torch.ones(4, 3))
    assert (found["nodes"][2, :, 2:] == 0).all()  # absent sentences
    trace = {}
    head.block(Items.of(sets), Items.of(gallery), head.fold(), trace)
    x, first = trace["round4/nodes"][0, :, 0], head.ICR_module[0]  # (N,1+T,S), of the set with all four sentences
    plain = torch.bmm(first.graph_query_w(x[:, :1]), first.graph_key_w(x).mT)[:, 0].softmax(-1)
    torch.testing.assert_close(found["nodes"][0], plain)  # what the global node reads in the first step
    levels = torch.stack([found["local"], found["reason"], found["global"]], -1)  # (M,N,3)
    total = (levels * found["weights"][:, None]).sum(-1)
    torch.testing.assert_close(total, found["score"], atol=1e-6, rtol=0)
    torch.testing.assert_close(total, head.score(sets, gallery), atol=1e-6, rtol=0)
    alone = make("hmrn-t2i", beta=0.0, alpha=1.0)  # the local level of a set of one, T-I, is the sentence's own
    sets, gallery = sides(alone)
    own = alone.score(alone.prepare_queries(sentences()), gallery)
    torch.testing.assert_close(alone.explain(sets, gallery)["sentences"][0], own[:4].T, atol=1e-6, rtol=0)
    assert torch.equal(alone.attention(sets, gallery)["t2i"], alone.explain(sets, gallery)["regions"])


@pytest.mark.parametrize(("options", "says"), [({"direction": "both"}, "unknown stream 'both'"),
                                               ({"steps": 0}, "steps must be at least 1"),
                                               ({"alpha": 0.8, "beta": 0.3}, "must be shares of 1"),
                                               ({"region_norm": "layer"}, "unknown region_norm 'layer'")])  # fmt: skip
def test_impossible_options_are_refused(options, says):
    with pytest.raises(XRetrieveError, match=says):
        create_head("hmrn", image_dim=4, text_dim=4, dim=4, **options)


@pytest.mark.parametrize("shape", [(48, 7, 40), (5, 9, 40), (16, 1, 40), (3, 40)])
def test_fast_products_and_softmaxes_equal_the_usual_ones(shape):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(shape), torch.randn(33, 40), torch.randn(33)
    with torch.no_grad():
        torch.testing.assert_close(linear(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
        mask = torch.rand(shape) < 0.7
        mask[..., 0] = True
        for scale in (1.0, 1e3):  # the second needs a shift
            torch.testing.assert_close(short_softmax(scale * x), (scale * x).softmax(-1))
            want = (scale * x).masked_fill(~mask, -torch.inf).softmax(-1)
            torch.testing.assert_close(short_softmax(scale * x, mask), want)
        assert torch.isnan(short_softmax(x * torch.nan)).all()
