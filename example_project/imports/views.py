"""Upload a file, follow its import, publish or discard what it brought; look at the airports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from django.contrib import messages
from django.contrib.auth.decorators import permission_required
from django.core.paginator import Paginator
from django.db import transaction
from django.db.models import Q
from django.http import FileResponse, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_POST, require_safe

from django_workflows import InstanceNotFound, InstanceNotRunning, WorkflowHandle

from .forms import UploadForm
from .models import Airport, ImportJob
from .workflows import import_airports, publication

SAMPLE = Path(__file__).resolve().parent / "data" / "airports.csv"
Handle = WorkflowHandle[ImportJob.Status]


@require_safe
def airport_list(request: HttpRequest) -> HttpResponse:
    """Show the published airports."""
    query = request.GET.get("q", "").strip()
    airports = Airport.objects.filter(published=True)
    if query:
        airports = airports.filter(Q(iata__iexact=query) | Q(name__icontains=query) | Q(city__icontains=query))
    page = Paginator(airports, 50).get_page(request.GET.get("page"))
    return render(request, "imports/airports.html", {"page": page, "query": query})


@require_safe
def sample(request: HttpRequest) -> FileResponse:
    """Give visitors a file to try."""
    return FileResponse(SAMPLE.open("rb"), as_attachment=True, filename=SAMPLE.name, content_type="text/csv")


@require_safe
@permission_required("imports.view_importjob")
def job_list(request: HttpRequest) -> HttpResponse:
    """Show the latest imports."""
    return render(request, "imports/jobs.html", {"jobs": ImportJob.objects.all()[:100]})


@permission_required("imports.add_importjob")
def upload(request: HttpRequest) -> HttpResponse:
    """Store a file and start its import: both are committed, or neither."""
    form = UploadForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        with transaction.atomic():
            job = form.save()
            import_airports.using(instance_id=job.instance_id, subject=job).start(job.pk, pause=job.pause)
        messages.success(request, f"Import {job.pk} has started.")
        return redirect(job)
    return render(request, "imports/upload.html", {"form": form})


@require_safe
@permission_required("imports.view_importjob")
def job(request: HttpRequest, pk: int) -> HttpResponse:
    """Show how an import goes."""
    job = get_object_or_404(ImportJob, pk=pk)
    try:
        instance = import_airports.handle(job.instance_id).describe()
    except InstanceNotFound:  # its history was pruned
        instance = None
    return render(request, "imports/job.html", {"job": job, "instance": instance})


@require_POST
@permission_required("imports.publish_importjob", raise_exception=True)
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Publish or discard what an import brought."""
    approved = request.POST.get("decision") == "publish"
    done = "being published" if approved else "being discarded"
    return _send(request, pk, done, lambda handle: handle.signal(publication, approved))


@require_POST
@permission_required("imports.publish_importjob", raise_exception=True)
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Stop an import; its workflow takes back what it added."""
    return _send(request, pk, "being cancelled", lambda handle: handle.cancel("cancelled on the import's page"))


def _send(request: HttpRequest, pk: int, done: str, send: Callable[[Handle], None]) -> HttpResponse:
    job = get_object_or_404(ImportJob, pk=pk)
    try:
        send(import_airports.handle(job.instance_id))
    except InstanceNotRunning:
        job.refresh_from_db()
        messages.error(request, f"Too late: import {job.pk} is closed ({job.get_status_display()}).")
    except InstanceNotFound:
        messages.error(request, f"Import {job.pk} has no workflow: its history was removed.")
    else:
        messages.success(request, f"Import {job.pk} is {done}.")
    return redirect(job)
