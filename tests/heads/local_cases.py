"""Small heads over local tokens, ragged tokens and gradients: what the tests of SCAN, SGR, SAF and TSHSR share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from xretrieve.heads import create_head
from xretrieve.heads.local import LocalHead
from xretrieve.tokens import Tokens

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "scan": ("scan", {}),
    "scan-i2t-mean": ("scan", {"stream": "i2t", "pooling": "Mean"}),
    "scan-softmax-max": ("scan", {"feature_norm": "softmax", "pooling": "Max"}),
    "sgr": ("sgr", {}),
    "sgr-i2t": ("sgr", {"stream": "i2t", "steps": 2}),
    "saf": ("saf", {}),
    "saf-i2t": ("saf", {"stream": "i2t"}),
    "tshsr": ("tshsr", {}),
    "tshsr-concat-scalar": ("tshsr", {"fusion": "concat", "gate": "scalar"}),
    "tshsr-mean-context": ("tshsr", {"context": "mean", "levels": 2}),
    "tshsr-saf": ("tshsr", {"readout": "saf", "levels": 1, "clusters": [3]}),
    "tshsr-t2i-none": ("tshsr", {"streams": "t2i", "context": "none"}),
}


def make(case: str, **changes: Any) -> LocalHead:
    """The head of a case, with weights large enough that every term moves the score; evaluation mode."""
    name, options = CASES[case]
    torch.manual_seed(0)
    sizes = {} if name == "scan" else {"sim_dim": 5}
    head = create_head(name, image_dim=7, text_dim=6, dim=8, text_project=True, **sizes, **options, **changes)
    with torch.no_grad():
        for key, parameter in head.named_parameters():
            parameter.add_(0.3 * torch.randn_like(parameter)).mul_(1.5 if "graph" in key else 1.0)
    assert isinstance(head, LocalHead)
    return head.eval()


def texts(lengths=(4, 2, 1, 4), longest: int = 4, seed: int = 0) -> Tokens:
    """Captions (C,L,6)."""
    return _tokens(lengths, longest, 6, seed)


def images(lengths=(5, 3, 1), longest: int = 5, seed: int = 1) -> Tokens:
    """Images (B,R,7)."""
    return _tokens(lengths, longest, 7, seed)


def _tokens(lengths, longest: int, width: int, seed: int) -> Tokens:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    return Tokens.from_local(torch.randn(len(lengths), longest, width, generator=generator), mask)


def gradients(head: LocalHead, queries: Tokens, gallery: Tokens) -> dict[str, Tensor]:
    """Gradients of a weighted sum of all training scores."""
    head.zero_grad()
    matrices = head.training_scores(head.prepare_queries(queries), head.prepare_gallery(gallery))
    total = torch.zeros(())
    for scores in matrices.values():
        total = total + (scores * torch.linspace(-1, 1, scores.numel()).view(scores.shape)).sum()
    total.backward()
    return {name: p.grad.clone() for name, p in head.named_parameters() if p.grad is not None}


def assert_same_gradients(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Equal names, finite, equal within rounding."""
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.isfinite(found[name]).all(), name
        torch.testing.assert_close(found[name], value, atol=2e-6, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}")
