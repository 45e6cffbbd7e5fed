"""Which costs are still being asked for."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("keys", "0003_model_prices")]
    operations = [
        migrations.CreateModel(
            name="CostInquiry",
            fields=[
                (
                    "request",
                    models.OneToOneField(
                        db_constraint=False,
                        on_delete=django.db.models.deletion.DO_NOTHING,
                        primary_key=True,
                        related_name="cost_inquiry",
                        serialize=False,
                        to="keys.requestlog",
                    ),
                ),
                ("since", models.DateTimeField()),
                ("next_at", models.DateTimeField(db_index=True)),
            ],
            options={"verbose_name": "cost inquiry", "verbose_name_plural": "cost inquiries"},
        ),
    ]
