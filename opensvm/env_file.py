"""Reads `.env` in the project's folder into the environment; `manage.py` does so before the settings are imported."""

from __future__ import annotations

from collections.abc import MutableMapping
from pathlib import Path

from dotenv.parser import parse_stream

from opensvm.environment import SettingError


def read_env_file(path: Path, variables: MutableMapping[str, str]) -> None:
    """Add what `path` sets to `variables`; what is there already wins, also when it is empty.

    `NAME=value`, quotes and comments after values as a shell has them; nothing is expanded, so a `$` stays one.
    SettingError names the line that can't be understood and never repeats it: it may hold a secret.
    """
    try:
        with path.open(encoding="utf-8-sig") as file:
            bindings = list(parse_stream(file))
    except FileNotFoundError:
        return
    except UnicodeDecodeError as exc:
        raise SettingError(f"{path} is not UTF-8 text: save it as such.") from exc
    except OSError as exc:
        raise SettingError(f"{path} can't be read: {exc.strerror}.") from exc
    for binding in bindings:
        if binding.error or (binding.key and binding.value is None):
            raise SettingError(f"{path}, line {binding.original.line}, can't be understood: write NAME=value.")
        if binding.key and binding.value is not None:
            variables.setdefault(binding.key, binding.value)
