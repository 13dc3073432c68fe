"""The words: Tokens, queries, and configuration from plain dicts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import PIL.Image
import pytest
import torch
import yaml

import xretrieve as xr
from xretrieve.config import apply_overrides, from_dict, parse_yaml, to_dict
from xretrieve.errors import XRetrieveError
from xretrieve.tokens import Tokens
from xretrieve.training.recipes import read_recipe
from xretrieve.utils.files import atomic_folder, atomic_path, read_json


def test_tokens_join_pads_and_keeps_masks():
    a, b = Tokens.from_local(torch.ones(1, 2, 3)), Tokens.from_local(torch.ones(2, 4, 3))
    both = Tokens.cat([a, b])
    assert both.lengths.tolist() == [2, 4, 4] and tuple(both.local.shape) == (3, 4, 3)
    assert both[[2, 0]].lengths.tolist() == [4, 2]
    with pytest.raises(TypeError, match="batch axis"):
        both[0]


def test_tokens_of_wrong_shapes_are_refused():
    with pytest.raises(XRetrieveError, match=r"must be \(N,L,D\)"):
        Tokens(torch.ones(2, 3, 4), torch.ones(2, 2, dtype=torch.bool), torch.ones(2, 4))


def test_nan_features_name_the_item_but_nan_padding_is_allowed():
    tokens = Tokens.from_local(torch.ones(2, 3, 4), torch.tensor([[True, True, True], [True, False, False]]))
    tokens.local[1, 2] = float("nan")
    tokens.check_finite(["a", "b"])
    tokens.local[1, 0] = float("inf")
    with pytest.raises(XRetrieveError, match="features of b hold NaN"):
        tokens.check_finite(["a", "b"])


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: xr.Text("  "), "text query is empty"),
        (lambda: xr.MultiText([]), "multi-text query is empty"),
        (lambda: xr.MultiText(["a dog", ""]), "sentence 2 is empty"),
        (lambda: xr.MultiText("a dog"), "for one sentence use Text"),
        (lambda: xr.Image("nowhere.jpg"), "no picture at nowhere.jpg"),
        (lambda: xr.ImageText(PIL.Image.new("RGB", (2, 2)), " "), "the text is empty"),
        (lambda: xr.Text(3), "expected a string, got int"),
        (lambda: xr.Text("caf\udce9"), r"not valid text \('caf.udce9'\); write it in UTF-8"),
        (lambda: xr.Text("a dog " * 2000), "has 12,000 characters; at most 10,000"),
        (lambda: xr.Image("a very long text " * 30), "no picture at a very long"),
        (lambda: xr.Image("a\0b"), "no picture at"),
    ],
)
def test_bad_queries_say_what_is_wrong(make, says):
    with pytest.raises(XRetrieveError, match=says):
        make()


@dataclass
class Inner:
    rate: float = 0.1
    kind: Literal["a", "b"] = "a"


@dataclass
class Outer:
    name: str
    inner: Inner = field(default_factory=Inner)
    many: list[Inner] = field(default_factory=list)
    maybe: int | None = None


def test_config_is_built_recursively_and_round_trips():
    config = from_dict(Outer, {"name": "x", "inner": {"rate": "1e-3"}, "many": [{"kind": "b"}], "maybe": None})
    assert config.inner.rate == 1e-3 and config.many[0].kind == "b"
    assert from_dict(Outer, to_dict(config)) == config


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"name": "x", "iner": {}}, "unknown key 'iner'; did you mean 'inner'"),
        ({}, "missing key 'name'"),
        ({"name": 3}, "r.yaml.name: expected str, got 3"),
        ({"name": "x", "inner": {"kind": "c"}}, "r.yaml.inner.kind: unknown value 'c'"),
        ({"name": "x", "maybe": True}, "expected int, got True"),
        ({"name": "x", "many": {"rate": 1}}, "expected a list"),
        ({"name": "x", "inner": [1]}, "expected a mapping"),
    ],
)
def test_config_errors_name_the_key(values, says):
    with pytest.raises(XRetrieveError, match=says):
        from_dict(Outer, values, "r.yaml")


@dataclass
class Checked:
    epochs: int = 1

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise XRetrieveError(f"epochs must be at least 1, got {self.epochs}")


@dataclass
class Whole:
    stages: list[Checked]


def test_a_failed_check_names_the_file_and_the_place():
    with pytest.raises(XRetrieveError, match=r"^r.yaml.stages.1: epochs must be at least 1, got 0$"):
        from_dict(Whole, {"stages": [{}, {"epochs": 0}]}, "r.yaml")


def test_overrides_reach_into_lists_and_refuse_nonsense():
    assert apply_overrides({"many": [{}, {}]}, ["many.1.rate=5e-4"]) == {"many": [{}, {"rate": 5e-4}]}
    for bad, says in (("seed", "write key=value"), ("many.7.rate=1", "has 2 entries"), ("name.x=1", "single value")):
        with pytest.raises(XRetrieveError, match=says):
            apply_overrides({"many": [{}, {}], "name": "n"}, [bad])


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(RuntimeError), atomic_path(tmp_path / "a.txt") as part:
        part.write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"] and (tmp_path / "a.txt").read_text() == "old"


def test_a_folder_is_replaced_whole_or_not_at_all(tmp_path):
    for text in ("old", "new"):
        with atomic_folder(tmp_path / "f") as part:
            (part / text).write_text(text)
    assert [p.name for p in (tmp_path / "f").iterdir()] == ["new"]
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "f") as part:
        (part / "third").write_text("half")
        raise RuntimeError
    assert [p.name for p in tmp_path.rglob("*")] == ["f", "new"]


def test_broken_json_names_file_line_and_column(tmp_path):
    (tmp_path / "x.json").write_text('{"a": 1,\n "b" 2}')
    with pytest.raises(XRetrieveError, match=r"x.json: not valid JSON, line 2 column"):
        read_json(tmp_path / "x.json")


BOMB = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [{','.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BOMB, r"its aliases \(\*\) make more than 100,000 values"),
        ("a: &a [*a]", "holds itself"),
        ("a: " + "[" * 500 + "]" * 500, "nested too deeply"),
        ("a: " + "[" * 5000, "nesting|nested"),
        ("a: 2020-13-45", "month must be"),
        ("a: " + "9" * 5000, "not what it looks like"),
        ("a: 0x" + "f" * 9000, "beyond 64 bits"),
        ("a: !!int ''", "not what it looks like"),
        ("a: !!timestamp x", "not what it looks like"),
        ("a: caf\udce9", "what is no text"),
    ],
)
def test_yaml_that_nothing_can_use_is_one_short_sentence(text, says, tmp_path):
    with pytest.raises(yaml.YAMLError, match=says):
        parse_yaml(text)
    for read in (
        lambda: apply_overrides({}, ["a=" + text.removeprefix("a: ")]),
        lambda: read_recipe(tmp_path / "x.yaml"),
    ):
        (tmp_path / "x.yaml").write_bytes(text.encode("utf-8", "surrogatepass"))
        with pytest.raises(XRetrieveError) as caught:
            read()
        assert len(str(caught.value)) <= 1000


def test_wrong_places_in_lists_are_said_whatever_the_digits():
    for place in ("²", "٣٣", "1" * 30, "-1", "1.5", ""):
        with pytest.raises(XRetrieveError, match="numbered from 0|no key"):
            apply_overrides({"stages": [{"lr": 1.0}]}, [f"stages.{place}.lr=2"])


def test_messages_have_a_sensible_length():
    value = [["x" * 10_000] * 1000] * 1000
    for make in (lambda: from_dict(Inner, value), lambda: from_dict(Inner, {"name": value}),
                 lambda: from_dict(Inner, {"k" * 10**6: 1})):  # fmt: skip
        with pytest.raises(XRetrieveError) as caught:
            make()
        assert 20 < len(str(caught.value)) < 600
    error = XRetrieveError("begin " + "x" * 10**6 + " end")
    assert len(str(error)) <= 1000 and str(error).startswith("begin x") and str(error).endswith("x end")
    assert "999,0" in str(error) and str(XRetrieveError("short")) == "short"
