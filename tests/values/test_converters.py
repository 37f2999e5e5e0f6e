"""Values of registered types survive storage wherever they stand, and registering is refused where it cannot work."""

from __future__ import annotations

import collections
import dataclasses
import enum
import uuid
from collections.abc import Iterator
from typing import Any, Generic, NamedTuple, TypedDict, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflows import PayloadError, RegistrationError, register_type
from django_workflows.payloads import CallSignature, decode, encode

T = TypeVar("T")


class Money:
    def __init__(self, cents: int, currency: str) -> None:
        self.cents = cents
        self.currency = currency

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Money) and (self.cents, self.currency) == (other.cents, other.currency)

    def __hash__(self) -> int:
        return hash((self.cents, self.currency))


def money_from(cls: type[Money], data: Any) -> Money:
    return cls(data["cents"], data["currency"])


register_type(Money, encode=vars, decode=money_from)


class Discount(Money):
    """Not registered: its base is registered without its subclasses."""


class Shape:
    def __init__(self, size: int = 1) -> None:
        self.size = size

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]


class Circle(Shape):
    pass


class Square(Circle):
    pass


register_type(Shape, encode=lambda shape: shape.size, decode=lambda cls, size: cls(size), subclasses=True)
register_type(Square, encode=lambda square: {"side": square.size}, decode=lambda cls, data: cls(data["side"]))


class Slug(str):
    """A subclass of a type that JSON has."""


register_type(Slug, encode=lambda slug: f"slug:{slug}", decode=lambda cls, text: cls(text.removeprefix("slug:")))


class Box(Generic[T]):
    def __init__(self, content: T) -> None:
        self.content = content


register_type(Box, encode=lambda box: [box.content], decode=lambda cls, data: cls(data[0]))


@dataclasses.dataclass
class Line:
    price: Money
    extras: list[Money | None]
    by_name: dict[str, Money]
    slug: Slug | None = None


class Basket(TypedDict):
    total: Money


class Pair(NamedTuple):
    left: Money
    right: Money


MONEY = Money(1250, "CHF")


def round_trip(value: object, annotation: Any) -> Any:
    return decode(encode(value, what="v"), annotation, what="v")


moneys = st.builds(Money, st.integers(-(2**63), 2**63), st.text(st.characters(exclude_categories=["Cs", "Cc"])))


@given(moneys)
def test_a_value_of_a_registered_type_comes_back(money: Money) -> None:
    assert round_trip(money, Money) == money
    assert round_trip(money, Any) == vars(money)


@given(
    st.builds(
        Line,
        moneys,
        st.lists(moneys | st.none()),
        st.dictionaries(st.text(st.characters(exclude_categories=["Cs", "Cc"])), moneys),
        st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc"])).map(Slug),
    )
)
def test_it_comes_back_inside_of_others(line: Line) -> None:
    assert round_trip(line, Line) == line
    assert round_trip([line, None], list[Line | None]) == [line, None]


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (None, Money | None),
        ({MONEY}, set[Money]),
        ((MONEY, 1), tuple[Money, int]),
        ({"total": MONEY}, Basket),
        (Pair(MONEY, MONEY), Pair),
        ({Slug("a"): MONEY}, dict[Slug, Money]),
        ([[MONEY]], list[list[Money]]),
    ],
    ids=["optional", "set", "tuple", "typed dict", "named tuple", "key", "list"],
)
def test_it_comes_back_wherever_it_stands(value: object, annotation: Any) -> None:
    assert round_trip(value, annotation) == value


def test_the_hook_of_a_class_counts_before_what_it_derives_from() -> None:
    assert encode([Slug("a")], what="v") == b'["slug:a"]'
    assert type(round_trip(Slug("a"), Slug)) is Slug


def test_subclasses_come_back_as_the_annotated_class() -> None:
    assert round_trip(Circle(3), Circle) == Circle(3)
    assert round_trip([Circle(3)], list[Shape]) == [Shape(3)]


def test_the_nearest_registered_base_counts() -> None:
    assert encode(Square(2), what="v") == b'{"side":2}'
    assert round_trip(Square(2), Square) == Square(2)


def test_a_generic_class_is_decoded_with_its_arguments() -> None:
    box = round_trip(Box(3), Box[int])

    assert (type(box), box.content) == (Box, 3)


def test_a_subclass_is_refused_where_only_its_base_is_registered() -> None:
    with pytest.raises(PayloadError, match=r"\[0\] is of type .*Discount, which cannot be encoded"):
        encode([Discount(1, "CHF")], what="v")
    with pytest.raises(RegistrationError, match=r"Discount has no JSON form"):
        decode("1", Discount, what="v")


