"""The index of the round robin in the whole of its order: else all new keys, whose turns are alike, are read and sorted."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("keys", "0028_key_owner")]
    operations = [
        migrations.RemoveIndex("openrouterkey", "key_round_robin"),
        migrations.AddIndex(
            "openrouterkey",
            models.Index(fields=["state", "tier", "turn", "created_at", "id"], name="key_round_robin"),
        ),
    ]
