"""Model objects through workflows, activities and signals: named where they are stored, fetched where they are used."""

from __future__ import annotations

import dataclasses
import json
import uuid
from datetime import date
from functools import partial
from typing import Any

import pytest
from asgiref.sync import SyncToAsync, async_to_sync
from django.db import connection
from django.db.models.signals import post_init
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils.functional import SimpleLazyObject

from django_workflows import (
    NotAllowedInWorkflowError,
    ObjectNotFound,
    PayloadError,
    RetryPolicy,
    Signal,
    WorkflowFailed,
    activity,
    get_handle,
    workflow,
    workflow_of,
)
from django_workflows.model_objects import fetched
from django_workflows.models import WorkflowInstance
from django_workflows.payloads import decode, encode
from django_workflows.testing import running_worker
from django_workflows.worker.worker import Worker
from tests.testapp.models import Booking, Customer, Effect, Place, RegularCustomer, Restaurant, Ticket

from .samples import echo

FOR_EVER = RetryPolicy(max_attempts=None)


@dataclasses.dataclass
class Party:
    host: Customer
    guests: list[Customer]
    place: Place | None = None


@activity(name="objects.visit", retry=FOR_EVER)
def visit(customer: Customer) -> Customer:
    Effect.objects.create(key=f"visit {customer.pk}")
    customer.visits += 1
    customer.save()
    return customer


@activity(name="objects.async_visit", retry=FOR_EVER)
async def async_visit(customer: Customer) -> Customer:
    customer.visits += 1
    await customer.asave()
    return customer


@activity(name="objects.atomic_visit", atomic=True, retry=FOR_EVER)
def atomic_visit(customer: Customer) -> Customer:
    customer.visits += 1
    customer.save()
    return customer


VISITS = {"sync": visit, "async": async_visit, "atomic": atomic_visit}
kinds = pytest.mark.parametrize("kind", VISITS)


@workflow(name="objects.visit_thrice")
async def visit_thrice(customer: Customer, kind: str) -> Customer:
    same = customer
    for _ in range(3):
        same = await VISITS[kind](same)
    assert same == customer
    return same


@activity(name="objects.seat")
def seat(party: Party) -> str:
    guests = [guest.name for guest in party.guests]
    return f"{party.host.name} with {guests} at {party.place and party.place.name}"


@workflow(name="objects.invite")
async def invite(host: Customer, guests: list[Customer], place: Place | None) -> str:
    return await seat(Party(host, guests, place))


come = Signal("come", Customer)


@workflow(name="objects.wait_for_customer")
async def wait_for_customer() -> Customer:
    return await visit(await come.receive())


@workflow(name="objects.look_inside")
async def look_inside(customer: Customer) -> str:
    return customer.name


@workflow(name="objects.pass_by")
async def pass_by(customer: Customer | None, kind: str) -> dict[str, Any] | None:
    assert customer is not None
    try:
        await VISITS[kind](customer)
    except ObjectNotFound as gone:
        return {"label": gone.label, "pk": gone.pk, "text": str(gone)}
    return None


@pytest.fixture
def ada(transactional_db: None) -> Customer:
    return Customer.objects.create(name="Ada")


@kinds
def test_model_object_is_stored_as_label_and_key_and_fetched_where_it_is_used(
    worker: Worker, ada: Customer, kind: str
) -> None:
    handle = visit_thrice.start(ada, kind)
    result = handle.result(timeout=20)

    assert (result, result.name, result.visits) == (ada, "Ada", 3)
    assert not result.get_deferred_fields()
    row = handle.describe()
    assert json.loads(row.input) == [[["testapp.customer", ada.pk], kind], {}]
    assert json.loads(row.result or "") == ["testapp.customer", ada.pk]


def test_async_result_is_fetched_too(worker: Worker, ada: Customer) -> None:
    assert async_to_sync(visit_thrice.start(ada, "async").aresult)(timeout=20).visits == 3


def test_model_objects_are_passed_inside_of_others(worker: Worker, ada: Customer) -> None:
    bob = Customer.objects.create(name="Bob")
    restaurant = Restaurant.objects.create(name="Ritz")

    assert invite.start(ada, [bob, ada], restaurant).result(timeout=20) == "Ada with ['Bob', 'Ada'] at Ritz"
    assert invite.start(ada, [], None).result(timeout=20) == "Ada with [] at None"


def test_model_object_is_a_signal_value(worker: Worker, ada: Customer) -> None:
    handle = wait_for_customer.start()
    handle.signal(come, ada)

    assert handle.result(timeout=20).visits == 1


def test_signal_of_another_model_is_skipped(worker: Worker, ada: Customer) -> None:
    handle = wait_for_customer.start()
    handle.signal("come", Place.objects.create(name="Ritz"))
    handle.signal(come, ada)

    assert handle.result(timeout=20) == ada


