"""Fills the database of the settings for a scale curve: many clients, a large ledger. Run by `bench.own_service`."""

from __future__ import annotations

import argparse
from pathlib import Path

import django

django.setup(set_prefix=False)

from django.utils import timezone  # noqa: E402  # Django must be set up first

from bench import ledger_rows  # noqa: E402
from keys.client_keys import new_client_key, prefix_of  # noqa: E402
from keys.models import Client, KeyState, OpenRouterKey, Watermark  # noqa: E402
from keys.sealing import get_vault  # noqa: E402

_BATCH = 500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=0)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--keys-file", type=Path)
    arguments = parser.parse_args()
    if arguments.rows:
        fill_ledger(arguments.rows)
    if arguments.clients > 1:
        arguments.keys_file.write_text("".join(f"{key}\n" for key in make_clients(arguments.clients)))


def make_clients(count: int) -> list[str]:
    """Their keys. Past the service: it audits each one, and would take minutes."""
    keys, vault = [new_client_key() for _ in range(count)], get_vault()
    clients = [
        Client(name=f"bench-{n}", digest=vault.client_digest(key), prefix=prefix_of(key), scopes="messages")
        for n, key in enumerate(keys)
    ]
    Client.objects.bulk_create(clients, batch_size=_BATCH)
    return keys


def fill_ledger(count: int) -> None:
    """The rows' own keys serve nobody, and Celery need not sum up a year before it has anything to do."""
    now = timezone.now()
    ledger_rows.insert(count, now)
    OpenRouterKey.objects.filter(fingerprint__startswith="bench-").update(state=KeyState.DISABLED)
    Watermark.objects.update_or_create(name="usage", defaults={"at": now})


if __name__ == "__main__":
    main()
