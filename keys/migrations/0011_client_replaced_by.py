"""Which client holds the key that took another one's place."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("keys", "0010_key_imports")]
    operations = [
        migrations.AddField(
            "client",
            "replaced_by",
            models.OneToOneField(
                blank=True,
                editable=False,
                null=True,
                on_delete=django.db.models.deletion.SET_NULL,
                related_name="replaces",
                to="keys.client",
            ),
        ),
    ]
