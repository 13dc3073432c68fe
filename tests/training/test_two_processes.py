"""Two processes under a strict distributed wrapper: every parameter gets a gradient, and it is that of one process."""

from __future__ import annotations

import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from xretrieve.heads import create_head
from xretrieve.tokens import Tokens
from xretrieve.training.composed_trainee import Attributes, CompositionTrainee, DomainTrainee
from xretrieve.training.losses import HardestHinge, InfoNCE, create_loss
from xretrieve.training.recipe import CompositionConfig, DomainConfig
from xretrieve.training.set_trainee import SetTrainee
from xretrieve.training.trainee import Gather, Trainee

WIDTH, IMAGES, TURNS = 16, 6, 4
VALUES = {"colour": ["blue", "red"], "kind": ["bag", "hat", "shoe"]}
STILL = {"image_dropout": 0.0, "text_dropout": 0.0, "image_input_dropout": 0.0, "image_standardise": False}
READ = {"dim": WIDTH, "dropout": 0.0, "residual": False, "attributes": VALUES, "reading": STILL}
SMALL = {"dim": WIDTH, "sim_dim": 8, "dropout": 0.0}
# without BatchNorm: its statistics are those of a process
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "tshsr": ("tshsr", SMALL),
    "saf": ("saf", SMALL | {"stream": "i2t"}),
    "hmrn": ("hmrn", SMALL | {"region_norm": "none"}),
    "drilldown": ("drilldown", {"dim": WIDTH, "slots": 2}),
    "drilldown-policy": ("drilldown", {"dim": WIDTH, "slots": 2, "mode": "policy", "rollout": "greedy"}),
    "composition": ("progressive", {"dim": WIDTH, "dropout": 0.0}),
    "composition-attributes": ("progressive", READ),
    "domain": ("combiner", {"dim": WIDTH, "dropout": 0.0}),
    "domain-attributes": ("progressive", READ),
}
# parts of these heads that the stage does not reach; in training DDP is told to look for such
IDLE: dict[str, tuple[str, ...]] = {
    "composition": (), "composition-attributes": ("log_scale",),
    "domain": ("network", "log_scale"), "domain-attributes": ("reading.log_scale", "reading.weigh"),
}  # fmt: skip
TAGS = [f"{name}={value}" for name, values in VALUES.items() for value in values]


def trainee(case: str, world: int) -> Trainee:
    name, options = HEADS[case]
    torch.manual_seed(0)
    if case.startswith(("composition", "domain")):
        return composed(case, create_head(name, image_dim=WIDTH, text_dim=WIDTH, **options), world)
    head = create_head(name, image_dim=WIDTH, text_dim=WIDTH, text_project=True, **options)
    loss = InfoNCE(1 / 10, learnable=False) if name == "hmrn" else HardestHinge()
    kind = Trainee if name in ("tshsr", "saf") else SetTrainee
    return kind(head, loss, None, None, Gather(world)).train()


def composed(case: str, head: Any, world: int) -> Trainee:
    for name, parameter in head.named_parameters():
        parameter.requires_grad_(not name.startswith(IDLE[case]))
    loss = create_loss("match", match="symmetric")
    if case.startswith("composition"):
        config = CompositionConfig(label="logprob" if head.reading is None else "none", attribute_weight=0.5)
        return CompositionTrainee(head, loss, None, None, Gather(world), config=config, tags=TAGS).train()
    config = DomainConfig(["t2i", "i2i", "attributes"], i2i_weight=0.5, attribute_weight=2.0)
    apart = Attributes(WIDTH, len(TAGS)) if head.reading is None else None
    return DomainTrainee(head, loss, None, None, Gather(world), config=config, attributes=apart, tags=TAGS).train()


