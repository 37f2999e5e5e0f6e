"""Retention looks for one status at a time: its index begins with it."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [
        ("contenttypes", "0002_remove_content_type_name"),
        ("django_workflows", "0002_whole_programming_model"),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name="workflowinstance",
            name="dwf_instance_closed",
        ),
        migrations.AddIndex(
            model_name="workflowinstance",
            index=models.Index(fields=["status", "closed_at", "id"], name="dwf_instance_prune"),
        ),
    ]
