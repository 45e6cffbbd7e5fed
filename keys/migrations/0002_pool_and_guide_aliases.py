"""The Pool's one row, and the five model names of the OpenRouter setup guide."""

from django.db import migrations

GUIDE_ALIASES = {
    "claude-3-sonnet-20240229": "anthropic/claude-3.5-sonnet",
    "claude-3-opus-20240229": "anthropic/claude-3-opus",
    "claude-3-haiku-20240307": "anthropic/claude-3-haiku",
    "claude-3-sonnet-4": "anthropic/claude-3.5-sonnet",
    "claude-3-opus-4": "anthropic/claude-3-opus",
}


def create(apps, schema_editor):
    apps.get_model("keys", "Pool").objects.get_or_create(id=1)
    alias = apps.get_model("keys", "ModelAlias")
    for name, target in GUIDE_ALIASES.items():
        alias.objects.get_or_create(name=name, defaults={"target": target})


class Migration(migrations.Migration):
    dependencies = [("keys", "0001_initial")]
    # Backwards: the tables go away with 0001, and an operator may have changed the rows since.
    operations = [migrations.RunPython(create, migrations.RunPython.noop)]
