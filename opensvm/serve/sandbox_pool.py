"""What a sandbox is filled with: three keys of the imitation upstream, and one client whose key is kept."""

from __future__ import annotations

import os
from pathlib import Path

from django.utils import timezone

from keys.models import Client
from keys.sealing import get_vault
from keys.services.audit import Actor
from keys.services.clients import create_client
from keys.services.key_imports import import_entries, read_entries
from opensvm.sandbox.keys import ensure_keys_file

KEYS_FILE = "upstream-keys"
CLIENT_FILE = "client-key"
CLIENT_NAME = "sandbox"
ACTOR = Actor("sandbox")


def fill(folder: Path) -> str:
    """Make what is missing; the key of a client that may be used now."""
    texts = " ".join(ensure_keys_file(folder / KEYS_FILE))
    import_entries(read_entries(texts, KEYS_FILE), actor=ACTOR, name_pattern="sandbox-{n}")
    return _kept_client_key(folder / CLIENT_FILE) or _new_client_key(folder / CLIENT_FILE)


def _kept_client_key(path: Path) -> str | None:
    try:
        client_key = path.read_text().strip()
    except OSError:
        return None
    usable = Client.objects.filter(revoked_at=None).exclude(expires_at__lte=timezone.now())
    return client_key if usable.filter(digest=get_vault().client_digest(client_key)).exists() else None


def _new_client_key(path: Path) -> str:
    client_key, _ = create_client(actor=ACTOR, name=_free_name(), scopes=("messages", "stats"))
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{client_key}\n")
    return client_key


def _free_name() -> str:
    """Names are never given twice, so a revoked sandbox client leaves its own behind."""
    taken = Client.objects.filter(name__startswith=CLIENT_NAME).count()
    return f"{CLIENT_NAME}-{taken + 1}" if taken else CLIENT_NAME
