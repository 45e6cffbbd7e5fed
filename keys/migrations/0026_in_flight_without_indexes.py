"""The table is short and changes with each request: its two indexes cost more than they ever saved."""

from django.db import migrations, models

_UNCONSTRAINED = {"db_constraint": False, "db_index": False, "on_delete": models.DO_NOTHING}


class Migration(migrations.Migration):
    dependencies = [("keys", "0014_audit_by_time")]
    operations = [
        migrations.AlterField(
            "inflight", "client", models.ForeignKey("keys.client", related_name="+", **_UNCONSTRAINED)
        ),
        migrations.AlterField(
            "inflight", "key", models.ForeignKey("keys.openrouterkey", related_name="in_flight", **_UNCONSTRAINED)
        ),
    ]
