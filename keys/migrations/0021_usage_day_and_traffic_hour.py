"""Two more roll-ups: by day, so that a year is read at once, and of all traffic by hour, for the home page."""

import django.db.models.deletion
from django.db import migrations, models

SUMS = (
    "requests",
    "errors",
    "input_tokens",
    "output_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "cost_nano",
    "unknown_costs",
)


def sums():
    parts = [(name, models.BigIntegerField(db_default=0)) for name in ("reconciled_nano", "estimated_nano")]
    return [*((name, models.BigIntegerField()) for name in SUMS), *parts]


def target(to, null=False):
    return models.ForeignKey(
        db_constraint=False,
        db_index=False,
        null=null,
        on_delete=django.db.models.deletion.DO_NOTHING,
        related_name="+",
        to=to,
    )


class Migration(migrations.Migration):
    dependencies = [("keys", "0020_usage_by_cost_source")]
    operations = [
        migrations.CreateModel(
            name="TrafficHour",
            fields=[
                *sums(),
                ("hour", models.DateTimeField(primary_key=True, serialize=False)),
                ("statuses", models.JSONField(default=dict)),
                ("causes", models.JSONField(default=dict)),
                ("latency_histogram", models.JSONField(default=list)),
            ],
            options={"verbose_name": "traffic by hour", "verbose_name_plural": "traffic by hour"},
        ),
        migrations.CreateModel(
            name="UsageDay",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                *sums(),
                ("day", models.DateField()),
                ("model", models.CharField(blank=True, max_length=200)),
                ("client", target("keys.client")),
                ("key", target("keys.openrouterkey", null=True)),
            ],
            options={
                "verbose_name": "usage by day",
                "verbose_name_plural": "usage by day",
                "indexes": [models.Index(fields=["day"], name="usage_day")],
            },
        ),
    ]
