from __future__ import annotations

from typing import Any

from django.db import migrations

# Of each page, in percent, what inserts fill; the rest is for new versions of the rows in it.
FILLFACTORS = {"OpenInstance": 50, "Worker": 50}


def leave_room(apps: Any, schema_editor: Any) -> None:
    """Let PostgreSQL write new versions of hot rows into the same page, which leaves their indexes alone."""
    if schema_editor.connection.vendor == "postgresql":
        for name, percent in FILLFACTORS.items():
            table = schema_editor.quote_name(apps.get_model("django_workflows", name)._meta.db_table)
            schema_editor.execute(f"ALTER TABLE {table} SET (fillfactor = {percent})")


def leave_none(apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "postgresql":
        for name in FILLFACTORS:
            table = schema_editor.quote_name(apps.get_model("django_workflows", name)._meta.db_table)
            schema_editor.execute(f"ALTER TABLE {table} RESET (fillfactor)")


class Migration(migrations.Migration):
    dependencies = [("django_workflows", "0003_retention_index")]

    operations = [migrations.RunPython(leave_room, leave_none, elidable=False)]
