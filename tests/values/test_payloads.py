"""Values survive storage as their annotated type, or are refused with the place and the reason."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypedDict, TypeVar
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflows.exceptions import PayloadError, PayloadTooLarge, RegistrationError
from django_workflows.payloads import Raw, decode, encode

T = TypeVar("T")


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Size(enum.IntEnum):
    SMALL = 1


class Point(NamedTuple):
    x: int
    y: int = 0


class Address(TypedDict):
    city: str
    since: date


@dataclasses.dataclass
class Order:
    pk: int
    total: Decimal
    address: Address
    colours: set[Colour] = dataclasses.field(default_factory=set)
    parent: Order | None = None


@dataclasses.dataclass
class Refund:
    pk: int


class SafeText(str):
    """Like Django's SafeString."""


class Plain:
    pass


ADDRESS: Address = {"city": "Zürich", "since": date(2020, 2, 29)}
ORDER = Order(1, Decimal("10.50"), ADDRESS, {Colour.RED}, parent=Order(2, Decimal("0"), ADDRESS))


def error_of(value: object) -> str:
    with pytest.raises(PayloadError) as caught:
        encode(value, what="argument 'v' of shop.f")
    return str(caught.value)


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (None, None),
        (True, bool),
        (2**64 - 1, int),
        (-(2**63), int),
        ("naïve 🙂", str),
        (b"\x00\xff", bytes),
        (ORDER, Order),
        ([ORDER, None], list[Order | None]),
        (ADDRESS, Address),
        (Point(1, 2), Point),
        (Colour.BLUE, Colour),
        (Size.SMALL, Size),
        ({Colour.RED: [Size.SMALL]}, dict[Colour, list[Size]]),
        (datetime(2026, 3, 1, 12, 30, 1, 5, tzinfo=UTC), datetime),
        (date(2026, 3, 1), date),
        (time(23, 59, 59, 999999), time),
        (timedelta(days=-1, microseconds=1), timedelta),
        (Decimal("1.10"), Decimal),
        (UUID(int=7), UUID),
        ({1, 2}, set[int]),
        (frozenset({"a"}), frozenset[str]),
        ((1, "a"), tuple[int, str]),
        ((1, 2, 3), tuple[int, ...]),
        ({1: "a"}, dict[int, str]),
        ({"a": {"b": None}}, dict[str, dict[str, int | None] | None] | None),
        ("a", Literal["a", "b"]),
    ],
    ids=str,
)
def test_value_comes_back_as_its_annotated_type(value: object, annotation: Any) -> None:
    decoded = decode(encode(value, what="v"), annotation, what="v")

    assert decoded == value
    assert type(decoded) is type(value)


plain_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    lambda parts: (
        st.lists(parts)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), parts)
    ),
)


@given(plain_json)
def test_plain_data_without_annotation_comes_back_unchanged(value: object) -> None:
    assert decode(encode(value, what="v"), Any, what="v") == value


@given(st.one_of(st.datetimes(timezones=st.just(UTC)), st.timedeltas(), st.decimals(allow_nan=False), st.binary()))
def test_every_instant_duration_decimal_and_bytes_comes_back_exactly(value: object) -> None:
    assert decode(encode(value, what="v"), type(value), what="v") == value


@given(st.recursive(st.floats() | st.text() | st.integers(), lambda parts: st.lists(parts) | st.tuples(parts)))
def test_what_is_accepted_is_never_changed(value: object) -> None:
    try:
        data = encode(value, what="v")
    except PayloadError:
        return
    assert b"null" not in data or "null" in repr(value)
    assert encode(decode(data, Any, what="v"), what="v") == data


def test_payload_is_read_from_text_bytes_and_raw() -> None:
    assert (
        decode("[1]", list[int], what="v") == decode(b"[1]", list[int], what="v") == decode(Raw(b"[1]"), Any, what="v")
    )


def test_dictionary_keeps_the_order_of_its_keys() -> None:
    assert list(decode(encode({"b": 1, "a": 2}, what="v"), dict[str, int], what="v")) == ["b", "a"]


def test_subclass_of_str_is_stored_as_str() -> None:
    assert encode([SafeText("<b>")], what="v") == b'["<b>"]'


def test_text_that_looks_like_a_refused_value_is_accepted() -> None:
    value = ["null", "\\u0000", "9" * 40, None]

    assert decode(encode(value, what="v"), Any, what="v") == value


