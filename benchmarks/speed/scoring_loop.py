"""The slow reference of scoring.py: the equations of SCAN, SGR, SAF and TSHSR walked caption by caption.

Written as the published code of the family is: for one caption at a time, against all images at once, the caption is
repeated for every image, D-wide attended vectors and all S-wide nodes are written out, queries and keys are projected
for all nodes at every step, and the caption's global vector is made inside the loop. Weights are read from the heads.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import leaky_relu

from xretrieve.heads.local import LocalHead
from xretrieve.heads.tshsr import TSHSR, fuse_logits


def l2norm(x: Tensor, dim: int = -1) -> Tensor:
    return x / (x.pow(2).sum(dim, keepdim=True).sqrt() + 1e-8)


def cross_attention(query: Tensor, context: Tensor, temperature: float) -> Tensor:
    """query (B,q,D), context (B,k,D) -> attended vectors (B,q,D)."""
    a = torch.bmm(context, query.transpose(1, 2))  # (B,k,q)
    a = l2norm(leaky_relu(a, 0.1))
    a = a.transpose(1, 2).contiguous()  # (B,q,k)
    weights = torch.softmax(temperature * a, dim=2).transpose(1, 2).contiguous()  # (B,k,q)
    attended = torch.bmm(context.transpose(1, 2).contiguous(), weights)  # (B,D,q)
    return attended.transpose(1, 2).contiguous()


def scan(head: LocalHead, images: Tensor, words: Tensor) -> Tensor:
    """LogSumExp pooling of cosines, t2i. images (B,R,D), words (B,L,D) -> (B,)."""
    attended = cross_attention(words, images, head.temperature)
    length = (words.norm(dim=2) * attended.norm(dim=2)).clamp(min=1e-8)
    r = (words * attended).sum(2) / length  # (B,L)
    return (r * head.lambda_lse).exp().sum(1).log() / head.lambda_lse


def nodes(head: LocalHead, loc: torch.nn.Linear, stream: str, images: Tensor, words: Tensor, V: Tensor,
          T: Tensor) -> Tensor:  # fmt: skip
    """Similarity nodes (B,1+q,S), the global one first."""
    query, context = (words, images) if stream == "t2i" else (images, words)
    attended = l2norm(cross_attention(query, context, head.temperatures[stream]))
    local = l2norm(loc(torch.pow(torch.sub(attended, query), 2)))
    first = l2norm(head.sim_tranglo_w(torch.pow(torch.sub(V, T), 2)))
    return torch.cat([first.unsqueeze(1), local], 1)


def graph_step(x: Tensor, step: torch.nn.Module) -> Tensor:
    q, k = step.graph_query_w(x), step.graph_key_w(x)
    edges = torch.softmax(torch.bmm(q, k.permute(0, 2, 1)), dim=-1)
    return step.sim_graph_w(torch.bmm(edges, x)).relu()


def level(x: Tensor, own: torch.nn.Module) -> Tensor:
    """The four steps of a TSHSR level with learned clusters and a gate."""
    share = torch.softmax(own.context_assign_w(x), dim=1)  # (B,n,M)
    contexts = l2norm(torch.bmm(share.permute(0, 2, 1), x))  # (B,M,S)
    q, k = own.graph_query_w(x), own.graph_key_w(x)
    local = torch.bmm(torch.softmax(torch.bmm(q, k.permute(0, 2, 1)), dim=-1), x)
    if own.context_key_w is None:
        from_contexts = contexts.expand(-1, x.shape[1], -1)
    else:
        keys = own.context_key_w(contexts)
        from_contexts = torch.bmm(torch.softmax(torch.bmm(q, keys.permute(0, 2, 1)), dim=-1), contexts)
    gate = torch.sigmoid(own.gate_w(torch.cat([local, from_contexts], -1)))
    return own.sim_graph_w(gate * local + (1 - gate) * from_contexts).relu()


def filtration(x: Tensor, own: torch.nn.Module) -> Tensor:
    beta = torch.sigmoid(own.bn(own.attn_sim_w(x).permute(0, 2, 1)))  # (B,1,n)
    beta = beta / (beta.abs().sum(-1, keepdim=True) + 1e-8)
    return l2norm(torch.matmul(beta, x)).squeeze(1)


def stream_logits(head: LocalHead, stream: str, images: Tensor, words: Tensor, V: Tensor, T: Tensor) -> Tensor:
    """Logits (B,) of one stream of SGR, SAF or TSHSR."""
    own = head.reasoner(stream) if isinstance(head, TSHSR) else head
    x = nodes(head, own.sim_tranloc_w, stream, images, words, V, T)
    if head.name == "saf":
        return own.sim_eval_w(filtration(x, own.SAF_module)).squeeze(1)
    steps, one = (own.levels, level) if isinstance(head, TSHSR) else (own.SGR_module, graph_step)
    for step in steps:
        x = one(x, step)
    return own.sim_eval_w(x[:, 0]).squeeze(1)


def loop(head: LocalHead, images: Tensor, words: Tensor, lengths: list[int]) -> Tensor:
    """Scores of all captions against all images, (C,B) float32. images (B,R,D), words (C,L,D), unit vectors.

    TSHSR: its two streams are two loops, each as a single-stream model runs it.
    """
    if head.name == "scan":
        return _loop(images, words, lengths, lambda i, w, c: scan(head, i, w))
    V = head.image_vector(images, torch.ones(images.shape[:2], dtype=torch.bool))

    def one(stream: str) -> Tensor:
        def score(images: Tensor, repeated: Tensor, caption: Tensor) -> Tensor:
            T = head.text_vector(caption, torch.ones(caption.shape[:2], dtype=torch.bool))
            return stream_logits(head, stream, images, repeated, V, T)

        return _loop(images, words, lengths, score)

    logits = [one(stream) for stream in head.streams]
    return fuse_logits(*logits) if len(logits) == 2 else logits[0]


def _loop(images: Tensor, words: Tensor, lengths: list[int], score) -> Tensor:
    columns = []
    for c, length in enumerate(lengths):
        caption = words[c, :length].unsqueeze(0).contiguous()
        columns.append(score(images, caption.repeat(len(images), 1, 1), caption).float())
    return torch.stack(columns)
