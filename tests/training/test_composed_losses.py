"""Losses and labels of composed queries: the worked example of the specification, and slow references."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from xretrieve.errors import XRetrieveError
from xretrieve.training.losses import Match, SoftTriplet, create_loss, match_loss
from xretrieve.training.weight_labels import label_losses, weight_labels

U = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
S = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.8, -0.6]])
G = torch.tensor([[0.8, 0.6], [0.6, 0.8], [1.0, 0.0]])
W = torch.tensor([[0.5, 0.5], [0.7, 0.3], [0.2, 0.8]])


def draw(*shape, seed=0):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_the_worked_example_of_the_match_loss():
    q = F.normalize(W[:, :1] * U + W[:, 1:] * S, dim=1)
    wanted = torch.tensor([[0.707107, 0.707107], [0.393919, 0.919145], [0.921635, -0.388057]])
    assert_close(q, wanted, rtol=0, atol=1e-5)
    assert float(match_loss(10 * q @ G.T)) == pytest.approx(0.346973, abs=1e-5)


@pytest.mark.parametrize(("kind", "labels", "loss"), [
    ("logprob", [0.499979, 0.880806, 0.109796], 0.0405386),
    ("cosine", [0.880797, 0.880797, 0.119203], 0.1477383),
    ("grid", [0.6, 1.0, 0.0], 0.1999847),
])  # fmt: skip
def test_the_worked_example_of_the_labels(kind, labels, loss):
    y, known = weight_labels(U, S, G, kind)
    assert bool(known.all())
    assert_close(y[:, 0], torch.tensor(labels), rtol=0, atol=1e-5)
    assert_close(y.sum(1), torch.ones(3))
    assert float(label_losses(W.log(), y).mean()) == pytest.approx(loss, abs=1e-5)


def slow_match(logits, duplicates, how):
    rows = []
    for i in range(len(logits)):
        same = [j for j in range(logits.shape[1]) if j != i and duplicates[i, j]]
        hits = [i, *same] if how == "positive" else [i]
        left = [j for j in range(logits.shape[1]) if how != "mask" or j not in same]
        total = sum(math.exp(float(logits[i, j])) for j in left)
        rows.append(-math.log(sum(math.exp(float(logits[i, j])) for j in hits) / total))
    return sum(rows) / len(rows)


@pytest.mark.parametrize("how", ["mask", "positive", "ignore"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("columns", [5, 8])
def test_cross_entropy_with_duplicates_against_a_loop(how, dtype, columns):
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(5, columns, generator=generator, dtype=dtype)
    duplicates = torch.rand(5, columns, generator=generator) < 0.3
    assert float(match_loss(logits, duplicates, how)) == pytest.approx(slow_match(logits, duplicates, how), abs=1e-5)


def test_symmetric_takes_the_mean_of_both_directions_with_their_own_masks():
    logits, duplicates = torch.randn(4, 4), torch.tensor([[0, 1, 0, 0]] + [[0] * 4] * 3, dtype=torch.bool)
    both, _ = Match(match="symmetric")(logits, duplicates=duplicates)
    one, other = slow_match(logits, duplicates, "mask"), slow_match(logits.T, duplicates.T, "mask")
    assert float(both) == pytest.approx((one + other) / 2, abs=1e-5)


def test_masking_a_duplicate_target_is_the_same_as_deleting_its_column():
    logits = torch.randn(1, 4)
    duplicates = torch.tensor([[False, False, True, False]])
    assert_close(match_loss(logits, duplicates, "mask"), match_loss(logits[:, [0, 1, 3]]))


def test_one_query_has_no_loss_and_finite_gradients():
    u = draw(1, 4).requires_grad_()
    logits = u @ draw(1, 4, seed=1).T
    log_w = (u @ torch.ones(4, 2)).log_softmax(1)
    y, known = weight_labels(u, draw(1, 4, seed=2), draw(1, 4, seed=1))
    assert not bool(known.any())
    loss = match_loss(logits) + (label_losses(log_w, y) * known).sum() + SoftTriplet().of(u, u.detach())[0]
    loss.backward()
    assert float(loss) == 0 and bool(u.grad.isfinite().all())


def test_a_row_with_one_column_left_has_no_label():
    masked = torch.tensor([[False, True, True], [True, False, False], [False, False, False]])
    for kind in ("logprob", "cosine", "grid"):
        y, known = weight_labels(U, S, G, kind, masked)
        assert known.tolist() == [False, True, True] and bool(y.isfinite().all())


def test_masked_columns_do_not_count_in_the_labels():
    masked = torch.zeros(3, 3, dtype=torch.bool)
    masked[0, 2] = True
    y, _ = weight_labels(U, S, G, "logprob", masked)
    fewer, _ = weight_labels(U[:2], S[:2], G[:2], "logprob")
    assert_close(y[0], fewer[0])


def test_a_shift_of_all_text_cosines_changes_only_the_cosine_label():
    u, s, g = draw(5, 8), draw(5, 8, seed=1), draw(5, 8, seed=2)
    widen = [F.pad(x, (0, 1)) for x in (u, s, g)]
    shifted = [widen[0], widen[1].clone(), widen[2].clone()]
    shifted[1][:, -1] = 1.0  # the inner product of every text with every target grows by 0.5
    shifted[2][:, -1] = 0.5
    before, after = weight_labels(*widen, "logprob")[0], weight_labels(*shifted, "logprob")[0]
    assert_close(before, after, rtol=0, atol=1e-5)
    assert float((weight_labels(*widen, "cosine")[0] - weight_labels(*shifted, "cosine")[0]).abs().min()) > 0.01


def test_a_hot_label_is_half():
    y, _ = weight_labels(draw(5, 8), draw(5, 8, seed=1), draw(5, 8, seed=2), kappa=1e9)
    assert_close(y, torch.full((5, 2), 0.5), rtol=0, atol=1e-6)


def slow_grid(u, s, g, tau=0.05):
    best = []
    for i in range(len(u)):
        found = {}
        for n in range(11):
            q = n / 10 * u[i].double() + (1 - n / 10) * s[i].double()
            found[n] = float(((q / q.norm()) @ g.double().T / tau).log_softmax(0)[i])
        most = max(found.values())
        ties = [n for n, value in found.items() if value >= most - 1e-9]
        best.append(min(ties, key=lambda n: (abs(n - 5), n)) / 10)
    return torch.tensor(best)


def test_the_grid_label_against_a_loop_and_its_ties():
    u, s, g = draw(6, 5), draw(6, 5, seed=1), draw(6, 5, seed=2)
    assert_close(weight_labels(u, s, g, "grid")[0][:, 0], slow_grid(u, s, g))
    assert weight_labels(u, u, g, "grid")[0][:, 0].tolist() == [0.5] * 6  # every weight gives the same vector


def test_labels_carry_no_gradient_and_an_unknown_kind_is_named():
    u = draw(3, 4).requires_grad_()
    assert not weight_labels(u, u, u)[0].requires_grad
    with pytest.raises(XRetrieveError, match="logprob"):
        weight_labels(u, u, u, "logprop")


def slow_triplet(q, t, duplicates):
    points, count = torch.cat([q, t]), len(q)
    terms = []
    for a in range(2 * count):
        b = (a + count) % (2 * count)
        for n in range(2 * count):
            i, j = a % count, n % count
            if i != j and not (duplicates[i, j] or duplicates[j, i]):
                near, far = ((points[a] - points[x]).square().sum() for x in (b, n))
                terms.append(math.log(1 + math.exp(float(near - far))))
    return sum(terms) / len(terms), len(terms)


@pytest.mark.parametrize("masked", [False, True])
def test_soft_triplet_against_a_loop(masked):
    q, t = 2 * draw(4, 5), 2 * draw(4, 5, seed=1)
    duplicates = torch.zeros(4, 4, dtype=torch.bool)
    duplicates[0, 2] = masked
    wanted, count = slow_triplet(q, t, duplicates)
    assert float(SoftTriplet().of(q, t, duplicates)[0]) == pytest.approx(wanted, abs=1e-5)
    assert masked or count == 2 * 4 * (2 * 4 - 2)


def test_losses_are_found_by_name_and_wrong_options_are_named():
    assert create_loss("match", duplicates="positive").how == "positive" and create_loss("soft_triplet")
    for options, said in (({"duplicate": "mask"}, "duplicates"), ({"duplicates": "masks"}, "mask"),
                          ({"match": "g2q"}, "q2g")):  # fmt: skip
        with pytest.raises(XRetrieveError, match=said):
            create_loss("match", **options)
    with pytest.raises(XRetrieveError, match="option"):
        create_loss("soft_triplet", margin=0.1)
