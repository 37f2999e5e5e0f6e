"""The small pieces of HTML that lists and pages share; everything in them is escaped."""

from __future__ import annotations

from datetime import datetime

from django.utils.dateformat import format as format_date
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.timezone import is_aware, localtime
from django.utils.translation import gettext as _

from django_workflows.models import InstanceStatus, Worker

# A status is a shape and a word; its colour only repeats what those say.
STATUS_SHAPES = {
    InstanceStatus.RUNNING: "\N{BLACK RIGHT-POINTING POINTER}",
    InstanceStatus.BLOCKED: "\N{BLACK UP-POINTING TRIANGLE}",
    InstanceStatus.COMPLETED: "\N{CHECK MARK}",
    InstanceStatus.FAILED: "\N{MULTIPLICATION X}",
    InstanceStatus.CANCELLED: "\N{CIRCLED DIVISION SLASH}",
    InstanceStatus.TERMINATED: "\N{BLACK SQUARE}",
    InstanceStatus.TIMED_OUT: "\N{WHITE CIRCLE WITH UPPER RIGHT QUADRANT}",
    InstanceStatus.CONTINUED_AS_NEW: "\N{CLOCKWISE OPEN CIRCLE ARROW}",
}


TIME_FORMAT = "Y-m-d H:i:s"


def link(url: str, text: str) -> SafeString:
    return format_html('<a href="{}">{}</a>', url, text)


def time_tag(moment: datetime, note: str = "") -> SafeString:
    """Return the moment to the second in the site's time zone; the log-like form sorts and compares by eye."""
    shown = format_date(localtime(moment) if is_aware(moment) else moment, TIME_FORMAT)
    text = f"{shown} ({note})" if note else shown
    return format_html('<time datetime="{}">{}</time>', moment.isoformat(), text)


def badge(kind: str, shape: str, label: str) -> SafeString:
    return format_html(
        '<span class="dwf-badge dwf-{}"><span class="dwf-shape" aria-hidden="true">{}</span> {}</span>',
        kind,
        shape,
        label,
    )


def status_badge(status: str) -> SafeString:
    """Return the badge of an instance's status; one of a newer release shows its stored name."""
    try:
        known = InstanceStatus(status)
    except ValueError:
        return badge("unknown", "?", status)
    return badge(known.value, STATUS_SHAPES[known], str(known.label))


def worker_badge(state: str, is_overdue: bool) -> SafeString:
    if state == Worker.State.DEAD:
        return badge("dead", "\N{MULTIPLICATION X}", _("Dead"))
    if is_overdue:
        return badge("overdue", "\N{BLACK UP-POINTING TRIANGLE}", _("Lease expired"))
    return badge("alive", "\N{BLACK CIRCLE}", _("Alive"))
