"""The audit's filter by period must not scan the table. On SQLite an index leaves the table, and its triggers, alone."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("keys", "0013_roles")]
    operations = [migrations.AddIndex("auditevent", models.Index(fields=["at"], name="audit_by_time"))]
