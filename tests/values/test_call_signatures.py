"""A call is checked against the signature, stored, and read back to its annotations."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflows.exceptions import PayloadError, PayloadTooLarge, RegistrationError
from django_workflows.payloads import CallSignature

if typing.TYPE_CHECKING:
    from decimal import Context


def charge_card(order_id: int, cents: int, due: date | None = None, *, note: str = "") -> Receipt:
    raise NotImplementedError


def collect(first: date, /, *rest: date, key: int = 0, **named: date) -> None: ...


def forgiving(day: date = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013


def keyword_only(*, day: date) -> None: ...


def unannotated(value, other=None):  # type: ignore[no-untyped-def]
    return value


class Payments:
    def charge(self, order_id: int) -> str:
        raise NotImplementedError


class Gateway:
    pass


@dataclasses.dataclass
class Receipt:
    number: int


CHARGE = CallSignature.of(charge_card, name="shop.charge_card")
COLLECT = CallSignature.of(collect, name="shop.collect")


def stored_and_read(signature: CallSignature, *args: Any, **kwargs: Any) -> tuple[list[Any], dict[str, Any]]:
    return signature.decode_arguments(signature.encode_arguments(args, kwargs))


@pytest.mark.parametrize(
    ("args", "kwargs", "expected"),
    [
        ((), {}, "missing a required argument: 'order_id'"),
        ((1,), {}, "missing a required argument: 'cents'"),
        ((1, 2, None, 4), {}, "too many positional arguments"),
        ((1, 2), {"cent": 3}, "got an unexpected keyword argument 'cent'"),
        ((1, 2), {"cents": 3}, "multiple values for argument 'cents'"),
    ],
)
def test_call_that_does_not_fit_is_a_type_error_under_the_registered_name(
    args: tuple[Any, ...], kwargs: dict[str, Any], expected: str
) -> None:
    with pytest.raises(TypeError) as caught:
        CHARGE.encode_arguments(args, kwargs)

    assert str(caught.value) == f"shop.charge_card() {expected}"


def test_missing_keyword_only_argument_is_a_type_error() -> None:
    with pytest.raises(TypeError, match=r"shop\.k\(\) missing a required .*'day'"):
        CallSignature.of(keyword_only, name="shop.k").bind((), {})


def test_keyword_and_positional_spellings_of_a_call_are_stored_alike() -> None:
    positional = CHARGE.encode_arguments((17, 1200), {})

    assert positional == CHARGE.encode_arguments((17,), {"cents": 1200}) == b"[[17,1200],{}]"
    assert CHARGE.encode_arguments((), {"cents": 1200, "order_id": 17}) == positional


def test_arguments_come_back_as_their_annotated_types() -> None:
    day = date(2026, 3, 1)

    assert stored_and_read(CHARGE, 17, 1200) == ([17, 1200], {})
    assert stored_and_read(CHARGE, 17, 1200, day, note="n") == ([17, 1200, day], {"note": "n"})
    assert stored_and_read(CHARGE, 17, 1200, due=None) == ([17, 1200, None], {})
    assert stored_and_read(CallSignature.of(keyword_only, name="shop.k"), day=day) == ([], {"day": day})
    assert stored_and_read(CallSignature.of(unannotated, name="shop.u"), day) == (["2026-03-01"], {})


@given(
    st.lists(st.dates(), min_size=1),
    st.integers(0, 9),
    st.dictionaries(st.sampled_from(["first", "rest", "x"]), st.dates()),
)
def test_star_arguments_come_back_as_their_annotated_types(days: list[date], key: int, named: dict[str, date]) -> None:
    assert stored_and_read(COLLECT, *days, key=key, **named) == (days, {"key": key, **named})


def test_default_of_none_accepts_none() -> None:
    assert stored_and_read(CallSignature.of(forgiving, name="shop.f"), None) == ([None], {})


def test_self_is_left_out_of_a_methods_signature() -> None:
    signature = CallSignature.of(Payments.charge, name="shop.charge", skip_self=True)

    assert stored_and_read(signature, 17) == ([17], {})
    with pytest.raises(TypeError, match="too many positional"):
        signature.bind((Payments(), 17), {})


def test_annotation_may_name_a_class_defined_later() -> None:
    assert CHARGE.decode_result(CHARGE.encode_result(Receipt(3))) == Receipt(3)


def test_annotation_may_name_a_variable_of_the_enclosing_function() -> None:
    day_type = date

    def due(day: day_type) -> None:  # type: ignore[valid-type]
        assert isinstance(day, day_type)

    assert stored_and_read(CallSignature.of(due, name="shop.due"), date(2026, 3, 1)) == ([date(2026, 3, 1)], {})


@pytest.mark.parametrize(
    ("args", "kwargs", "parameter"),
    [
        ((1, float("nan")), {}, "cents"),
        ((1, Gateway()), {}, "cents"),
        ((1, 2, None), {"note": "a\0"}, "note"),
        ((2**64, None), {}, "order_id"),
    ],
)
def test_argument_that_cannot_be_stored_is_named(args: tuple[Any, ...], kwargs: dict[str, Any], parameter: str) -> None:
    with pytest.raises(PayloadError, match=rf"argument '{parameter}' of shop\.charge_card"):
        CHARGE.encode_arguments(args, kwargs)


def test_argument_that_contains_itself_is_named() -> None:
    loop: list[Any] = []
    loop.append(loop)

    with pytest.raises(PayloadError, match=r"argument 'cents' of shop\.charge_card: the list contains itself"):
        CHARGE.encode_arguments((1, loop), {})


def test_arguments_over_the_limit_are_refused() -> None:
    with pytest.raises(PayloadTooLarge, match=r"the arguments of shop\.charge_card: .* limit of 10 bytes"):
        CHARGE.encode_arguments((17, 1200), {}, limit=10)


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ('[[1,"x"],{}]', "argument 'cents' of shop.charge_card to int: Expected `int`, got `str`"),
        ('[[1,2],{"note":3}]', "argument 'note' of shop.charge_card to str: Expected `str`, got `int`"),
        ("[[1],{}]", "do not fit shop.charge_card(order_id: 'int'"),
        ('[[1,2],{"renamed":3}]', "unexpected keyword argument 'renamed'"),
        ("{}", "Cannot decode the arguments of shop.charge_card"),
    ],
)
def test_stored_call_that_does_not_fit_the_function_any_more_is_an_error(data: str, expected: str) -> None:
    with pytest.raises(PayloadError) as caught:
        CHARGE.decode_arguments(data)

    assert expected in str(caught.value)


def test_wrong_result_is_an_error_that_names_the_function() -> None:
    with pytest.raises(
        PayloadError, match=r"the result of shop\.charge_card to .*Receipt: Expected `object`, got `int`"
    ):
        CHARGE.decode_result("3")
    with pytest.raises(PayloadError, match=r"the result of shop\.charge_card: the value is of type .*Gateway"):
        CHARGE.encode_result(Gateway())


def takes_gateway(gateway: Gateway) -> None: ...


def returns_gateway() -> Gateway | None: ...


def unresolved(context: Context) -> None: ...


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (takes_gateway, r"Parameter 'gateway' of shop\.f is annotated .*Gateway"),
        (returns_gateway, r"The result of shop\.f is annotated .*Gateway \| None"),
        (unresolved, r"annotations of shop\.f.* name 'Context' is not defined\. Import .* TYPE_CHECKING"),
    ],
)
def test_annotation_that_cannot_be_used_is_named_at_the_first_call(function: Callable[..., Any], expected: str) -> None:
    signature = CallSignature.of(function, name="shop.f")

    with pytest.raises(RegistrationError, match=expected):
        signature.encode_arguments([None] * len(signature.signature.parameters), {})
    with pytest.raises(RegistrationError, match=expected):
        signature.check()
