"""pydantic models survive storage as they are declared, and what they refuse is told with the parameter."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, RootModel, computed_field, field_validator
from pydantic.dataclasses import dataclass as pydantic_dataclass

from django_workflows import PayloadError
from django_workflows.payloads import CallSignature, decode, encode

T = TypeVar("T")


class Line(BaseModel):
    sku: str
    count: Annotated[int, Field(gt=0)] = 1


class Order(BaseModel):
    lines: list[Line]
    total: Decimal
    due: date | None = None
    tags: set[str] = set()

    @field_validator("total")
    @classmethod
    def is_positive(cls, total: Decimal) -> Decimal:
        if total < 0:
            raise ValueError("must not be negative")
        return total


class Awkward(BaseModel):
    """Strict, closed, with aliases and a computed field: what a plain dump would not be read back from."""

    model_config = ConfigDict(strict=True, extra="forbid")
    when: date = Field(alias="When")
    count: int = Field(validation_alias=AliasChoices("n", "number"), serialization_alias="Count")

    @computed_field  # type: ignore[prop-decorator]
    @property
    def double(self) -> int:
        return 2 * self.count


class Names(RootModel[list[str]]):
    pass


class Page(BaseModel, Generic[T]):
    items: list[T]


class Measured(BaseModel):
    value: float


@pydantic_dataclass
class Parcel:
    line: Line
    weight: Annotated[int, Field(gt=0)] = 1


@dataclasses.dataclass
class Delivery:
    orders: dict[str, Order]
    parcel: Parcel | None = None


text = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
lines = st.builds(Line, sku=text, count=st.integers(1, 2**63))
orders = st.builds(
    Order,
    lines=st.lists(lines),
    total=st.decimals(0, allow_nan=False, allow_infinity=False),
    due=st.none() | st.dates(),
    tags=st.sets(text),
)


def round_trip(value: object, annotation: Any) -> Any:
    return decode(encode(value, what="v"), annotation, what="v")


@given(orders)
def test_a_model_comes_back(order: Order) -> None:
    assert round_trip(order, Order) == order
    assert round_trip([order, None], list[Order | None]) == [order, None]


@given(st.builds(Delivery, st.dictionaries(text, orders), st.none() | st.builds(Parcel, lines, st.integers(1, 9))))
def test_a_model_comes_back_inside_of_dataclasses(delivery: Delivery) -> None:
    assert round_trip(delivery, Delivery) == delivery


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        (Awkward(When=date(2026, 3, 1), n=3), Awkward),
        (Names(["a", "b"]), Names),
        (Page[Line](items=[Line(sku="a")]), Page[Line]),
        (Parcel(Line(sku="a"), 2), Parcel),
    ],
    ids=repr,
)
def test_every_kind_of_model_comes_back(value: object, annotation: Any) -> None:
    decoded = round_trip(value, annotation)

    assert decoded == value
    assert type(decoded) is type(value)


def test_a_model_without_annotation_comes_back_as_plain_data() -> None:
    assert round_trip(Line(sku="a"), Any) == {"sku": "a", "count": 1}


def place(order: Order, note: str = "") -> Order: ...


PLACE = CallSignature.of(place, name="shop.place")


def test_what_a_model_refuses_is_told_with_parameter_and_fields() -> None:
    stored = '[[{"lines":[{"sku":"a","count":0}],"total":"-1"}],{}]'

    with pytest.raises(PayloadError) as caught:
        PLACE.decode_arguments(stored)

    assert str(caught.value) == (
        "Cannot decode argument 'order' of shop.place to tests.values.test_pydantic.Order: "
        "lines.0.count: Input should be greater than 0; total: Value error, must not be negative."
    )


def test_a_missing_field_of_a_nested_model_is_told_with_its_place() -> None:
    with pytest.raises(PayloadError, match=r"sku: Field required - at `\$\.line`"):
        decode('{"line":{}}', Parcel, what="v")


def test_what_cannot_be_stored_of_a_model_is_refused() -> None:
    with pytest.raises(PayloadError, match=r"\['value'\] is nan, .*\(in what is stored of .*Measured\)"):
        encode(Measured(value=float("nan")), what="v")
    with pytest.raises(
        PayloadError, match=r"argument 'order' of shop\.place: \['lines'\]\[0\]\['sku'\] contains a NUL"
    ):
        PLACE.encode_arguments((Order(lines=[Line(sku="\0")], total=Decimal(1)),), {})


def test_nothing_imports_pydantic() -> None:
    code = "import sys, django_workflows; from django_workflows.payloads import encode; "
    code += "class_ = type('Plain', (), {})\ntry: encode(class_(), what='v')\nexcept ValueError: pass\n"
    code += "print('pydantic' in sys.modules)"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
