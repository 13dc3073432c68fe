"""TSHSR against the four steps of a level written out per pair, its switches, and its fusion."""

from __future__ import annotations

import itertools

import pytest
import torch

from tests.heads.local_cases import assert_same_gradients, gradients, images, make, texts
from tests.heads.plain import all_pairs, level, nodes
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.tshsr import fuse_logits
from xretrieve.training.losses import HardestHinge


def plain_streams(head) -> dict[str, torch.Tensor]:
    """Readout vectors' logits per stream, (C,B) each."""
    found = {}
    for stream in head.streams:
        own = head.reasoner(stream)

        def score(v, t, V, T, own=own, stream=stream):
            x = nodes(head, own.sim_tranloc_w, stream, v, t, V, T)
            for each in own.levels:
                x = level(x, each)
            return own.sim_eval_w(x[0])[0]

        found[stream] = all_pairs(head, texts(), images(), score)
    return found


@pytest.mark.parametrize(("context", "gate"), itertools.product(["cluster", "mean", "none"], ["vector", "scalar"]))
def test_scores_and_gradients_against_the_written_out_levels(context, gate):
    head = make("tshsr", context=context, gate=gate)
    plain = plain_streams(head)
    matrices = {"score": sum(torch.sigmoid(x) for x in plain.values()) / 2}
    matrices |= {stream: torch.sigmoid(x) for stream, x in plain.items()}
    queries, gallery = head.prepare_queries(texts()), head.prepare_gallery(images())
    for name, scores in head.training_scores(queries, gallery).items():
        torch.testing.assert_close(scores, matrices[name], atol=3e-6, rtol=0)
    found = gradients(head, texts(), images())
    head.zero_grad()
    sum((s * torch.linspace(-1, 1, s.numel()).view(s.shape)).sum() for s in matrices.values()).backward()
    assert_same_gradients(found, {n: q.grad for n, q in head.named_parameters() if q.requires_grad})


@pytest.mark.parametrize("stream", ["t2i", "i2t"])
@pytest.mark.parametrize("context", ["cluster", "mean", "none"])
def test_a_stream_with_its_gate_at_one_is_sgr(stream, context):
    sgr = make("sgr", stream=stream)
    head = make("tshsr", streams=stream, context=context)
    names = {name: f"{stream}.{name}" for name in ("sim_tranloc_w", "sim_eval_w")} | {"SGR_module": f"{stream}.levels"}
    state = {}
    for key, value in sgr.state_dict().items():
        part, dot, rest = key.partition(".")
        state[names.get(part, part) + dot + rest] = value
    head.load_state_dict(state, strict=context == "none")
    with torch.no_grad():
        for each in head.reasoner(stream).levels:
            if each.gate_w is not None:
                each.gate_w.weight.zero_()
                each.gate_w.bias.fill_(50.0)
    torch.testing.assert_close(head.score(texts(), images()), sgr.score(texts(), images()), atol=1e-6, rtol=0)


def test_fused_logit_is_the_logit_of_the_mean_and_does_not_saturate():
    a, b = torch.randn(200, dtype=torch.float64) * 4, torch.randn(200, dtype=torch.float64) * 4
    torch.testing.assert_close(fuse_logits(a, b), torch.logit((a.sigmoid() + b.sigmoid()) / 2), atol=1e-9, rtol=0)
    high = torch.tensor([30.0, 31.0, 60.0])
    assert (fuse_logits(high, high).diff() > 0).all()
    x = torch.tensor([-80.0, 0.0, 80.0], requires_grad=True)
    fuse_logits(x, -x).sum().backward()
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize(
    ("options", "names", "present", "absent"),
    [
        ({}, {"score", "t2i", "i2t"}, ["t2i.sim_eval_w.weight", "i2t.levels.2.gate_w.weight"], ["sim_eval_w.weight"]),
        ({"aux_streams": False}, {"score"}, ["t2i.sim_eval_w.weight"], []),
        ({"streams": "i2t"}, {"score"}, ["i2t.sim_eval_w.weight"], ["t2i.sim_eval_w.weight"]),
        ({"fusion": "concat"}, {"score"}, ["sim_eval_w.weight"], ["t2i.sim_eval_w.weight"]),
        ({"context": "none"}, {"score", "t2i", "i2t"}, [], ["t2i.levels.0.gate_w.weight"]),
        ({"context": "mean"}, {"score", "t2i", "i2t"}, ["t2i.levels.0.gate_w.bias"],
         ["t2i.levels.0.context_assign_w.bias", "t2i.levels.0.context_key_w.bias"]),
        ({"levels": 1}, {"score", "t2i", "i2t"}, [], ["t2i.levels.1.gate_w.bias", "t2i.levels.0.context_key_w.bias"]),
        ({"readout": "saf"}, {"score", "t2i", "i2t"}, ["t2i.SAF_module.bn.running_mean"], []),
    ],
)  # fmt: skip
def test_every_switch_removes_what_it_names(options, names, present, absent):
    head = make("tshsr", **options)
    state = head.state_dict()
    assert all(key in state for key in present) and not any(key in state for key in absent)
    scores = head.training_scores(head.prepare_queries(texts()), head.prepare_gallery(images()))
    assert scores.keys() == names and all(bool(((s >= 0) & (s <= 1)).all()) for s in scores.values())


def test_clusters_halve_from_level_to_level_and_can_be_given():
    assert make("tshsr").config["clusters"] == [4, 2, 1]
    assert make("tshsr", clusters=[6, 3, 3]).t2i.levels[1].context_assign_w.weight.shape == (3, 5)
    with pytest.raises(XRetrieveError, match="clusters needs 3 numbers"):
        make("tshsr", clusters=[2, 1])
    for options, says in (({"streams": "one"}, "unknown streams"), ({"context": "clusters"}, "did you mean 'cluster'"),
                          ({"fusion": "sum"}, "unknown fusion"), ({"gate": "vectors"}, "did you mean 'vector'"),
                          ({"readout": "last"}, "unknown readout"), ({"levels": 0}, "levels must be")):  # fmt: skip
        with pytest.raises(XRetrieveError, match=says):
            make("tshsr", **options)


def test_statistics_of_the_saf_readout_move_once_per_caption():
    head = make("tshsr", readout="saf", levels=1).train()
    head.memory = 1
    gradients(head, texts(), images())
    assert head.t2i.SAF_module.bn.num_batches_tracked == head.i2t.SAF_module.bn.num_batches_tracked == 4


def test_a_few_steps_of_training_lower_the_loss():
    torch.manual_seed(0)
    head = create_head("tshsr", image_dim=7, text_dim=6, dim=16, sim_dim=8, dropout=0.0)
    queries, gallery = texts((4, 3, 2, 4, 4, 2), 4), images((5, 3, 5, 4, 5, 5), 5)
    adam, hinge, losses = torch.optim.Adam(head.parameters(), lr=3e-3), HardestHinge(), []
    for _ in range(150):
        scores = head.training_scores(head.prepare_queries(queries), head.prepare_gallery(gallery))
        loss = torch.stack([hinge(s)[0] for s in scores.values()]).sum()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