@workflow(name="objects.table")
class Table:
    def __init__(self) -> None:
        self.guests: list[Customer] = []

    async def run(self, size: int) -> int:
        await workflow.wait_condition(lambda: len(self.guests) == size)
        return size

    @workflow.update
    async def sit(self, guest: Customer) -> Customer:
        self.guests.append(guest)
        return await visit(guest)

    @workflow.query
    def seated(self, at_least: Customer | None = None) -> list[Customer]:
        return self.guests if at_least is None or at_least in self.guests else []


def test_updates_and_queries_take_and_give_model_objects(worker: Worker, ada: Customer) -> None:
    bob = Customer.objects.create(name="Bob")
    handle = workflow_of(Table).start(2)
    first = handle.update(Table.sit, ada)
    second = async_to_sync(handle.aupdate)(Table.sit, bob)
    seated = handle.query(Table.seated, ada)

    assert (first, second, seated) == (ada, bob, [ada, bob])
    assert [customer.get_deferred_fields() for customer in (first, second, *seated)] == [set()] * 4  # fetched
    assert handle.query(Table.seated, Customer.objects.create(name="Cy")) == []


def test_lazy_object_is_stored_as_what_it_stands_for(worker: Worker, ada: Customer) -> None:
    lazy: Any = SimpleLazyObject(lambda: ada)

    assert visit_thrice.start(lazy, "sync").result(timeout=20) == ada


def test_model_object_without_annotation_comes_back_as_label_and_key(worker: Worker, ada: Customer) -> None:
    assert echo.start(ada).result(timeout=20) == ["testapp.customer", ada.pk]


def test_fields_are_out_of_reach_in_workflow_code(worker: Worker, ada: Customer) -> None:
    with pytest.raises(WorkflowFailed, match=r"workflow code used the ORM.*fields of a model object") as caught:
        look_inside.start(ada).result(timeout=20)
    assert isinstance(caught.value.__cause__, NotAllowedInWorkflowError)


def test_object_without_a_row_is_refused_with_the_parameter(ada: Customer) -> None:
    gone = Customer.objects.create(name="Bob")
    gone.delete()
    reason = r"is of type tests\.testapp\.models\.{}, which could not be encoded: it has no row; save it first"

    for unsaved in (Customer(name="new"), Customer(pk=ada.pk), gone):
        with pytest.raises(PayloadError, match=r"'customer' of objects\.look_inside: .*" + reason.format("Customer")):
            look_inside.start(unsaved)
    with pytest.raises(PayloadError, match=r"argument 'value'.*\[0\] " + reason.format("Ticket")):
        echo.start([Ticket()])  # which has a primary key already
    with pytest.raises(PayloadError, match=r"signal 'come'.*no row"):
        wait_for_customer.start().signal(come, Customer())
    assert WorkflowInstance.objects.count() == 1


# A row that is gone


@kinds
def test_activity_whose_object_is_gone_fails_at_once_and_says_which(ada: Customer, kind: str, cache_size: int) -> None:
    handle, pk = pass_by.start(ada, kind), ada.pk
    ada.delete()

    with running_worker(sticky_cache_size=cache_size):
        found = handle.result(timeout=20)

        assert found is not None
        assert (found["label"], found["pk"]) == ("testapp.customer", pk)
        assert f"no testapp.customer with the primary key {pk} exists any more; the arguments of " in found["text"]
        # And the worker goes on.
        assert visit_thrice.start(Customer.objects.create(name="Bob"), kind).result(timeout=20).visits == 3
    assert not Effect.objects.filter(key=f"visit {pk}").exists()


def test_uncaught_it_fails_the_workflow(ada: Customer, cache_size: int) -> None:
    handle = visit_thrice.start(ada, "sync")
    ada.delete()

    with (
        running_worker(sticky_cache_size=cache_size),
        pytest.raises(WorkflowFailed, match=r"ObjectNotFound: no testapp\.customer") as caught,
    ):
        handle.result(timeout=20)
    assert isinstance(caught.value.__cause__, ObjectNotFound)


@workflow(name="objects.give_back")
async def give_back(customer: Customer) -> Customer:
    return customer


def test_result_whose_row_is_gone_is_told_to_the_caller(worker: Worker, ada: Customer) -> None:
    handle, pk = give_back.start(ada), ada.pk
    assert handle.result(timeout=20) == ada
    ada.delete()

    with pytest.raises(ObjectNotFound, match=rf"primary key {pk} exists .*; the result of objects\.give_back"):
        handle.result()
    with pytest.raises(ObjectNotFound):
        async_to_sync(handle.aresult)()
    assert get_handle(handle.instance_id).status == "completed"


# Kinds of models


def through_storage(value: object, annotation: Any) -> Any:
    return fetched(partial(decode, encode(value, what="v"), annotation, what="v"), "a test")


def test_proxy_model_comes_back_as_the_proxy(ada: Customer) -> None:
    regular = RegularCustomer.objects.get(pk=ada.pk)

    assert type(through_storage(regular, RegularCustomer)) is RegularCustomer
    assert type(through_storage(regular, Customer)) is RegularCustomer


