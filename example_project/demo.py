"""The example project by itself, in one terminal: `python -m example_project.demo`.

Orders are placed and airports are imported through the project's own pages, by a worker that is killed on the way.
The exit code is 0 if everything ended as it should.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .demo_support import WORKER_COMMAND, DemoFailed, Story, WorkerProcess, last_lines, table

if TYPE_CHECKING:
    from django.test import Client

    from .imports.models import ImportJob
    from .orders.models import Order

USER, PASSWORD = "admin", "workflows"
AIRPORTS = 3376
PAUSE = 0.5  # seconds after each chunk: without it the import is over before anybody can kill its worker


@dataclass(frozen=True)
class Purchase:
    """One order, what staff or the customer do about it, and how it has to end."""

    product: str
    quantity: int
    card: str
    ends: str
    then: str = ""


BEFORE_THE_CRASH = [
    Purchase("Teapot", 1, "tok_good", "shipped"),
    Purchase("Desk lamp", 2, "tok_good", "shipped"),
    Purchase("Teapot", 4, "tok_flaky", "shipped"),
    Purchase("Bookshelf", 1, "tok_declined", "declined"),
    Purchase("Desk lamp", 1, "tok_outage", "payment_failed"),
    Purchase("Sofa", 1, "tok_good", "shipped", then="approve"),
    Purchase("Coffee machine", 1, "tok_good", "rejected", then="reject"),
    Purchase("Sofa", 2, "tok_good", "cancelled", then="cancel"),
]
WHILE_NO_WORKER_RUNS = [
    Purchase("Teapot", 2, "tok_good", "shipped"),
    Purchase("Bookshelf", 2, "tok_good", "shipped"),
    Purchase("Teapot", 1, "tok_flaky", "shipped"),
    Purchase("Coffee machine", 2, "tok_flaky", "shipped", then="approve"),
]


class Demo:
    """The story from the first order to the last check."""

    def __init__(self, data_dir: Path) -> None:
        from django.test import Client

        self.story = Story()
        self.log = data_dir / "worker.log"
        self.workers: list[WorkerProcess] = []
        self.kills = 0
        self.orders: dict[int, Purchase] = {}
        self.customer = Client(SERVER_NAME="localhost")
        self.staff = Client(SERVER_NAME="localhost")

    def run(self) -> None:
        self.set_up()
        self.start_worker()
        self.place(BEFORE_THE_CRASH)
        self.decide()
        job = self.upload(pause=PAUSE)
        self.kill_worker_during(job)
        self.place(WHILE_NO_WORKER_RUNS)
        self.start_worker()
        self.wait_for_recovery(job)
        self.decide()
        self.publish(job, added=AIRPORTS, unchanged=0)
        self.publish(self.upload(pause=0), added=0, unchanged=AIRPORTS)
        self.wait_for_orders()
        self.workers[-1].stop()
        self.story.say(f"worker {self.workers[-1].pid} stopped after SIGTERM, exit code 0")
        self.check_books()

    def set_up(self) -> None:
        from django.contrib.auth.models import User
        from django.core.management import call_command

        call_command("migrate", verbosity=0)
        User.objects.create_superuser(USER, "admin@example.com", PASSWORD)
        if not self.staff.login(username=USER, password=PASSWORD):
            raise DemoFailed(f"expected to log in as {USER}, found the log-in refused")
        self.story.say("fresh SQLite database migrated, superuser created")

    def start_worker(self) -> None:
        from django_workflows.models import Worker

        worker = WorkerProcess(self.log)
        self.workers.append(worker)
        alive = Worker.objects.filter(process_id=worker.pid, state=Worker.State.ALIVE)
        self.story.wait(alive.exists, f"worker {worker.pid} to report itself alive", workers=[worker])
        self.story.say(f"worker {worker.pid} started: manage.py {WORKER_COMMAND[1]}")

    def place(self, purchases: list[Purchase]) -> None:
        from .orders.models import Order, Product

        for purchase in purchases:
            product = Product.objects.get(name=purchase.product)
            fields = {"product": product.pk, "quantity": purchase.quantity, "card": purchase.card}
            self.post(self.customer, "/orders/new/", {**fields, "email": "customer@example.com"})
            self.orders[Order.objects.latest("pk").pk] = purchase
        self.story.say(f"{len(purchases)} orders placed through the shop's form")

    def decide(self) -> None:
        """Let staff and the customer do what they have in mind, once the orders wait for approval."""
        from .orders.models import Order

        for pk, purchase in self.orders.items():
            order = Order.objects.get(pk=pk)
            if not purchase.then or order.status == purchase.ends:
                continue
            self.wait_for(order, "awaiting_approval")
            if purchase.then == "cancel":
                self.post(self.customer, f"/orders/{pk}/cancel/", {})
            else:
                self.post(self.staff, f"/orders/{pk}/decide/", {"decision": purchase.then})
            self.wait_for(order, purchase.ends)
            self.story.say(f"order {pk} ({order.dollars}) awaited approval: {purchase.then} -> {purchase.ends}")

    def upload(self, pause: float) -> ImportJob:
        from .imports.models import ImportJob
        from .imports.views import SAMPLE

        with SAMPLE.open("rb") as file:
            self.post(self.staff, "/airports/imports/new/", {"file": file, "pause": pause})
        job = ImportJob.objects.latest("pk")
        self.story.say(f"import {job.pk} started: {SAMPLE.name}, {AIRPORTS:,} rows in chunks of 200, 4 at a time")
        return job

    def kill_worker_during(self, job: ImportJob) -> None:
        worker = self.workers[-1]
        self.story.wait(lambda: self.rows_done(job) >= 1000, "1,000 rows stored", workers=[worker])
        worker.kill()
        self.kills += 1
        done = self.rows_done(job)
        if done >= AIRPORTS:
            raise DemoFailed("expected to kill the worker in the middle of the import, found the import done")
        self.story.say(f"worker {worker.pid} killed (kill -9) with {done:,} of {AIRPORTS:,} rows stored")

    def wait_for_recovery(self, job: ImportJob) -> None:
        before = self.rows_done(job)
        self.story.wait(lambda: self.rows_done(job) > before, "the import to go on", workers=self.workers[-1:])
        self.story.say("the new worker has taken over the import: the dead one's lease had run out")

    def publish(self, job: ImportJob, added: int, unchanged: int) -> None:
        from .imports.models import Airport

        self.wait_for(job, "awaiting_approval")
        found = {name: job.report[name] for name in ("added", "updated", "unchanged", "rejected_count")}
        expected = {"added": added, "updated": 0, "unchanged": unchanged, "rejected_count": 0}
        if found != expected:
            raise DemoFailed(f"expected import {job.pk} to report {expected}, found {found}")
        self.post(self.staff, f"/airports/imports/{job.pk}/decide/", {"decision": "publish"})
        self.wait_for(job, "published")
        airports = Airport.objects.filter(published=True).count()
        if airports != AIRPORTS:
            raise DemoFailed(f"expected {AIRPORTS:,} published airports, found {airports:,}")
        self.story.say(f"import {job.pk} published: {added:,} added, {unchanged:,} unchanged, {airports:,} in all")

    def wait_for_orders(self) -> None:
        from .orders.models import Order

        def ended() -> bool:
            return all(found == self.orders[pk].ends for pk, found in Order.objects.values_list("pk", "status"))

        self.story.wait(ended, "all orders at their end", workers=self.workers[-1:], progress=self.progress)
        self.story.say(f"all {len(self.orders)} orders have ended as they should")

    def check_books(self) -> None:
        """Check that money moved exactly where an order was shipped, and that no workflow is left over."""
        from django_workflows.models import WorkflowInstance

        from .orders.models import GatewayCharge, Order

        shipped = {order.instance_id for order in Order.objects.filter(status=Order.Status.SHIPPED)}
        charged = set(GatewayCharge.objects.filter(state=GatewayCharge.State.CHARGED).values_list("key", flat=True))
        if shipped != charged:
            raise DemoFailed(f"expected charges for {sorted(shipped)}, found them for {sorted(charged)}")
        if left := WorkflowInstance.objects.open().count():
            raise DemoFailed(f"expected no open workflow instance, found {left}")

    def summary(self) -> str:
        from .imports.models import Airport
        from .orders.models import GatewayCharge, Order

        statuses = Counter(order.get_status_display().lower() for order in Order.objects.all())
        attempts = sorted(GatewayCharge.objects.filter(attempts__gt=0).values_list("attempts", flat=True))
        rows: list[tuple[str, object]] = [(f"orders: {status}", count) for status, count in statuses.most_common()]
        rows += [
            ("airports", f"{Airport.objects.count():,}"),
            ("payment attempts", f"{sum(attempts)} for {len(attempts)} payments (most for one: {attempts[-1]})"),
            ("workers killed", self.kills),
            ("time", f"{self.story.elapsed:.0f} s"),
        ]
        return table("What happened", rows)

    def post(self, client: Client, path: str, data: dict[str, object]) -> None:
        response = client.post(path, data)
        if response.status_code != 302:
            errors = response.context["form"].errors.as_text() if response.context else response.reason_phrase
            raise DemoFailed(f"expected POST {path} to be accepted, found {response.status_code}: {errors}")

    def wait_for(self, row: Order | ImportJob, status: str) -> None:
        def reached() -> bool:
            row.refresh_from_db()
            return row.status == status

        what = f"{type(row)._meta.verbose_name} {row.pk} to be {status}"
        self.story.wait(reached, what, workers=self.workers[-1:], progress=self.progress)

    def progress(self) -> str:
        from .imports.models import ImportJob
        from .orders.models import Order

        orders = Counter(order.get_status_display().lower() for order in Order.objects.all())
        job = ImportJob.objects.first()
        rows = (
            [f"import {job.pk}: {job.done:,} of {AIRPORTS:,} rows, {job.get_status_display().lower()}"] if job else []
        )
        return "; ".join([*rows, "orders: " + ", ".join(f"{count} {status}" for status, count in orders.items())])

    @staticmethod
    def rows_done(job: ImportJob) -> int:
        job.refresh_from_db()
        return job.done


def remove_earlier_run(data_dir: Path) -> None:
    for name in ("db.sqlite3", "db.sqlite3-wal", "db.sqlite3-shm", "worker.log"):
        (data_dir / name).unlink(missing_ok=True)


def main() -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "example_project.settings"
    import django

    from .settings import DATA_DIR

    data_dir = os.path.relpath(DATA_DIR)
    print(f"The example project, with its data in {data_dir} (an earlier run's is replaced)\n", flush=True)
    remove_earlier_run(DATA_DIR)
    django.setup()
    demo = Demo(DATA_DIR)
    try:
        demo.run()
    except Exception as error:
        if not isinstance(error, DemoFailed):
            traceback.print_exc()
        print(f"\nDemo failed: {error}.", file=sys.stderr)
        print(f"The end of {os.path.relpath(demo.log)}:\n{last_lines(demo.log)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return 130
    finally:
        for worker in demo.workers:
            worker.discard()
    print(f"\n{demo.summary()}\n\n{how_to_go_on()}")
    return 0


def how_to_go_on() -> str:
    python = os.path.relpath(sys.executable)
    return "\n".join(
        [
            "Look at it: make serve",
            f"  http://127.0.0.1:8000/admin/  log in as {USER} with the password {PASSWORD}",
            "  http://127.0.0.1:8000/        the shop; its new orders wait for a worker:",
            f"  {python} {' '.join(WORKER_COMMAND)}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
