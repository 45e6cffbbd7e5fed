"""The groups Operators and Auditors. A migration that adds a page later gives it to them itself.

What an administrator added to a group of that name stays; going back removes both groups.
"""

from django.contrib.auth.management import create_permissions
from django.db import migrations

EVERYTHING_OF_THE_DESK = {
    "openrouterkey": ("view", "add", "change"),
    "account": ("view", "add", "change"),
    "cooldown": ("view",),
    "client": ("view", "add", "change"),
    "modelalias": ("view", "add", "change", "delete"),
    "requestlog": ("view",),
    "attempt": ("view",),
    "usagehour": ("view",),
    "auditevent": ("view",),
}
REPORTS = {model: ("view",) for model in ("requestlog", "attempt", "usagehour", "auditevent")}
ROLES = {"Operators": EVERYTHING_OF_THE_DESK, "Auditors": REPORTS}


def create_roles(apps, schema_editor):
    _create_permissions(apps, schema_editor.connection.alias)
    Group, Permission = apps.get_model("auth", "Group"), apps.get_model("auth", "Permission")
    for role, may in ROLES.items():
        group, _ = Group.objects.get_or_create(name=role)
        names = [f"{verb}_{model}" for model, verbs in may.items() for verb in verbs]
        found = Permission.objects.filter(content_type__app_label="keys", codename__in=names)
        assert found.count() == len(names), names
        group.permissions.add(*found)


def _create_permissions(apps, alias):
    """Django makes them after all migrations, which is too late here."""
    app = apps.get_app_config("keys")
    app.models_module = True  # what it asks an app that has models for
    create_permissions(app, verbosity=0, using=alias, apps=apps)


def remove_roles(apps, schema_editor):
    apps.get_model("auth", "Group").objects.filter(name__in=ROLES).delete()


class Migration(migrations.Migration):
    dependencies = [
        ("keys", "0012_audit_is_append_only"),
        ("auth", "0012_alter_user_first_name_max_length"),
        ("contenttypes", "0002_remove_content_type_name"),
    ]
    operations = [migrations.RunPython(create_roles, remove_roles)]
