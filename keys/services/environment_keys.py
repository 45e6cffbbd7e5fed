"""Imports the keys of OPENROUTER_API_KEY and OPENROUTER_API_KEYS into the pool. Called once at the start of `serve`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping

from keys.errors import InvalidKeyText
from keys.key_text import parse_key_text
from keys.models import KeyState, OpenRouterKey
from keys.sealing import get_vault
from keys.services.audit import ENVIRONMENT, Actor
from keys.services.key_imports import ImportedKey, ImportReport, KeyEntry, import_entries, read_entries

logger = logging.getLogger("opensvm.keys")

VARIABLES = ("OPENROUTER_API_KEY", "OPENROUTER_API_KEYS")
NAME_PATTERN = "env-{n}"


def read_environment(variables: Mapping[str, str]) -> list[KeyEntry]:
    """The entries of both variables, in this order."""
    return [entry for name in VARIABLES for entry in read_entries(variables.get(name, ""), name)]


def import_environment_keys(variables: Mapping[str, str], *, actor: Actor = ENVIRONMENT) -> ImportReport:
    """Add what is new in `variables`, usually os.environ; leave what is known as it is; warn of the rest."""
    entries = read_environment(variables)
    report = import_entries(entries, actor=actor, name_pattern=NAME_PATTERN, from_environment=True)
    report = dataclasses.replace(report, missing=_find_missing(entries))
    for place in report.refused:
        logger.warning(
            f"skipped {place}: it is not an OpenRouter key (sk-or-v1-…)",
            extra={"event": "import.refused", "place": place},
        )
    for key in report.missing:
        logger.warning(
            f"{key.name}, the key ending {key.tail}, is no longer in the environment: it stays in the pool until you "
            "disable or retire it",
            extra={"event": "import.missing", "key": key.tail, "key_name": key.name},
        )
    return report


def _find_missing(entries: Iterable[KeyEntry]) -> tuple[ImportedKey, ...]:
    fingerprints = {fingerprint for entry in entries if (fingerprint := _fingerprint(entry))}
    keys = OpenRouterKey.objects.filter(from_environment=True).exclude(state=KeyState.RETIRED)
    missing = [key for key in keys if key.fingerprint not in fingerprints]
    return tuple(ImportedKey(key.name, key.tail, key.state) for key in missing)


def _fingerprint(entry: KeyEntry) -> str | None:
    try:
        return get_vault().fingerprint(parse_key_text(entry.text.reveal()))
    except InvalidKeyText:
        return None
