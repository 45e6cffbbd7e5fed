"""PostgreSQL's triggers on rows see no TRUNCATE: one on statements refuses it. SQLite has none, its DELETE is refused."""

from django.db import migrations

CREATE = (
    "CREATE TRIGGER keys_auditevent_no_truncate BEFORE TRUNCATE ON keys_auditevent "
    "FOR EACH STATEMENT EXECUTE FUNCTION keys_auditevent_refuse()"
)
DROP = "DROP TRIGGER keys_auditevent_no_truncate ON keys_auditevent"


def create(apps, schema_editor):
    _execute(schema_editor, CREATE)


def drop(apps, schema_editor):
    _execute(schema_editor, DROP)


def _execute(schema_editor, statement):
    if schema_editor.connection.vendor == "postgresql":
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("keys", "0026_in_flight_without_indexes")]
    operations = [migrations.RunPython(create, drop)]
