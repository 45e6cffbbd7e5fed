"""The model catalogue, with what was known of OpenRouter's list at this release. The first sync corrects it.

A model without prices here is one whose price was not known for sure; its costs are not estimated before a sync.
"""

import datetime as dt

from django.db import migrations, models

LISTED_AT = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
CENT = 10_000_000  # per million tokens, in nano-USD
PRICES_IN_CENTS = {  # prompt, completion
    "claude-fable-5.1": (1000, 5000),
    "claude-fable-5": None,
    "claude-opus-5.5": (400, 2000),
    "claude-opus-5": (500, 2500),
    "claude-opus-4.8": None,
    "claude-opus-4.7": None,
    "claude-opus-4.6": (500, 2500),
    "claude-opus-4.5": (500, 2500),
    "claude-opus-4.1": (1500, 7500),
    "claude-opus-4": (1500, 7500),
    "claude-sonnet-5.5": (200, 1000),
    "claude-sonnet-5": None,
    "claude-sonnet-4.6": None,
    "claude-sonnet-4.5": (300, 1500),
    "claude-sonnet-4": (300, 1500),
    "claude-haiku-5.5": (10, 50),
    "claude-haiku-4.5": (100, 500),
    "claude-3.7-sonnet": (300, 1500),
    "claude-3.5-sonnet": (300, 1500),
    "claude-3-opus": (1500, 7500),
    "claude-3-haiku": (25, 125),
}


def create(apps, schema_editor):
    model_price = apps.get_model("keys", "ModelPrice")
    for name, cents in PRICES_IN_CENTS.items():
        prompt, completion = (cents[0] * CENT, cents[1] * CENT) if cents else (None, None)
        model_price.objects.create(
            model=f"anthropic/{name}", prompt=prompt, completion=completion, updated_at=LISTED_AT, source="snapshot"
        )


class Migration(migrations.Migration):
    dependencies = [("keys", "0002_pool_and_guide_aliases")]
    operations = [
        migrations.CreateModel(
            name="ModelPrice",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("model", models.CharField(max_length=200, unique=True)),
                ("name", models.CharField(blank=True, max_length=200)),
                ("context_length", models.BigIntegerField(null=True)),
                ("max_output", models.BigIntegerField(null=True)),
                ("prompt", models.BigIntegerField(null=True)),
                ("completion", models.BigIntegerField(null=True)),
                ("cache_read", models.BigIntegerField(null=True)),
                ("cache_write", models.BigIntegerField(null=True)),
                ("created", models.DateTimeField(null=True)),
                ("updated_at", models.DateTimeField()),
                (
                    "source",
                    models.CharField(
                        choices=[("snapshot", "shipped with this release"), ("synced", "read from OpenRouter")],
                        max_length=10,
                    ),
                ),
            ],
            options={"verbose_name": "model price", "ordering": ("model",)},
        ),
        migrations.RunPython(create, migrations.RunPython.noop),  # backwards: the table goes
    ]
