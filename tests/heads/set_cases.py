"""Small heads over query sets, ragged sides, gradients, and the equations of one pair and round written out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from xretrieve.heads import create_head
from xretrieve.heads.base import l2
from xretrieve.heads.hmrn import HMRN
from xretrieve.heads.multi import MultiQueryHead
from xretrieve.tokens import Prepared, Tokens

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "hmrn-t2i": ("hmrn", {}),
    "hmrn-i2t": ("hmrn", {"direction": "i2t", "weight_horizon": 3}),
    "hmrn-none": ("hmrn", {"region_norm": "none", "steps": 2, "alpha": 0.2, "beta": 0.7}),
    "hmrn-index": ("hmrn", {"region_norm": "index", "regions": 9, "steps": 1}),
    "drilldown": ("drilldown", {"slots": 2}),
    "drilldown-policy": ("drilldown", {"slots": 2, "mode": "policy", "rollout": "greedy"}),
    "drilldown-sentences": ("drilldown", {"mode": "sentences"}),
}
SIZES, REGIONS = (4, 2, 1, 3), (5, 3, 1)


def make(case: str, **changes: Any) -> MultiQueryHead:
    """The head of a case, with weights and statistics large enough that every term moves the score; evaluation mode."""
    name, options = CASES[case]
    torch.manual_seed(0)
    sizes = {"sim_dim": 5} if name == "hmrn" else {}
    head = create_head(name, image_dim=7, text_dim=6, dim=8, text_project=True, **{**sizes, **options, **changes})
    with torch.no_grad():
        for key, value in head.state_dict().items():
            if value.is_floating_point():
                value.add_(0.3 * torch.rand_like(value)).mul_(2.0 if "graph" in key or "policy" in key else 1.2)
    assert isinstance(head, MultiQueryHead)
    return head.eval()


def sentences(sizes=SIZES, seed: int = 0) -> Tokens:
    """Vectors of all sentences, set after set."""
    return Tokens.from_pooled(torch.randn(sum(sizes), 6, generator=torch.Generator().manual_seed(seed)))


def images(lengths=REGIONS, longest: int = 5, seed: int = 1) -> Tokens:
    """Images (N,R,7)."""
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    regions = torch.randn(len(lengths), longest, 7, generator=torch.Generator().manual_seed(seed))
    return Tokens.from_local(regions, mask)


def sides(head: MultiQueryHead, sizes=SIZES, lengths=REGIONS) -> tuple[Prepared, Prepared]:
    """Prepared sets and images."""
    sets = head.combine_sets(head.prepare_queries(sentences(sizes)), sizes)
    return sets, head.prepare_gallery(images(lengths, max(lengths)))


def gradients(head: MultiQueryHead, scores: Tensor) -> dict[str, Tensor]:
    """Gradients of a weighted sum of scores."""
    head.zero_grad()
    (scores * torch.linspace(-1, 1, scores.numel()).view(scores.shape)).sum().backward()
    return {name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}


def plain_rounds(head: MultiQueryHead, sets: Prepared, gallery: Prepared) -> Tensor:
    """(T,N,M), one pair and one round after the other, as the papers write it."""
    pair = plain_hmrn if isinstance(head, HMRN) else plain_drilldown
    rounds = []
    for r in range(1, sets.mask.shape[1] + 1):
        lines = []
        for i in range(len(gallery)):
            regions = gallery.local[i][gallery.mask[i]]
            said = [sets.local[k][sets.mask[k]][:r] for k in range(len(sets))]
            lines.append(torch.stack([pair(head, regions, gallery.pooled[i], q) for q in said]))
        rounds.append(torch.stack(lines))
    return torch.stack(rounds)


def plain_hmrn(head, v: Tensor, image: Tensor, q: Tensor) -> Tensor:
    """Score of regions v (R,D), global vector (D,), and the sentences so far q (r,D)."""
    s = leaky_relu(v @ q.T, 0.1)  # (R,r)
    if head.direction == "i2t":
        local = ((head.temperatures["i2t"] * s).softmax(1) * s).sum(1).mean()
    else:
        local = ((head.temperatures["t2i"] * s).softmax(0) * s).sum(0).mean()
    pool = head.t_global_w
    common = pool.embedding_common(pool.embedding_local(q) * pool.embedding_global(q.mean(0, keepdim=True)))
    text = l2((common.softmax(0) * q).sum(0))
    h = s / (s.square().sum(1, keepdim=True).clamp(min=1e-24).sqrt() + 1e-8)
    context = l2((head.temperatures["t2i"] * h).softmax(0).T @ v)  # (r,D)
    node = l2(head.sim_tranglo_w((image - text).square()))
    x = torch.cat([node[None], l2(head.sim_tranloc_w((context - q).square()))])
    for step in head.ICR_module:
        e = (step.graph_query_w(x) @ step.graph_key_w(x).T).softmax(1)
        x = step.sim_graph_w(e @ x).relu()
    r, horizon = len(q), head.horizon
    weight = round(r * (r + 1) / (horizon * (horizon + 1)), 2) if r <= horizon else 1.0
    reason = torch.sigmoid(head.sim_w(x[0]))[0]
    return head.alpha * local + head.beta * weight * reason + head.gamma * (image @ text)


def plain_drilldown(head, v: Tensor, image: Tensor, q: Tensor) -> Tensor:
    """Score of regions v (R,d) and the sentences so far q (r,d), slot by slot."""
    slots, written = list(torch.zeros(head.count, q.shape[1])), set()
    if head.mode == "sentences":
        slots, written = list(q), set(range(len(q)))
    for t, one in enumerate(q if head.mode != "sentences" else []):
        k = t % head.count
        if head.mode == "policy" and t >= head.count:
            asked = torch.cat([one.expand(head.count, -1), torch.stack(slots)], 1)
            for layer in head.policy:
                asked = layer(asked)
            k = int(asked.argmax())
        cell, x = head.updater, slots[k]
        gate_r, gate_z = torch.sigmoid(cell.l1(one) + cell.l2(x)), torch.sigmoid(cell.l3(one) + cell.l4(x))
        new = torch.tanh(cell.l5(one) + gate_r * cell.l6(x))
        slots[k] = (1 - gate_z) * new + gate_z * x
        written.add(k)
    found = []
    for k in written:
        s = v @ l2(slots[k], 1e-10)
        found.append(((head.temperature * s).softmax(0) * s).sum())
    return torch.stack(found).mean()
