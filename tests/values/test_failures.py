"""An exception is stored as JSON and arrives elsewhere as itself where that is safe."""

from __future__ import annotations

import asyncio
import sys
import traceback
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_workflows.exceptions import ActivityError
from django_workflows.failures import Failure, RemoteTraceback, find_class


class CardDeclined(Exception):
    def __init__(self, code: int, reason: str) -> None:
        super().__init__(f"declined: {code}")
        self.code = code
        self.reason = reason


class NeedsObject(Exception):
    def __init__(self, thing: object) -> None:
        super().__init__(f"needs {thing}")
        self.thing = thing


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError

    __repr__ = __str__


class Model:
    class DoesNotExist(Exception):
        pass


def raised(function: Callable[[], Any]) -> BaseException:
    try:
        function()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing raised")


def stored(exc: BaseException) -> Failure:
    return Failure.decode(Failure.of(exc).encode())


def rebuilt(exc: BaseException) -> BaseException:
    return stored(exc).rebuild()


def fail(exc: BaseException, cause: BaseException | None = None) -> None:
    raise exc from cause


@pytest.mark.parametrize(
    "exc",
    [
        ValueError("no such order", 17),
        KeyError("x"),
        Model.DoesNotExist("no order"),
        FileNotFoundError(2, "No such file"),
        TimeoutError(),
        LookupError(["a"], {"b": None}, 1.5),
        asyncio.CancelledError("stop"),
    ],
    ids=repr,
)
def test_exception_with_json_arguments_arrives_as_itself(exc: BaseException) -> None:
    other = rebuilt(exc)

    assert type(other) is type(exc)
    assert other.args == exc.args
    assert str(other) == str(exc)


def test_exception_with_its_own_constructor_arrives_with_its_attributes() -> None:
    other = rebuilt(CardDeclined(51, "insufficient funds"))

    assert isinstance(other, CardDeclined)
    assert (other.code, other.reason, str(other)) == (51, "insufficient funds", "declined: 51")


def test_notes_arrive() -> None:
    exc = ValueError("x")
    exc.add_note("while shipping")

    assert rebuilt(exc).__notes__ == ["while shipping"]


@given(st.lists(st.recursive(st.text() | st.integers() | st.none(), lambda part: st.lists(part), max_leaves=5)))
def test_every_failure_can_be_stored_as_text_without_nul_and_surrogates(args: list[Any]) -> None:
    text = Failure.of(ValueError(*args)).encode().decode()

    assert "\\u0000" not in text.replace("\\\\", "")
    assert Failure.decode(text).encode().decode() == text


@pytest.mark.parametrize(
    "exc",
    [ValueError(Decimal(1)), ValueError((1, 2)), ValueError(2**70), ValueError(float("nan")), NeedsObject(3j)],
    ids=repr,
)
def test_exception_that_json_would_change_arrives_as_activity_error(exc: Exception) -> None:
    other = rebuilt(exc)

    assert isinstance(other, ActivityError)
    assert other.type.endswith(type(exc).__name__)
    assert other.message == str(exc)


def test_unknown_class_arrives_as_activity_error_and_nothing_is_imported() -> None:
    failure = Failure(type="this.module.is.not.there.Oops", message="broken", args=["broken"], traceback="Trace\n")

    other = failure.rebuild()

    assert isinstance(other, ActivityError)
    assert (other.type, other.message, other.traceback) == ("this.module.is.not.there.Oops", "broken", "Trace\n")
    assert "antigravity" not in sys.modules
    assert isinstance(Failure(type="antigravity.Oops", message="", args=[]).rebuild(), ActivityError)
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    "name", ["subprocess.Popen", "os.system", "builtins.SystemExit", "builtins.KeyboardInterrupt", "x"]
)
def test_only_exceptions_are_ever_called(name: str) -> None:
    assert isinstance(Failure(type=name, message="m", args=["exit 1"]).rebuild(), ActivityError)


def test_looking_for_a_class_runs_no_module_getattr(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lazy(ModuleType):
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"looked up {name}")

    monkeypatch.setitem(sys.modules, "lazy_module", Lazy("lazy_module"))

    assert find_class("lazy_module.Oops") is None


def test_class_of_a_function_arrives_as_activity_error() -> None:
    class Local(Exception):
        pass

    assert isinstance(rebuilt(Local("x")), ActivityError)


def test_causes_arrive_and_the_last_is_the_remote_traceback() -> None:
    exc = raised(lambda: fail(CardDeclined(1, "r"), raised(lambda: fail(KeyError("k")))))

    other = rebuilt(exc)

    assert isinstance(other.__cause__, KeyError)
    assert isinstance(other.__cause__.__cause__, RemoteTraceback)
    printed = "".join(traceback.format_exception(other))
    assert printed.count("in fail") == 2
    assert "CardDeclined: declined: 1" in printed