@pytest.mark.parametrize(
    ("value", "where", "reason"),
    [
        (math.nan, "the value", "is nan"),
        ([0.0, -math.inf], "[1]", "is -inf"),
        ({"a": (1, {"b": math.inf})}, "['a'][1]['b']", "is inf"),
        (Refund(math.nan), ".pk", "is nan"),  # type: ignore[arg-type]
        (Point(1, 2**64), ".y", "beyond 64 bits"),
        (-(2**63) - 1, "the value", "beyond 64 bits"),
        pytest.param(10**5000, "the value", "beyond 64 bits", id="5001 digits"),
        ({2**70: 1}, "[key 1180591620717411303424]", "beyond 64 bits"),
        ({"a\0": 1}, "[key 'a\\x00']", "NUL"),
        (["x", "a\0b"], "[1]", "NUL"),
        ({"s": {"\0"}}, "['s']{...}", "NUL"),
        ("\ud800", "the value", "lone surrogate"),
        ([{"k": "\udfff"}], "[0]['k']", "lone surrogate"),
    ],
)
def test_value_that_cannot_be_stored_faithfully_is_refused_with_place_and_reason(
    value: object, where: str, reason: str
) -> None:
    message = error_of(value)

    assert message.startswith(f"Cannot store argument 'v' of shop.f: {where} ")
    assert reason in message


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (Plain(), "test_payloads.Plain"),
        ([Plain()], "register_type()"),
        ({"c": (number for number in [1])}, "generator, which cannot be encoded as JSON; pass a list"),
        (Refund, "type"),
        ({(1, 2): 3}, "[key (1, 2)] is of type tuple"),
        ({None: 3}, "only text and number keys"),
        (1 + 2j, "complex"),
    ],
)
def test_object_that_json_cannot_express_is_refused_with_its_type(value: object, expected: str) -> None:
    assert expected in error_of(value)


def test_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)

    assert "contains itself or is nested too deeply" in error_of(loop)


def test_value_over_the_limit_is_refused_with_size_limit_and_setting() -> None:
    assert encode("x" * 8, what="v", limit=10) == b'"xxxxxxxx"'
    with pytest.raises(PayloadTooLarge, match=r"1,003 bytes .* limit of 1,000 .*MAX_PAYLOAD_BYTES"):
        encode("x" * 1001, what="v", limit=1000)


@pytest.mark.parametrize(
    ("data", "annotation", "expected"),
    [
        ('[1,"x"]', list[int], ["to list[int]", "Expected `int`, got `str`", "$[1]"]),
        ("{}", Refund, ["to ", "test_payloads.Refund", "missing required field `pk`"]),
        ('"green"', Colour, ["Invalid enum value 'green'"]),
        ("null", int, ["Expected `int`, got `null`"]),
        ("[1", Any, ["truncated"]),
        ("[" * 100_000, Any, ["nested too deeply"]),
    ],
)
def test_wrong_data_is_an_error_with_expected_found_and_where(data: str, annotation: Any, expected: list[str]) -> None:
    with pytest.raises(PayloadError) as caught:
        decode(data, annotation, what="the result of shop.f")

    assert all(part in str(caught.value) for part in ["the result of shop.f", *expected])


@pytest.mark.parametrize("annotation", [T, list[T], object, Callable[[], int], Iterable[int]], ids=str)  # type: ignore[valid-type]
def test_annotation_that_says_nothing_about_the_data_gives_plain_json(annotation: Any) -> None:
    assert decode("[1]", annotation, what="v") == [1]


@pytest.mark.parametrize(
    "annotation",
    [Plain, list[Plain], Plain | None, int | Plain, Order | Refund, collections.deque, type[int], datetime | str],
    ids=str,
)
def test_annotation_that_cannot_be_decoded_is_the_authors_mistake(annotation: Any) -> None:
    with pytest.raises(RegistrationError, match=r"the result of shop\.f is annotated .*, which cannot be decoded"):
        decode("1", annotation, what="the result of shop.f")


def test_enums_with_a_metaclass_of_their_own_round_trip() -> None:
    # What Django's TextChoices and IntegerChoices are.
    class Meta(enum.EnumMeta):
        pass

    class Status(str, enum.Enum, metaclass=Meta):  # noqa: UP042
        PAID = "paid"

    encoded = encode([Status.PAID], what="statuses")
    assert decode(encoded, list[Status], what="statuses") == [Status.PAID]
    with pytest.raises(PayloadError):
        decode(b'["lost"]', list[Status], what="statuses")
