"""Drill-down: who writes which slot, rollouts, what each loss teaches, explanations."""

from __future__ import annotations

import pytest
import torch

from tests.heads.set_cases import SIZES, make, sides
from tests.heads.test_hmrn import task
from xretrieve.errors import XRetrieveError
from xretrieve.heads import create_head
from xretrieve.heads.slots import mean_of_written, rollout_gains, write
from xretrieve.training.losses import HardestHinge


def test_rounds_average_the_slots_as_their_last_writing_left_them():
    slots, mask = torch.tensor([[0, 1, 0, 1], [0, 1, 2, 2]]), torch.tensor([[True] * 4, [True, True, False, False]])
    third = [0.0, 0.5, 0.5, 0.0]  # slot 0 was written again
    want = [[[1, 0, 0, 0], [0.5, 0.5, 0, 0], third, [0, 0, 0.5, 0.5]], [[1, 0, 0, 0], *[[0.5, 0.5, 0, 0]] * 3]]
    assert mean_of_written(slots, mask).tolist() == want


@pytest.mark.parametrize("mode", ["supervised", "policy"])
def test_slots_are_filled_in_order_before_anything_is_chosen(mode):
    head = make("drilldown", mode=mode, slots=3)
    sets, _ = sides(head)
    written, logits = head.logits(sets)
    assert (written.slots[:, :3] == torch.arange(3)).all()
    if mode == "supervised":
        assert written.slots.tolist() == [[0, 1, 2, 0]] * 4
    else:
        assert torch.equal(written.slots[:, 3], logits[:, 3].argmax(-1)) and logits.shape == (4, 4, 3)


def test_of_equal_logits_the_lowest_slot_is_taken():
    head = make("drilldown-policy")
    with torch.no_grad():
        head.policy[4].bias.fill_(-100.0)  # the last ReLU makes every logit 0
    assert (head.logits(sides(head)[0])[0].slots[:, 2:] == 0).all()


def test_gains_equal_a_plain_walk_through_the_rounds_that_follow():
    head = make("drilldown-policy")
    sets, gallery = sides(head, (4, 4, 3))
    trace: dict[str, torch.Tensor] = {}
    written, _ = head.rollouts(sets, gallery, trace)
    for b in range(3):
        regions = gallery.local[b][gallery.mask[b]]

        def similar(slots, regions=regions):
            s = slots @ regions.T
            return (((head.temperature * s).softmax(-1)) * s).sum(-1).mean()

        slots = torch.zeros(2, 8)
        said = int(sets.mask[b].sum())
        for turn in range(said):
            gains = []
            for k in range(2):
                tried, gain = write(head.updater, slots, sets.local[b, turn], torch.tensor(k))[0], 0.0
                gain += similar(tried) - similar(slots)
                for later in range(turn + 1, said):
                    slot = head.policy(sets.local[b, later], tried).argmax()
                    tried = write(head.updater, tried, sets.local[b, later], slot)[0]
                    gain += similar(tried) - similar(slots)
                gains.append(gain)
            torch.testing.assert_close(trace["rewards"][b, turn], torch.stack(gains), atol=1e-5, rtol=0)
            slot = turn if turn < 2 else int(torch.stack(gains).argmax())
            assert written.slots[b, turn] == slot
            slots = write(head.updater, slots, sets.local[b, turn], torch.tensor(slot))[0]


def test_rollouts_leave_no_gradient_and_drawn_ones_repeat_with_the_seed():
    head = make("drilldown-policy", rollout="sample")
    sets, gallery = sides(head, (4, 4, 4))
    sets.local.requires_grad_(True)
    gains = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        gains.append(rollout_gains(head.updater, head.policy, torch.zeros(3, 2, 8), sets.local, sets.mask, 0,
                                   lambda slots: slots.square().sum((-1, -2)), greedy=False))  # fmt: skip
    assert not gains[0].requires_grad and torch.equal(gains[0], gains[1]) and not torch.equal(gains[0], gains[2])


