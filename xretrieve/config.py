"""Dataclasses filled from plain dicts, with errors that name the nearest key; ``key=value`` overrides."""

from __future__ import annotations

import copy
import dataclasses
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, TypeVar

import yaml

from xretrieve.errors import XRetrieveError, first_line, shown, unknown

T = TypeVar("T")
MOST_VALUES = 100_000  # of a recipe; the longest here has some hundred


def from_dict(cls: type[T], values: Any, where: str = "") -> T:
    """Build the dataclass ``cls`` from a dict, recursively.

    Args:
        cls: a dataclass; nested dataclasses and ``list[dataclass]`` fields are built too.
        values: the dict. Unknown keys, missing keys and values of a wrong type raise :class:`XRetrieveError`.
        where: what the messages call this place, for example ``recipe.yaml``.
    """
    if not isinstance(values, dict):
        raise XRetrieveError(f"{where or cls.__name__}: expected a mapping of keys, got {shown(values)}")
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise XRetrieveError(f"{where + ': ' if where else ''}{unknown('key', str(key), fields)}")
    missing = [
        n
        for n, f in fields.items()
        if n not in values and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise XRetrieveError(f"{where or cls.__name__}: missing key {missing[0]!r}")
    converted = {k: _convert(hints[k], v, f"{where}.{k}" if where else k) for k, v in values.items()}
    try:
        return cls(**converted)
    except XRetrieveError as error:  # the class's own checks know the key, not the file and the place in it
        raise XRetrieveError(f"{where}: {error}" if where else str(error)) from error


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if origin in (typing.Union, types.UnionType):
        options: Sequence[Any] = typing.get_args(hint)
        if value is None and type(None) in options:
            return None
        options = [o for o in options if o is not type(None)]
        errors = []
        for option in options:
            try:
                return _convert(option, value, where)
            except XRetrieveError as error:
                errors.append(error)
        raise errors[-1]
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else from_dict(hint, value, where)  # type: ignore[arg-type]
    if origin is list:
        if not isinstance(value, (list, tuple)):
            raise XRetrieveError(f"{where}: expected a list, got {shown(value)}")
        return [_convert(typing.get_args(hint)[0], v, f"{where}.{i}") for i, v in enumerate(value)]
    if origin is typing.Literal:
        options = typing.get_args(hint)
        # YAML reads precision: 32 as a number
        said = str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
        named = {str(option): option for option in options}
        if said not in named:
            raise XRetrieveError(f"{where}: {unknown('value', said, named)}")
        return named[said]
    if origin is dict or hint is dict:
        if not isinstance(value, dict):
            raise XRetrieveError(f"{where}: expected a mapping, got {shown(value)}")
        return dict(value)
    if hint is float and isinstance(value, str):  # a dict of another source than parse_yaml
        try:
            return float(value)
        except ValueError:
            pass
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError as error:
            raise XRetrieveError(f"{where}: {shown(value)} is too large") from error
    if hint in (int, float, str, bool):
        if not isinstance(value, hint) or (hint is int and isinstance(value, bool)):
            quoted = f"; write it in quotes: '\"{value}\"'" if hint is str and isinstance(value, (int, float)) else ""
            raise XRetrieveError(f"{where}: expected {hint.__name__}, got {shown(value)}{quoted}")
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """The plain dict of a dataclass, ready for YAML or JSON."""
    return dataclasses.asdict(config)


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1, which takes 5e-4 for a string, and numbers with an exponent as in YAML 1.2."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_yaml(text: str) -> Any:
    """Plain values of a YAML text, read by libyaml where PyYAML has it (some ten times faster).

    Raises:
        YAMLError: no YAML, or values that nothing here can use: more than :data:`MOST_VALUES` of them once aliases are
            written out, numbers beyond 64 bits, text that is none.

    >>> parse_yaml("[5e-4, '5e-4', 32]")
    [0.0005, '5e-4', 32]
    """
    try:
        text.encode()
        values = yaml.load(text, Loader=_Loader)
    except UnicodeEncodeError as error:
        raise yaml.YAMLError("it holds what is no text") from error
    except (ValueError, TypeError, AttributeError, IndexError, OverflowError, RecursionError) as error:
        raise yaml.YAMLError(f"a value that is not what it looks like: {first_line(error)}") from error
    _count(values, {}, ())
    return values


def _count(value: Any, sizes: dict[int, int], inside: tuple[int, ...]) -> int:
    """How many values there are with every alias written out; each is looked at once."""
    if isinstance(value, int) and abs(value) >= 2**63:
        raise yaml.YAMLError("a number beyond 64 bits; put quotes around what is a name")
    if isinstance(value, str):
        value.encode()
    if not isinstance(value, (dict, list)):
        return 1
    if id(value) not in sizes:
        if id(value) in inside or len(inside) > 100:
            raise yaml.YAMLError("a value that holds itself, or nested too deeply")
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        sizes[id(value)] = 1 + sum(_count(part, sizes, (*inside, id(value))) for part in parts)
    if sizes[id(value)] > MOST_VALUES:
        raise yaml.YAMLError(f"its aliases (*) make more than {MOST_VALUES:,} values of it; write out what is meant")
    return sizes[id(value)]


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Set dotted keys in a nested dict (a copy is returned); list items are named by their number.

    >>> apply_overrides({"seed": 0, "stages": [{"lr": 1.0}]}, ["stages.0.lr=5e-4", "seed=3"])
    {'seed': 3, 'stages': [{'lr': 0.0005}]}
    """
    values = copy.deepcopy(values)
    for item in overrides:
        key, eq, text = item.partition("=")
        if not eq or not key:
            raise XRetrieveError(f"override {shown(item)}: write key=value, for example stages.0.lr=0.001")
        try:
            parsed = parse_yaml(text)
        except yaml.YAMLError as error:
            said = f" ({first_line(error)})" if type(error) is yaml.YAMLError else ""
            raise XRetrieveError(f"override {shown(item)}: the value is not YAML{said}") from error
        node: Any = values
        parts = key.split(".")
        for i, part in enumerate(parts):
            last = i == len(parts) - 1
            if isinstance(node, list):
                if not (part.isascii() and part.isdigit()) or len(part) > 9 or int(part) >= len(node):
                    raise XRetrieveError(
                        f"override {shown(item)}: {'.'.join(parts[:i])} has {len(node)} entries, numbered from 0"
                    )
                index: Any = int(part)
            elif isinstance(node, dict):
                index = part
                if not last and node.get(part) is None:
                    node[part] = {}
            else:
                raise XRetrieveError(
                    f"override {shown(item)}: {'.'.join(parts[:i])} is a single value, it has no key {part!r}"
                )
            if last:
                node[index] = parsed
            else:
                node = node[index]
    return values


def first_difference(before: Any, now: Any, key: str = "") -> str:
    """The first key of two configurations as plain values whose values differ, with both values; '' when none does.

    >>> first_difference({"stages": [{"lr": 0.1}]}, {"stages": [{"lr": 0.2}]})
    'stages.0.lr (0.1, now 0.2)'
    """
    if isinstance(before, dict) and isinstance(now, dict):
        pairs = [(f"{key}.{k}" if key else k, before.get(k), now.get(k)) for k in {**before, **now}]
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        pairs = [(f"{key}.{i}", a, b) for i, (a, b) in enumerate(zip(before, now, strict=True))]
    else:
        return "" if before == now else f"{key} ({shown(before)}, now {shown(now)})"
    return next((found for k, a, b in pairs if (found := first_difference(a, b, k))), "")
