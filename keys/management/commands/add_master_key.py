"""`add_master_key`: a new master key, which seals from now on. The old ones stay in the keyring."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from keys.management.refusals import refusals_as_command_errors
from keys.services.audit import COMMAND_LINE
from keys.services.master_keys import add_master_key


class Command(BaseCommand):
    help = "Add a master key to the keyring and make it the active one. Secrets stay sealed with the old one for now."

    def handle(self, *args: Any, **options: Any) -> None:
        with refusals_as_command_errors():
            key_id = add_master_key(actor=COMMAND_LINE)
        self.stdout.write(f"Added master key {key_id} to {settings.OPENSVM_KEYRING}; it is the active one.")
        self.stdout.write("Now back up the keyring, copy it to every machine of this service, then run rewrap_secrets.")
