"""Any bytes and any text against any annotation: a value or a PayloadError, at once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, NamedTuple, TypedDict
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from django_workflows.exceptions import PayloadError
from django_workflows.payloads import CallSignature, decode


class Colour(Enum):
    RED = "red"


class Point(NamedTuple):
    x: int
    y: int


class Address(TypedDict):
    city: str
    since: date


@dataclass
class Tree:
    name: str
    children: list[Tree]


ANNOTATIONS: list[Any] = [
    Any, None, bool, int, float, str, bytes, list[int], dict[str, Any], dict[int, str], set[str], tuple[int, ...],
    Tree, Point, Address, Colour, datetime, timedelta, Decimal, UUID, int | str | None, list[Tree] | None,
]  # fmt: skip

DEEP = 100_000
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=())),
    lambda parts: st.lists(parts, max_size=3) | st.dictionaries(st.text(max_size=3), parts, max_size=3),
    max_leaves=8,
)
json_text = st.builds(json.dumps, plain) | st.builds(lambda value: json.dumps(value, ensure_ascii=False), plain)
hostile = st.one_of(json_text, json_text.map(lambda text: text[:-1]), st.text(st.characters(exclude_categories=())))
some = settings(max_examples=60, deadline=None)
HOSTILE = [
    "[" * DEEP, "[" * DEEP + "]" * DEEP, '{"children":[' * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "9" * 5000,
    "1e999", "-1e999", "NaN", "Infinity", '"\\ud800"', '"\ud800"', '"\\u0000"', "\0", '{"a":1,"a":2}',
    '{"x":1,"x":"y","y":2}', '"' + "9" * 5000 + '"', '"1e999999999"', '"P999999999999999D"', "", " ", "\ufeff1",
    '"9999-99-99"', "1" + "0" * 18 + ".5e-400", '{"name":"x","children":[' * DEEP,
]  # fmt: skip


def assert_decoded_or_refused(payload: str | bytes) -> None:
    for annotation in ANNOTATIONS:
        try:
            decode(payload, annotation, what="a value")
        except PayloadError as error:
            assert len(str(error)) < 1000


@some
@given(hostile)
def test_any_text_is_decoded_or_refused(text: str) -> None:
    assert_decoded_or_refused(text)


@some
@given(st.binary(max_size=60))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    assert_decoded_or_refused(data)


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_is_decoded_or_refused(text: str) -> None:
    assert_decoded_or_refused(text)
    if text.isascii():
        assert_decoded_or_refused(text.encode())
    for frame in ("[[{}],{{}}]", '[[],{{"number":{}}}]', "{}"):
        signature_takes_or_refuses(frame.format(text))


def called(number: int, tree: Tree | None = None, *rest: Any, key: Any = None, **others: Decimal) -> Tree: ...  # type: ignore[empty-body]


signature = CallSignature.of(called, name="hostile.called")


def signature_takes_or_refuses(text: str) -> None:
    for read in (signature.decode_arguments, signature.decode_result):
        try:
            read(text)
        except PayloadError as error:
            assert len(str(error)) < 2000


@some
@given(hostile)
@example("[[1],{}]")
def test_any_text_is_a_call_or_is_refused(text: str) -> None:
    signature_takes_or_refuses(text)
    signature_takes_or_refuses(f"[[{text}],{{}}]")
    signature_takes_or_refuses(f'[[1],{{"key":{text}}}]')
