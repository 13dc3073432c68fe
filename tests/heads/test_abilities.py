"""What heads can do is declared, for those of the house and for those of other packages."""

from __future__ import annotations

from typing import Any

import pytest

from xretrieve.heads import head_class, list_heads
from xretrieve.heads.abilities import ABILITIES
from xretrieve.heads.base import Head


@pytest.mark.parametrize("name", list_heads())
def test_what_a_head_can_do_is_declared(name: str) -> None:
    cls = head_class(name)
    for ability, method in ABILITIES.items():
        declared = next(vars(one)[ability] for one in cls.__mro__ if ability in vars(one))
        assert (declared is not vars(Head)[ability]) == hasattr(cls, method), (ability, method)


def test_a_head_of_another_package_declares_an_ability_by_its_method() -> None:
    class Own(head_class("dual")):  # type: ignore[misc]
        def cheap(self, queries: Any, gallery: Any, memory: Any = None) -> Any:
            return "bounds"

    head = Own(image_dim=3, text_dim=3, dim=2)
    assert head.bounds is head and head.bounds.cheap(None, None) == "bounds"
    assert head.pair_stage is None and head.looks is None and head.choices() == []