def test_child_of_multi_table_inheritance_comes_back_as_the_child(transactional_db: None) -> None:
    ritz = Restaurant.objects.create(name="Ritz", stars=3)
    found = through_storage(ritz, Place)
    named = decode(encode(ritz, what="v"), Place, what="v")

    assert (type(found), found.name, found.stars) == (Restaurant, "Ritz", 3)
    with CaptureQueriesContext(connection) as queries:
        assert (named.pk, named.id, named) == (ritz.pk, ritz.pk, ritz)
    assert not queries.captured_queries


@pytest.mark.parametrize("annotation", [RegularCustomer, Restaurant, Restaurant | None, list[Ticket]], ids=str)
def test_object_of_another_model_than_the_annotated_one_is_refused(ada: Customer, annotation: Any) -> None:
    value = [ada] if annotation == list[Ticket] else ada
    with pytest.raises(
        PayloadError, match=r"expected an object of testapp\.\w+ or a subclass of it, found one of testapp"
    ):
        decode(encode(value, what="v"), annotation, what="v")


@pytest.mark.parametrize(
    ("stored", "reason"),
    [
        ('["shop.gone", 1]', r"label of an installed model, found 'shop\.gone'"),
        ('["nothing", 1]', "label of an installed model"),
        ('["testapp.customer", "x"]', "must be an integer"),
        ('["testapp.customer", null]', r"expected \[label, primary key\], found"),
        ("17", r"expected \[label, primary key\], found 17"),
    ],
)
def test_what_names_no_object_is_refused(stored: str, reason: str) -> None:
    with pytest.raises(PayloadError, match=rf"Cannot decode v to .*Customer: .*{reason}"):
        decode(stored, Customer, what="v")


def test_uuid_key_and_a_row_that_the_default_manager_hides(transactional_db: None) -> None:
    ticket = Ticket(hidden=True)
    ticket.save()
    found = through_storage([ticket], list[Ticket])

    assert json.loads(encode(ticket, what="v")) == ["testapp.ticket", str(ticket.pk)]
    assert (found, found[0].hidden, type(found[0].pk)) == ([ticket], True, uuid.UUID)


def test_composite_key(transactional_db: None) -> None:
    ritz = Restaurant.objects.create(name="Ritz")
    bookings = [Booking.objects.create(restaurant=ritz, day=date(2026, 3, day), seats=day) for day in (1, 2)]

    found = through_storage(bookings, list[Booking])
    assert (found, [booking.seats for booking in found]) == (bookings, [1, 2])
    assert decode(encode(bookings[0], what="v"), Booking, what="v").pk == (ritz.pk, date(2026, 3, 1))


# How they are fetched


def test_objects_of_one_model_are_fetched_with_one_query(transactional_db: None) -> None:
    customers = [Customer.objects.create(name=f"Ada {number}") for number in range(10)]
    party = Party(customers[0], [*customers, customers[1]], Place.objects.create(name="Ritz"))

    with CaptureQueriesContext(connection) as queries:
        found = through_storage(party, Party)

    assert found == party
    assert [guest.name for guest in found.guests] == [guest.name for guest in party.guests]
    assert len(queries.captured_queries) == 2  # one for each model


class Replica:
    """A router to a replica that does not have the row yet."""

    def db_for_read(self, model: Any, **hints: Any) -> str:
        raise AssertionError("read from the replica")

    def db_for_write(self, model: Any, **hints: Any) -> str:
        return "default"


def test_they_are_fetched_from_where_they_were_written(ada: Customer) -> None:
    with override_settings(DATABASE_ROUTERS=[Replica()]):
        assert through_storage(ada, Customer).name == "Ada"


def test_decoding_alone_makes_no_query(ada: Customer) -> None:
    with CaptureQueriesContext(connection) as queries:
        named = decode(encode(ada, what="v"), Customer | None, what="v")
        assert (named, hash(named), encode(named, what="v")) == (ada, hash(ada), encode(ada, what="v"))
    assert not queries.captured_queries
    assert named.name == "Ada"  # outside of workflow code this is a query like any other


def test_atomic_activity_fetches_in_its_own_transaction(worker: Worker, ada: Customer) -> None:
    seen: list[bool] = []

    def look(**kwargs: Any) -> None:
        seen.append(connection.in_atomic_block)

    post_init.connect(look, sender=Customer)
    try:
        pass_by.start(ada, "atomic").result(timeout=20)
    finally:
        post_init.disconnect(look, sender=Customer)
    assert seen == [True]


@activity(name="objects.has_thread")
async def has_thread(customer: Customer | None) -> bool:
    return SyncToAsync.thread_sensitive_context.get() in SyncToAsync.context_to_thread_executor


@workflow(name="objects.look_for_thread")
async def look_for_thread(customer: Customer | None) -> bool:
    return await has_thread(customer)


def test_async_activity_leaves_the_event_loop_only_to_fetch(worker: Worker, ada: Customer) -> None:
    assert look_for_thread.start(None).result(timeout=20) is False
    assert look_for_thread.start(ada).result(timeout=20) is True
