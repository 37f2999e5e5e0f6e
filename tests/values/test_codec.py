"""Another codec stores and reads every payload, and cannot store what a database or a history cannot hold."""

from __future__ import annotations

import base64
import dataclasses
import json
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflows import PayloadError, PayloadTooLarge, payloads
from django_workflows.codec import Codec, JSONCodec
from django_workflows.payloads import CallSignature, Raw, decode, encode


class Sealed:
    """Stores everything as one JSON text that nobody can read."""

    def __init__(self) -> None:
        self.inner = JSONCodec()

    def encode(self, value: object) -> str:
        return json.dumps(base64.b85encode(self.inner.encode(value).encode()).decode())

    def decode(self, text: str, annotation: Any) -> Any:
        return self.inner.decode(base64.b85decode(json.loads(text)).decode(), annotation)


class Standard:
    """The json module, as it is."""

    def encode(self, value: object) -> str:
        return json.dumps(value, ensure_ascii=False)

    def decode(self, text: str, annotation: Any) -> Any:
        return json.loads(text)


class Fixed(Standard):
    def __init__(self, text: Any) -> None:
        self.text = text

    def encode(self, value: object) -> str:
        return self.text  # type: ignore[no-any-return]


@dataclasses.dataclass
class Receipt:
    number: int
    paid: date


def charge(order_id: int, due: date | None = None, *rest: date, note: str = "", **more: date) -> Receipt: ...


DAY = date(2026, 3, 1)


@pytest.fixture(autouse=True)
def own_codec_afterwards() -> Iterator[None]:
    yield
    payloads.use_codec(None)


def signature_with(codec: Codec | None) -> CallSignature:
    payloads.use_codec(codec)
    return CallSignature.of(charge, name="shop.charge")


@given(st.integers(-(2**63), 2**63), st.none() | st.dates(), st.lists(st.dates()), st.text("aé'\"\\"))
def test_arguments_come_back_through_another_codec(number: int, due: Any, rest: list[date], note: str) -> None:
    signature = signature_with(Sealed())
    data = signature.encode_arguments((number, due, *rest), {"note": note, "extra": DAY})

    assert signature.decode_arguments(data) == ([number, due, *rest], {"note": note, "extra": DAY})
    assert b"2026-03-01" not in data


def test_results_and_other_values_come_back_through_another_codec() -> None:
    signature = signature_with(Sealed())
    receipt = Receipt(3, DAY)
    data = signature.encode_result(receipt)

    assert data.startswith(b'"')
    assert signature.decode_result(data) == signature.decode_result(Raw(data)) == receipt
    assert decode(encode([receipt], what="v"), list[Receipt], what="v") == [receipt]


def test_the_frame_of_a_call_stays_plain_json() -> None:
    args, kwargs = json.loads(signature_with(Sealed()).encode_arguments((1, DAY), {"note": "n"}))

    assert (len(args), list(kwargs)) == (2, ["note"])


def test_a_signature_that_was_used_before_follows_the_codec() -> None:
    signature = signature_with(None)
    plain = signature.encode_arguments((1,), {}), signature.encode_result(Receipt(3, DAY))

    payloads.use_codec(Sealed())
    sealed = signature.encode_arguments((1,), {}), signature.encode_result(Receipt(3, DAY))
    assert signature.decode_arguments(sealed[0]) == ([1], {})
    assert signature.decode_result(sealed[1]) == Receipt(3, DAY)

    payloads.use_codec(None)
    assert signature.decode_arguments(plain[0]) == ([1], {})
    assert signature.decode_result(plain[1]) == Receipt(3, DAY)


def test_a_codec_may_ignore_annotations() -> None:
    signature = signature_with(Standard())

    assert signature.decode_result(signature.encode_result([1, "é"])) == [1, "é"]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ({"a": float("nan")}, r"made no JSON of the dict"),
        (["x", "a\0b"], r"returned JSON in which \[1\] contains a NUL character"),
        ("\ud800", r"surrogates not allowed"),
        ({1, 2}, r"Standard made no JSON of the set: Object of type set is not JSON serializable"),
    ],
)
def test_what_no_database_holds_is_refused_with_another_codec(value: object, reason: str) -> None:
    signature = signature_with(Standard())

    with pytest.raises(PayloadError, match=rf"Cannot store argument 'order_id' of shop\.charge: .*{reason}"):
        signature.encode_arguments((value,), {})
    with pytest.raises(PayloadError, match=rf"Cannot store the result of shop\.charge: .*{reason}"):
        signature.encode_result(value)


@pytest.mark.parametrize("text", ["NaN", "[1", "", b"1", None, '"\\ud800"', "[1] 2"])
def test_a_codec_that_returns_no_json_is_refused(text: object) -> None:
    payloads.use_codec(Fixed(text))

    with pytest.raises(PayloadError, match=r"Cannot store v: .*Fixed made no JSON of the int"):
        encode(1, what="v")


def test_the_reason_of_our_codec_is_told_through_one_that_builds_on_it() -> None:
    payloads.use_codec(Sealed())

    with pytest.raises(PayloadError, match=r"^Cannot store v: \[1\] is nan, which JSON cannot express"):
        encode([0, float("nan")], what="v")
    with pytest.raises(PayloadError, match=r"^Cannot store v: the value is of type complex"):
        encode(1j, what="v")


def test_the_limit_holds_for_what_another_codec_returns() -> None:
    signature = signature_with(Fixed('"' + "x" * 1000 + '"'))

    with pytest.raises(PayloadTooLarge, match=r"the arguments of shop\.charge: 1,009 bytes"):
        signature.encode_arguments((1,), {}, limit=1000)
    with pytest.raises(PayloadTooLarge, match=r"1,002 bytes"):
        signature.encode_result(1, limit=1000)


def test_names_of_arguments_are_checked_with_another_codec() -> None:
    for codec in (Sealed(), None):
        with pytest.raises(PayloadError, match=r"the names of the arguments of shop\.charge: \[0\] contains a NUL"):
            signature_with(codec).encode_arguments((1,), {"a\0": DAY})


def test_what_another_codec_cannot_read_is_a_payload_error() -> None:
    signature = signature_with(Sealed())

    with pytest.raises(PayloadError, match=r"Cannot decode argument 'order_id' of shop\.charge to int"):
        signature.decode_arguments("[[17],{}]")
    with pytest.raises(PayloadError, match=r"Cannot decode the result of shop\.charge to .*Receipt"):
        signature.decode_result('"*"')
