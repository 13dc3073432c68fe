"""Two processes under a strict distributed wrapper: every parameter gets a gradient, and it is that of one process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from xretrieve.heads import create_head
from xretrieve.tokens import Tokens
from xretrieve.training.losses import HardestHinge, InfoNCE
from xretrieve.training.set_trainee import SetTrainee
from xretrieve.training.trainee import Gather, Trainee

WIDTH, IMAGES, TURNS = 16, 6, 4
SMALL = {"dim": WIDTH, "sim_dim": 8, "dropout": 0.0}
# without BatchNorm: its statistics are those of a process
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "tshsr": ("tshsr", SMALL),
    "saf": ("saf", SMALL | {"stream": "i2t"}),
    "hmrn": ("hmrn", SMALL | {"region_norm": "none"}),
    "drilldown": ("drilldown", {"dim": WIDTH, "slots": 2}),
    "drilldown-policy": ("drilldown", {"dim": WIDTH, "slots": 2, "mode": "policy", "rollout": "greedy"}),
}


def trainee(case: str, world: int) -> Trainee:
    name, options = HEADS[case]
    torch.manual_seed(0)
    head = create_head(name, image_dim=WIDTH, text_dim=WIDTH, text_project=True, **options)
    loss = InfoNCE(1 / 10, learnable=False) if name == "hmrn" else HardestHinge()
    kind = Trainee if name in ("tshsr", "saf") else SetTrainee
    return kind(head, loss, None, None, Gather(world)).train()


def part(case: str, rank: int, world: int) -> tuple[Any, ...]:
    """This process's images and texts, of other lengths than its neighbour's."""
    generator = torch.Generator().manual_seed(1)
    regions = torch.randn(IMAGES, 5, WIDTH, generator=generator)
    words = torch.randn(IMAGES, TURNS, WIDTH, generator=generator)
    shown = torch.arange(5) < torch.tensor([5, 3, 4, 2, 1, 2])[:, None]
    said = torch.arange(TURNS) < torch.tensor([3, 4, 4, 3, 3, 3])[:, None]
    mine = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world)
    images = Tokens.from_local(regions[mine], shown[mine])
    if HEADS[case][0] in ("tshsr", "saf"):
        return images, Tokens.from_local(words[mine], said[mine]), torch.zeros(1, IMAGES, IMAGES, dtype=torch.bool)
    sizes = said[mine].sum(1)
    return (images, (Tokens.from_pooled(words[mine][said[mine]]), sizes),
            torch.zeros(TURNS, IMAGES, IMAGES, dtype=torch.bool))  # fmt: skip


def gradients(module: torch.nn.Module, inputs: tuple[Any, ...]) -> dict[str, torch.Tensor]:
    loss, _ = module(*inputs)
    loss.backward()
    plain = module.module if isinstance(module, DistributedDataParallel) else module
    found = {name: p.grad for name, p in plain.named_parameters() if p.requires_grad}
    assert all(grad is not None for grad in found.values())
    return found | {"loss": loss.detach()}


def process(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for case in HEADS:
        wrapped = DistributedDataParallel(trainee(case, 2), find_unused_parameters=False)
        gradients(wrapped, part(case, rank, 2))  # a parameter without a gradient would stop the second step
        wrapped.zero_grad()
        found = gradients(wrapped, part(case, rank, 2))
        torch.save(found, Path(folder) / f"{case}-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    mp.start_processes(process, (str(folder),), nprocs=2, start_method="spawn")
    return folder


@pytest.mark.parametrize("case", HEADS)
def test_two_processes_give_the_loss_and_the_gradient_of_one(case: str, both: Path) -> None:
    want = gradients(trainee(case, 1), part(case, 0, 1))
    for rank in range(2):
        found = torch.load(both / f"{case}-{rank}.pt", weights_only=True)
        assert found.keys() == want.keys()
        for name, value in want.items():
            torch.testing.assert_close(found[name], value, atol=2e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
