"""The import of a CSV file: check it, store it in chunks, report, and publish when somebody approves.

What travels through the workflow are numbers and names; the rows stay in the file.
"""

from __future__ import annotations

import asyncio
from dataclasses import asdict, dataclass
from datetime import timedelta

from django.db.models import F

from django_workflows import RetryPolicy, Signal, activity, workflow

from .airports import AirportRow, BadFile, Rejected, read_airports
from .models import Airport, ImportJob

CHUNK_ROWS = 200
PARALLEL_CHUNKS = 4
SHOWN_REJECTED = 100
APPROVAL_PERIOD = timedelta(days=7)

publication = Signal("publication", bool)


@dataclass(frozen=True, slots=True)
class Checked:
    """What checking a file found."""

    rows: int
    rejected_count: int
    rejected: list[Rejected]  # the first ones


@dataclass(frozen=True, slots=True)
class Counts:
    """What storing rows did."""

    added: int = 0
    updated: int = 0
    unchanged: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.added + other.added, self.updated + other.updated, self.unchanged + other.unchanged)


@workflow
async def import_airports(job_id: int, pause: float = 0) -> ImportJob.Status:
    """Import one file; a bad file is an ordinary outcome, anything else unexpected fails the instance."""
    try:
        return await _import(job_id, pause)
    except BadFile as error:
        await close_job(job_id, ImportJob.Status.FAILED, str(error))
        return ImportJob.Status.FAILED
    except asyncio.CancelledError:
        await discard(job_id, ImportJob.Status.CANCELLED)
        raise
    except Exception:
        await close_job(job_id, ImportJob.Status.FAILED, "A fault that is not in the file stopped the import.")
        raise


async def _import(job_id: int, pause: float) -> ImportJob.Status:
    checked = await check_file(job_id)
    counts = await _store(job_id, checked.rows, pause)
    await report(job_id, checked, counts)
    try:
        async with asyncio.timeout(APPROVAL_PERIOD.total_seconds()):
            approved = await publication.receive()
    except TimeoutError:
        approved = False
    if not approved:
        await discard(job_id, ImportJob.Status.DISCARDED)
        return ImportJob.Status.DISCARDED
    await publish(job_id)
    return ImportJob.Status.PUBLISHED


async def _store(job_id: int, rows: int, pause: float) -> Counts:
    """Store all chunks, a few at a time."""
    slots = asyncio.Semaphore(PARALLEL_CHUNKS)

    async def store(first: int) -> Counts:
        async with slots:
            counts = await store_chunk(job_id, first, first + CHUNK_ROWS)
            if pause:
                await workflow.sleep(pause)
            return counts

    return sum(await asyncio.gather(*(store(first) for first in range(0, rows, CHUNK_ROWS))), Counts())


@activity(retry=RetryPolicy(max_attempts=3, non_retryable=(BadFile,)))
def check_file(job_id: int) -> Checked:
    """Read the whole file before anything is stored."""
    rows, rejected = _read(job_id)
    if not rows:
        reasons = "; ".join(f"line {bad.line}: {bad.reason}" for bad in rejected[:3])
        raise BadFile(f"No line of the file can be imported. {reasons or 'There is nothing after the header.'}")
    return Checked(len(rows), len(rejected), rejected[:SHOWN_REJECTED])


@activity(atomic=True)
def store_chunk(job_id: int, first: int, stop: int) -> Counts:
    """Add and update the airports of some rows, exactly once: the counts add up whatever happens to the worker."""
    rows = _read(job_id)[0][first:stop]
    known = Airport.objects.select_for_update().in_bulk([row.iata for row in rows], field_name="iata")
    new = [Airport(**row.values(), added_by_id=job_id) for row in rows if row.iata not in known]
    changed = [known[row.iata] for row in rows if row.iata in known and _assign(known[row.iata], row)]
    Airport.objects.bulk_create(new)
    Airport.objects.bulk_update(changed, ["name", "city", "state", "country", "latitude", "longitude"])
    ImportJob.objects.filter(pk=job_id).update(done=F("done") + len(rows))
    return Counts(len(new), len(changed), len(rows) - len(new) - len(changed))


@activity(atomic=True)
def report(job_id: int, checked: Checked, counts: Counts) -> None:
    """Show what the import did, for somebody to approve."""
    ImportJob.objects.filter(pk=job_id).update(
        status=ImportJob.Status.AWAITING_APPROVAL, report={**asdict(counts), **asdict(checked)}
    )


@activity(atomic=True)
def publish(job_id: int) -> None:
    """Show the new airports to everybody."""
    Airport.objects.filter(added_by=job_id).update(published=True)
    ImportJob.objects.filter(pk=job_id).update(status=ImportJob.Status.PUBLISHED)


@activity(atomic=True)
def discard(job_id: int, status: ImportJob.Status) -> None:
    """Take back the airports that this import added."""
    Airport.objects.filter(added_by=job_id, published=False).delete()
    ImportJob.objects.filter(pk=job_id).update(status=status)


@activity(atomic=True)
def close_job(job_id: int, status: ImportJob.Status, error: str) -> None:
    """Record the end of an import that could not go on."""
    ImportJob.objects.filter(pk=job_id).update(status=status, error=error)


def _read(job_id: int) -> tuple[list[AirportRow], list[Rejected]]:
    job = ImportJob.objects.get(pk=job_id)
    with job.file.open("rb") as file:
        return read_airports(file.read())


def _assign(airport: Airport, row: AirportRow) -> bool:
    """Give an airport the row's values; return whether that changed anything."""
    changed = False
    for name, value in row.values().items():
        changed |= getattr(airport, name) != value
        setattr(airport, name, value)
    return changed