def test_the_policy_learns_from_the_choice_only_and_the_choice_teaches_only_the_policy():
    head = make("drilldown-policy")
    sets, gallery = sides(head, (4, 4, 4))
    _, choice = head.rollouts(sets, gallery)
    choice.sum().backward()
    touched = {name.split(".")[0] for name, p in head.named_parameters() if p.grad is not None and p.grad.any()}
    assert touched == {"policy"}
    head.zero_grad()
    sets, gallery = sides(head, (4, 4, 4))
    head.policy_weight = 0.0
    head.training_loss(sets, gallery, HardestHinge(0.2))[0].backward()
    assert all(p.grad is None or not p.grad.any() for p in head.policy.parameters())
    assert all(p.grad.any() for p in head.updater.parameters())


def test_a_mode_switches_off_what_takes_no_part():
    head = make("drilldown")
    for mode, off in (("supervised", {"policy"}), ("policy", set()), ("sentences", {"policy", "updater"})):
        head.set_mode(mode)
        found = {name.split(".")[0] for name, p in head.named_parameters() if not p.requires_grad}
        assert found == off and head.config["mode"] == mode


@pytest.mark.parametrize("mode", ["supervised", "policy", "sentences"])
def test_training_lowers_the_loss_and_more_sentences_rank_better(mode):
    torch.manual_seed(0)
    head = create_head("drilldown", image_dim=12, text_dim=12, dim=16, slots=2, mode=mode, text_project=True)
    loss = HardestHinge(0.2)
    learns = torch.optim.Adam([p for p in head.parameters() if p.requires_grad], 5e-3)
    logged = []
    for step in range(60):
        regions, said = task(24, step)
        sets = head.combine_sets(head.prepare_queries(said), [3] * 24)
        total, stats = head.training_loss(sets, head.prepare_gallery(regions), loss)
        learns.zero_grad()
        total.backward()
        assert all(p.grad is not None for p in head.parameters() if p.requires_grad)
        learns.step()
        logged.append(float(total.detach()) - head.policy_weight * float(stats.get("loss_choice", 0)))
    assert sum(logged[-5:]) < 0.7 * sum(logged[:5])
    head.eval()
    regions, said = task(40, 1000)
    with torch.no_grad():
        sets = head.combine_sets(head.prepare_queries(said), [3] * 40)
        rounds = head.score_rounds(sets, head.prepare_gallery(regions))
    hits = (rounds.argmax(1) == torch.arange(40)).float().mean(1)
    assert hits[-1] > 0.3 and hits[1] > hits[0]


def test_a_policy_needs_rounds_to_choose_in():
    head = make("drilldown-policy", slots=4)
    with pytest.raises(XRetrieveError, match="rounds after the first 4 .slots.; sets have 4"):
        head.training_loss(*sides(head, (4, 4, 4)), HardestHinge(0.2))
    with pytest.raises(XRetrieveError, match="unknown mode 'police'; did you mean 'policy'"):
        head.set_mode("police")
    with pytest.raises(XRetrieveError, match="unknown rollout 'best'"):
        make("drilldown", rollout="best")


@pytest.mark.parametrize("case", ["drilldown", "drilldown-policy", "drilldown-sentences"])
def test_explanations_add_up_to_the_score(case):
    head = make(case)
    sets, gallery = sides(head)
    found = head.explain(sets, gallery)
    torch.testing.assert_close(found["score"], head.score(sets, gallery), atol=1e-6, rtol=0)
    torch.testing.assert_close(found["regions"].sum(-1), torch.ones(4, 3, 4))
    assert (found["regions"][:, 1, :, 3:] == 0).all()
    assert found["mean"][2].tolist() == [1, 0, 0, 0] and (found["mean"].sum(1) - 1).abs().max() < 1e-6
    assert found["slots"].shape == (4, 4) and SIZES[2] == 1
