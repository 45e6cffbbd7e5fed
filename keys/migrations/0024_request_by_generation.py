"""A request is found by its generation id. The ids begin with the time, so that inserts stay at the index's end."""

from django.db import migrations, models

from keys.migration_operations import AddIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("keys", "0023_recompute_rollups")]
    operations = [
        AddIndexOnline(
            model_name="requestlog",
            index=models.Index(
                fields=["generation_id"],
                condition=models.Q(("generation_id", ""), _negated=True),
                name="request_by_generation",
            ),
        ),
    ]