def test_exception_being_handled_is_kept_as_cause_unless_suppressed() -> None:
    def handle(suppress: bool) -> None:
        try:
            fail(KeyError("first"))
        except KeyError:
            if suppress:
                raise ValueError("second") from None
            raise ValueError("second")  # noqa: B904

    assert isinstance(rebuilt(raised(lambda: handle(False))).__cause__, KeyError)
    assert isinstance(rebuilt(raised(lambda: handle(True))).__cause__, RemoteTraceback)


def test_circular_and_endless_chains_end() -> None:
    first, second = ValueError("1"), ValueError("2")
    first.__cause__, second.__cause__ = second, first
    chain = ValueError("0")
    for number in range(2000):
        following = ValueError(number)
        following.__cause__ = chain
        chain = following

    assert stored(first).cause is not None
    assert len(Failure.of(chain).encode()) < 50_000


def test_members_of_a_group_arrive() -> None:
    group = ExceptionGroup("many", [CardDeclined(1, "a"), ExceptionGroup("inner", [ValueError(2)])])

    other = rebuilt(raised(lambda: fail(group)))

    assert isinstance(other, ExceptionGroup)
    assert other.message == "many"
    assert other.subgroup(CardDeclined) is not None
    assert other.subgroup(ValueError) is not None
    assert "declined: 1" in str(other.__cause__)


def test_failure_keeps_its_size_whatever_the_exception() -> None:
    huge = "\x01" * 100_000
    group = BaseExceptionGroup(huge, [raised(lambda: fail(CardDeclined(1, huge))) for _ in range(500)])

    failure = Failure.of(group)

    assert len(failure.encode()) < 1_000_000
    assert "exceptions in this group are not stored" in failure.traceback


def test_long_traceback_keeps_its_end() -> None:
    text = Failure.of(raised(lambda: fail(ValueError("x" * 3000))), max_traceback=500).traceback

    assert "characters left out" in text
    assert len(text) < 600


def test_traceback_leaves_out_the_frames_of_the_engine() -> None:
    engine: dict[str, Any] = {"__name__": "django_workflows.engine.machine"}
    exec(compile("def step(function):\n    function()\n", "engine.py", "exec"), engine)

    text = Failure.of(raised(lambda: engine["step"](lambda: fail(ValueError("x"))))).traceback

    assert "in fail" in text
    assert "engine.py" not in text


def test_traceback_of_an_engine_error_keeps_its_frames() -> None:
    engine: dict[str, Any] = {"__name__": "django_workflows.engine.machine"}
    exec(compile("def step():\n    try: 1 / 0\n    except Exception as e: return e\n", "engine.py", "exec"), engine)

    assert "engine.py" in Failure.of(engine["step"]()).traceback


def test_exception_that_cannot_be_printed_is_stored() -> None:
    failure = stored(raised(lambda: fail(Unprintable("x"))))

    assert "cannot be shown" in failure.message
    assert isinstance(failure.rebuild(), Unprintable)


def test_failure_that_travels_on_keeps_its_first_traceback_once() -> None:
    first = rebuilt(raised(lambda: fail(ValueError("x"))))

    second = rebuilt(raised(lambda: fail(first, first.__cause__)))

    assert isinstance(second, ValueError)
    assert isinstance(second.__cause__, RemoteTraceback)
    assert second.__cause__.__cause__ is None
    assert second.__cause__.text.count("ValueError: x") == 2


def test_unknown_failure_that_travels_on_keeps_its_original_type() -> None:
    other = rebuilt(rebuilt(NeedsObject(3j)))

    assert isinstance(other, ActivityError)
    assert other.type.endswith("NeedsObject")


def test_non_retryable_mark_is_stored() -> None:
    assert Failure.decode(Failure.of(ValueError(), non_retryable=True).encode()).non_retryable
    assert not stored(ValueError()).non_retryable


class Busy(Exception):
    def __init__(self, code: int, delay: timedelta) -> None:
        super().__init__(f"busy: {code}")
        self.next_retry_delay = delay
        self.non_retryable = True


def test_what_an_exception_says_about_retries_is_stored_with_it() -> None:
    failure = Failure.decode(Failure.of(Busy(429, timedelta(seconds=30))).encode())

    assert failure.non_retryable
    rebuilt = failure.rebuild()
    assert isinstance(rebuilt, Busy) and rebuilt.next_retry_delay == 30.0  # type: ignore[comparison-overlap]
