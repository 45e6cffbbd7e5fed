from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("keys", "0027_audit_is_not_truncated")]
    operations = [
        migrations.AddField(
            model_name="openrouterkey",
            name="owner",
            field=models.CharField(blank=True, db_default="", editable=False, max_length=200),
        ),
    ]
