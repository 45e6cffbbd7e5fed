"""No query uses it: a search by key is led by the hours in which the key was used."""

from django.db import migrations

from keys.migration_operations import RemoveIndexOnline


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("keys", "0024_request_by_generation")]
    operations = [RemoveIndexOnline(model_name="requestlog", name="request_by_key")]
