"""What of a recipe for composed queries is checked before training, and told beside its results."""

from __future__ import annotations

from xretrieve.errors import XRetrieveError
from xretrieve.heads import head_class, list_heads
from xretrieve.heads.composed import ComposedHead
from xretrieve.matcher import Matcher
from xretrieve.training.losses import list_losses
from xretrieve.training.recipe import Recipe


def check_composed(recipe: Recipe) -> None:
    """A head or a loss of another task is an error that lists those of this one."""
    assert recipe.head is not None
    if not issubclass(head_class(recipe.head.name), ComposedHead):
        fits = [name for name in list_heads() if issubclass(head_class(name), ComposedHead)]
        raise XRetrieveError(
            f"recipe key 'head.name': {recipe.head.name!r} composes nothing that could be trained; task composed has "
            f"{', '.join(fits)}"
        )
    known = list_losses("composed")
    for i, stage in enumerate(recipe.stages):
        if stage.loss is not None and stage.loss.name not in known:
            raise XRetrieveError(
                f"recipe key 'stages.{i}.loss.name': {stage.loss.name!r} is not one of composed queries: "
                f"{', '.join(known)}"
            )


def stage_notes(recipe: Recipe, matcher: Matcher) -> list[str]:
    """What must stand beside the numbers: where the space comes from, what was selected on, a chosen weight."""
    notes, head = [], matcher.head
    assert isinstance(head, ComposedHead)
    if head.sides(head.config).projection != "none" and recipe.start is None:
        notes.append("stage 1: unaligned (the backbones share no space; the maps into one start at random)")
    if head.choices():
        notes.append(f"constant weight of the image: {float(head.weight):.2f}, chosen on the val split")  # type: ignore[arg-type]
    return notes
