"""The database refuses to change or delete an audit row, whoever asks: the service's own code too.

On SQLite a later migration that alters this table makes it anew, without its triggers: it has to create them again.
A test holds a migrated database against that.
"""

from django.db import migrations

CREATE = {
    "sqlite": [
        f"CREATE TRIGGER keys_auditevent_no_{change} BEFORE {change.upper()} ON keys_auditevent "
        "BEGIN SELECT RAISE(ABORT, 'keys_auditevent is append-only'); END"
        for change in ("update", "delete")
    ],
    "postgresql": [
        "CREATE FUNCTION keys_auditevent_refuse() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'keys_auditevent is append-only'; END $$",
        "CREATE TRIGGER keys_auditevent_append_only BEFORE UPDATE OR DELETE ON keys_auditevent "
        "FOR EACH ROW EXECUTE FUNCTION keys_auditevent_refuse()",
    ],
}
DROP = {
    "sqlite": ["DROP TRIGGER keys_auditevent_no_update", "DROP TRIGGER keys_auditevent_no_delete"],
    "postgresql": [
        "DROP TRIGGER keys_auditevent_append_only ON keys_auditevent",
        "DROP FUNCTION keys_auditevent_refuse()",
    ],
}


def create(apps, schema_editor):
    for statement in CREATE[schema_editor.connection.vendor]:
        schema_editor.execute(statement, params=None)


def drop(apps, schema_editor):
    for statement in DROP[schema_editor.connection.vendor]:
        schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    dependencies = [("keys", "0011_client_replaced_by")]
    operations = [migrations.RunPython(create, drop)]