def composed_part(case: str, mine: slice, images: torch.Tensor, texts: torch.Tensor) -> tuple[Any, ...]:
    """Pictures of triplets, or two views of items; half of the first process's tags are not known."""
    generator = torch.Generator().manual_seed(2)
    value = torch.zeros(2 * IMAGES, len(TAGS), dtype=torch.bool)
    for columns in ((0, 1), (2, 3, 4)):
        for row in range(2 * IMAGES):
            value[row, columns[int(torch.randint(len(columns), (), generator=generator))]] = True
    known = torch.ones_like(value)
    known[:2], known[IMAGES, :2] = False, False
    same = torch.eye(IMAGES, dtype=torch.bool).roll(2, 1)[None]
    both = images.flatten(0, 1)[: 2 * IMAGES].unflatten(0, (2, IMAGES))[:, mine].flatten(0, 1)  # (2n,WIDTH)
    told = value.unflatten(0, (2, IMAGES))[:, mine], known.unflatten(0, (2, IMAGES))[:, mine]
    said = Tokens.from_pooled(texts[mine, 0])
    if case.startswith("composition"):
        tags = tuple(t.flatten(0, 1) for t in told) if case.endswith("attributes") else ()
        return (Tokens.from_pooled(both), torch.arange(len(both)), *tags), said, same[0]
    return (Tokens.from_pooled(both), *(t[0] for t in told)), said, (same[0], same[0])


def part(case: str, rank: int, world: int) -> tuple[Any, ...]:
    """This process's images and texts, of other lengths than its neighbour's."""
    generator = torch.Generator().manual_seed(1)
    regions = torch.randn(IMAGES, 5, WIDTH, generator=generator)
    words = torch.randn(IMAGES, TURNS, WIDTH, generator=generator)
    shown = torch.arange(5) < torch.tensor([5, 3, 4, 2, 1, 2])[:, None]
    said = torch.arange(TURNS) < torch.tensor([3, 4, 4, 3, 3, 3])[:, None]
    mine = slice(rank * IMAGES // world, (rank + 1) * IMAGES // world)
    if case.startswith(("composition", "domain")):
        return composed_part(case, mine, regions, words)
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


def process(rank: int, folder: str, port: int) -> None:
    os.dup2(os.open(f"{folder}/said-{rank}.txt", os.O_WRONLY | os.O_CREAT), 2)  # what gloo says as it aborts
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.TCPStore("127.0.0.1", port), rank=rank, world_size=2)
    for case in HEADS:
        wrapped = DistributedDataParallel(trainee(case, 2), find_unused_parameters=False)
        gradients(wrapped, part(case, rank, 2))  # a parameter without a gradient would stop the second step
        wrapped.zero_grad()
        found = gradients(wrapped, part(case, rank, 2))
        torch.save(found, Path(folder) / f"{case}-{rank}.pt")
    dist.barrier()  # neither leaves while the other still reads
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # Seen once, in CI, and not made to happen again: a process aborts (gloo can as they meet: pytorch issue 188266).
    # That says nothing about gradients, so it is tried again, and said as a warning.
    for attempt in range(3):
        folder = tmp_path_factory.mktemp("two")
        store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # outlives both
        try:
            mp.start_processes(process, (str(folder), store.port), nprocs=2, start_method="spawn")
        except mp.ProcessExitedException as error:
            said = "\n".join(file.read_text() for file in sorted(folder.glob("said-*.txt")))
            if error.signal_name != "SIGABRT" or attempt == 2:
                pytest.fail(f"{error}\n{said}", pytrace=False)
            warnings.warn(f"{error}, tried again\n{said}", stacklevel=1)
        else:
            return folder
    raise AssertionError("the last attempt returns or fails")


@pytest.mark.parametrize("case", HEADS)
def test_two_processes_give_the_loss_and_the_gradient_of_one(case: str, both: Path) -> None:
    want = gradients(trainee(case, 1), part(case, 0, 1))
    for rank in range(2):
        found = torch.load(both / f"{case}-{rank}.pt", weights_only=True)
        assert found.keys() == want.keys()
        for name, value in want.items():
            torch.testing.assert_close(found[name], value, atol=2e-6, rtol=1e-4, msg=lambda m, n=name: f"{n}: {m}")
