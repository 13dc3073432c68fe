"""Heads for composed queries: one vector a query, weights that add up, and a start that is the plain sum."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.composed import unit, with_raw
from xretrieve.tokens import Prepared, Tokens

NAMES = ("image_only", "text_only", "sum", "constant", "progressive", "combiner", "dqu", "tirg")
D = 6


def build(name, **options):
    torch.manual_seed(0)
    return create_head(name, image_dim=D, text_dim=D, **options).eval()


def sides(count=4, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return (with_raw(torch.randn(count, D, generator=generator)), with_raw(torch.randn(count, D, generator=generator)))


def moved(head, seed=2):
    """The head with all its parameters away from their start values."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


@pytest.mark.parametrize("name", NAMES)
def test_a_query_is_one_unit_vector_and_the_score_its_inner_product(name):
    head = moved(build(name))
    image, text = sides()
    queries, gallery = head.combine_image_text(image, text), sides(7, 3)[0]
    assert head.indexable and queries.pooled.shape == (4, D)
    assert_close(queries.pooled.norm(dim=1), torch.ones(4))
    assert_close(head.score(queries, gallery), queries.pooled @ gallery.pooled.T)


@pytest.mark.parametrize("name", NAMES)
def test_in_evaluation_a_query_depends_on_its_own_row_only(name):
    head = moved(build(name))
    image, text = sides()
    together = head.combine_image_text(image, text).pooled
    alone = [head.combine_image_text(image[i : i + 1], text[i : i + 1]).pooled for i in range(4)]
    assert_close(together, torch.cat(alone), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_weights_of_image_and_text_sum_to_one(name):
    weights = moved(build(name)).query_weights(*sides())
    assert weights.shape == (4, 2) and bool((weights >= 0).all())
    assert_close(weights.sum(1), torch.ones(4))


@pytest.mark.parametrize("options", [{}, {"channels": True}, {"weights": "half"}, {"weights": "constant"},
                                     {"residual": False}])  # fmt: skip
def test_a_new_progressive_head_is_the_sum_of_unit_vectors(options):
    image, text = sides()
    plain = build("sum").combine_image_text(image, text).pooled
    head = build("progressive", **options)
    assert_close(head.combine_image_text(image, text).pooled, plain, rtol=0, atol=1e-6)
    assert_close(head.query_weights(image, text), torch.full((4, 2), 0.5))


def test_progressive_is_its_equation():
    head = moved(build("progressive"))
    image, text = sides()
    rows = []
    for u, s in zip(image.pooled, text.pooled, strict=True):
        h = torch.cat([u, s])
        a = head.weigh[3].weight @ F.relu(head.weigh[0].weight @ h + head.weigh[0].bias) + head.weigh[3].bias
        w = torch.exp(a) / torch.exp(a).sum()
        hidden = F.relu(head.correct[0].weight @ h + head.correct[0].bias)
        q = w[0] * u + w[1] * s + head.rho * (head.correct[3].weight @ hidden + head.correct[3].bias)
        rows.append(q / q.norm())
    assert_close(head.combine_image_text(image, text).pooled, torch.stack(rows), rtol=0, atol=1e-5)


def test_weights_of_channels_are_shown_as_their_mean():
    head = moved(build("progressive", channels=True, residual=False))
    image, text = sides()
    made = head.compose(image, text)
    assert_close(made.weights.sum(1), torch.ones(4))
    assert_close(made.log_weights, made.weights.log())
    each = head.weigh(torch.cat([image.pooled, text.pooled], 1)).view(4, 2, D).softmax(1)  # (B,2,D)
    assert_close(made.query, unit(each[:, 0] * image.pooled + each[:, 1] * text.pooled))
    assert float(each.detach().std(-1).max()) > 0.01


def test_the_sums_differ_where_lengths_differ():
    image, text = with_raw(torch.tensor([[10.0, 0, 0, 0, 0, 0]])), with_raw(torch.tensor([[0, 1.0, 0, 0, 0, 0]]))
    both = build("sum").combine_image_text(image, text).pooled
    raw = build("sum", raw=True)
    assert_close(both[0, :2], torch.tensor([0.5, 0.5]).sqrt())
    assert_close(raw.combine_image_text(image, text).pooled[0, :2], torch.tensor([10.0, 1.0]) / 101**0.5)
    assert_close(raw.query_weights(image, text), torch.tensor([[10 / 11, 1 / 11]]))


def test_a_constant_weight_and_its_choices():
    image, text = sides()
    assert_close(build("constant", weight=1.0).combine_image_text(image, text).pooled, image.pooled)
    assert_close(build("constant", weight=0.0).combine_image_text(image, text).pooled, text.pooled)
    head = build("constant")
    assert sorted(head.choices()) == [v / 20 for v in range(21)] and head.choices()[:3] == [0.5, 0.45, 0.55]
    assert "weight" in head.state_dict()  # what validation chose is saved
    with pytest.raises(XRetrieveError, match="between 0 and 1"):
        build("constant", weight=1.2)


def test_one_modality_alone_ignores_the_other():
    image, text = sides()
    assert_close(build("image_only").combine_image_text(image, text).pooled, image.pooled)
    assert_close(build("text_only").combine_image_text(image, text).pooled, text.pooled)


def test_tirg_refuses_one_query_in_training_and_takes_it_in_evaluation():
    head = build("tirg")
    image, text = sides(1)
    assert head.combine_image_text(image, text).pooled.isfinite().all()
    with pytest.raises(XRetrieveError, match="at least two"):
        head.train().combine_image_text(image, text)


@pytest.mark.parametrize("name", NAMES)
def test_a_zero_vector_gives_no_nan_and_no_nan_gradient(name):
    head = moved(build(name))
    image = torch.zeros(2, D, requires_grad=True)
    text = torch.zeros(2, D, requires_grad=True)
    query = head.compose(with_raw(image), with_raw(text)).query
    (query.sum() + sum(p.sum() * 0 for p in head.parameters())).backward()
    assert query.isfinite().all()
    assert all(x.grad is None or bool(x.grad.isfinite().all()) for x in (image, text))


def test_gallery_vectors_and_training_do_not_depend_on_queries():
    head = moved(build("progressive"))
    image, text = sides()
    before = head.prepare_gallery(Tokens.from_pooled(image.local[:, 0])).pooled
    head.combine_image_text(image, text)
    assert_close(head.prepare_gallery(Tokens.from_pooled(image.local[:, 0])).pooled, before, rtol=0, atol=0)


def test_a_side_without_its_raw_vectors_and_rows_that_do_not_pair_are_errors():
    head = build("combiner")
    image, text = sides()
    with pytest.raises(XRetrieveError, match="hold none"):
        head.combine_image_text(Prepared.from_pooled(image.pooled), text)
    with pytest.raises(XRetrieveError, match="4 reference images and 2 texts"):
        head.combine_image_text(image, text[:2])


@pytest.mark.parametrize("projection", ["linear", "perceptron", "dual"])
def test_backbones_without_a_shared_space_are_projected(projection):
    head = create_head("progressive", image_dim=7, text_dim=5, dim=D, sides={"projection": projection})
    image = head.prepare_gallery(Tokens.from_pooled(torch.randn(3, 7)))
    text = head.prepare_queries(Tokens.from_pooled(torch.randn(3, 5)))
    assert head.combine_image_text(image, text).pooled.shape == (3, D)
    if projection == "linear":
        wide = create_head("sum", image_dim=4000, text_dim=5, dim=64)
        assert abs(float(wide.image.map.weight.detach().std()) - 4000**-0.5) < 1e-3 and wide.image.map.bias is None
    with pytest.raises(XRetrieveError, match="share a space"):
        create_head("progressive", image_dim=7, text_dim=5)


def test_a_dual_run_can_be_the_start_and_padding_does_not_leak():
    options = {"image_pool": "gpo", "text_pool": "max", "image_hidden": 8}
    dual = create_head("dual", image_dim=7, text_dim=5, dim=D, **options).eval()
    local = {"projection": "dual", "image_source": "local", "text_source": "local", **options}
    head = create_head("progressive", image_dim=7, text_dim=5, dim=D, sides=local).eval()
    assert head.reads("image", head.config) == "local"
    own = head.state_dict()
    assert set(dual.state_dict()) <= set(own)
    head.load_state_dict({**own, **dual.state_dict()})
    mask = torch.tensor([[True, True, False], [True, False, False]])
    tokens = Tokens.from_local(torch.randn(2, 3, 7), mask)
    plain = head.prepare_gallery(tokens).pooled
    assert_close(plain, dual.prepare_gallery(tokens).pooled)
    padded = tokens.pad_to(5)
    padded.local[~padded.mask] = float("nan")
    assert_close(head.prepare_gallery(padded).pooled, plain)


@pytest.mark.parametrize(("options", "said"), [
    ({"dim": D, "sides": {"projection": "liner"}}, "linear"),
    ({"dim": D, "sides": {"projecton": "linear"}}, "projection"),
    ({"dim": D, "sides": {"image_source": "local"}}, "pooled vectors"),
    ({"sides": {"projection": "linear"}}, "no 'dim'"),
    ({"dim": D, "sides": {"projection": "none"}}, "leave it out"),
    ({"scale": "learnt"}, "'learned' or a number"),
    ({"weights": "adaptiv"}, "adaptive"),
])  # fmt: skip
def test_wrong_options_are_named(options, said):
    with pytest.raises(XRetrieveError, match=said):
        build("progressive", **options)


def test_the_scale_is_learned_up_to_a_limit_or_fixed():
    learned, fixed = build("progressive"), build("combiner")
    with torch.no_grad():
        learned.log_scale.fill_(9.0)
    assert float(learned.scale()) == pytest.approx(100) and learned.log_scale.requires_grad
    assert float(fixed.scale()) == pytest.approx(100) and fixed.constants() and not fixed.log_scale.requires_grad
    assert float(build("combiner", scale=250.0).scale()) == pytest.approx(250, rel=1e-5)
    assert float(build("dqu").match_scale()) == 10 and float(build("tirg").match_scale()) == 16
