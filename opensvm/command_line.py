"""What `manage.py` does: read `.env`, then Django's commands. What the operator can mend is told in one sentence."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from django.conf import settings
from django.core.management import execute_from_command_line
from django.db import Error as DatabaseError

from keys.errors import KeysError
from keys.keyring import KeyringError
from opensvm.env_file import read_env_file
from opensvm.environment import SettingError
from opensvm.serve import sandbox
from opensvm.serve.errors import StartError

ROOT = Path(__file__).resolve().parent.parent


def main(arguments: Sequence[str]) -> int:
    """Run one command; the exit code. `--traceback` shows where an error comes from."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "opensvm.settings")
    os.umask(0o077)  # sessions and sealed keys are in these files: no other user of the machine may read them
    try:
        read_env_file(ROOT / ".env", os.environ)
        if sandbox.is_asked_for(arguments, os.environ):
            for line in sandbox.enter(os.environ, arguments, ROOT):
                print(line, flush=True)
        settings.INSTALLED_APPS  # noqa: B018  # Django would hide what is wrong with a setting behind "unknown command"
        execute_from_command_line(list(arguments))
    except (SettingError, KeyringError, KeysError, StartError, DatabaseError) as exc:
        if "--traceback" in arguments:
            raise
        print(sentence(exc), file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def sentence(exc: Exception) -> str:
    """One line that says what is wrong and what to do."""
    text = " ".join(str(exc).split())
    if isinstance(exc, DatabaseError):
        return f"The database can't be used: {text or type(exc).__name__}. Check DATABASE_URL; bin/serve migrates it."
    return text
