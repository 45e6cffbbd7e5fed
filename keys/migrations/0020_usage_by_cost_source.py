"""How much of a cost was asked for afterwards, and how much is estimated."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("keys", "0004_cost_inquiries")]
    # The database's own default, so that code of before this migration may go on inserting.
    operations = [
        migrations.AddField("usagehour", "reconciled_nano", models.BigIntegerField(db_default=0)),
        migrations.AddField("usagehour", "estimated_nano", models.BigIntegerField(db_default=0)),
    ]