def test_what_is_stored_is_checked_like_any_other_value() -> None:
    with pytest.raises(PayloadError, match=r"\[1\]\['currency'\] contains a NUL .*\(in what is stored of .*Money\)"):
        encode([None, Money(1, "a\0")], what="v")
    with pytest.raises(PayloadError, match=r"\['cents'\] is nan"):
        encode(Money(float("nan"), ""), what="v")  # type: ignore[arg-type]


class Broken:
    pass


class Endless:
    pass


def refuse(value: object) -> None:
    raise KeyError("no gateway")


register_type(Broken, encode=refuse, decode=lambda cls, data: cls())
register_type(Endless, encode=lambda value: value, decode=lambda cls, data: cls())


def charge(prices: list[Money], note: Any = None) -> Money: ...


CHARGE = CallSignature.of(charge, name="shop.charge")


def test_a_hook_that_fails_to_encode_is_told_with_parameter_type_and_place() -> None:
    with pytest.raises(PayloadError, match=r"argument 'note' of shop\.charge: \[1\] is of type .*Broken, .*no gateway"):
        CHARGE.encode_arguments(([MONEY], [1, Broken()]), {})
    with pytest.raises(PayloadError, match=r"argument 'note' of shop\.charge: the .*Endless contains itself"):
        CHARGE.encode_arguments(([MONEY], Endless()), {})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ('[[[{"cents":1}]],{}]', r"KeyError: 'currency' - at `\$\[0\]`"),
        ("[[[3]],{}]", r"not subscriptable - at `\$\[0\]`"),
    ],
)
def test_a_hook_that_fails_to_decode_is_told_with_parameter_type_and_place(data: str, reason: str) -> None:
    with pytest.raises(PayloadError, match=rf"argument 'prices' of shop\.charge to list\[.*Money\]: .*{reason}"):
        CHARGE.decode_arguments(data)


class Liar:
    pass


register_type(Liar, encode=lambda value: 1, decode=lambda cls, data: data)


def test_a_hook_that_returns_another_type_is_told() -> None:
    with pytest.raises(PayloadError, match=r"Expected `.*Liar`, got `int`"):
        decode("1", Liar, what="v")


# Registering


class Colour(enum.Enum):
    RED = 1


class Tags(list[str]):
    pass


class Token(uuid.UUID):
    pass


@pytest.mark.parametrize("cls", [int, dict, Line, Pair, Colour, Tags, Token, collections.OrderedDict, str | None, 3])
def test_a_type_that_is_stored_without_a_hook_is_refused(cls: Any) -> None:
    with pytest.raises(RegistrationError, match=r"register_type\(.*expected a class"):
        register_type(cls, encode=vars, decode=lambda cls, data: None)


def test_a_type_is_registered_once() -> None:
    with pytest.raises(RegistrationError, match=r"Money\): expected a new class"):
        register_type(Money, encode=str, decode=money_from)
    register_type(Money, encode=vars, decode=money_from)  # the same again, as a second import would
    assert round_trip(MONEY, Money) == MONEY


class Late(Shape):
    pass


class Unknown:
    pass


def test_a_registration_that_comes_too_late_is_refused() -> None:
    decode("[1]", list[Late], what="v")

    with pytest.raises(RegistrationError, match=r"Late\): .*Late was used in an annotation before"):
        register_type(Late, encode=vars, decode=lambda cls, data: cls())


def test_it_is_refused_for_a_base_whose_subclass_was_used() -> None:
    class Base:
        pass

    class Used(Base):
        pass

    register_type(Used, encode=vars, decode=lambda cls, data: cls())
    decode("{}", Used | None, what="v")

    with pytest.raises(RegistrationError, match=r"Used was used in an annotation before"):
        register_type(Base, encode=vars, decode=lambda cls, data: cls(), subclasses=True)
    register_type(Base, encode=vars, decode=lambda cls, data: cls())


def test_a_type_that_was_refused_can_be_registered_then() -> None:
    signature = CallSignature.of(takes_unknown, name="shop.takes")
    with pytest.raises(RegistrationError, match=r"Parameter 'value' of shop\.takes .*register_type\(\)"):
        signature.check()
    with pytest.raises(PayloadError):
        encode(Unknown(), what="v")

    register_type(Unknown, encode=vars, decode=lambda cls, data: cls())

    assert isinstance(signature.decode_arguments(signature.encode_arguments((Unknown(),), {}))[0][0], Unknown)


def takes_unknown(value: Unknown) -> Iterator[Unknown]: ...
