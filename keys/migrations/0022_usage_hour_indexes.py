"""Lead a search for requests of a key, client or model to the hours that have some. Two take the place of two."""

import django.db.models.deletion
from django.db import migrations, models

from keys.migration_operations import AddIndexOnline


def target(to, null=False):
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        null=null,
        on_delete=django.db.models.deletion.DO_NOTHING,
        related_name="usage_hours",
        to=to,
    )


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("keys", "0021_usage_day_and_traffic_hour")]
    operations = [
        *(
            AddIndexOnline("usagehour", models.Index(fields=[column, "hour"], name=f"usage_hour_by_{column}"))
            for column in ("key", "client", "model")
        ),
        migrations.AlterField("usagehour", "key", target("keys.openrouterkey", null=True)),
        migrations.AlterField("usagehour", "client", target("keys.client")),
    ]
