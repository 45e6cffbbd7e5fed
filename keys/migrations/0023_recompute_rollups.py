"""Let the next run of the roll-ups begin from the start: the sums of before lack what was added to them.

Until it has caught up, reports read the ledger itself.
"""

from django.db import migrations


def forget_the_last_run(apps, schema_editor):
    apps.get_model("keys", "Watermark").objects.filter(name="usage").delete()


class Migration(migrations.Migration):
    dependencies = [("keys", "0022_usage_hour_indexes")]
    operations = [migrations.RunPython(forget_the_last_run, migrations.RunPython.noop)]
