"""`--sandbox`: the whole service in a folder of its own, against an imitation of OpenRouter on this machine.

`enter` runs before the settings are read: they then describe the sandbox, and nothing of the real pool can be reached.
`OPENSVM_SANDBOX=1 manage.py …` runs any other command on the sandbox.
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from pathlib import Path

from opensvm.environment import Environment
from opensvm.serve.addresses import free_port

FLAG = "--sandbox"
VARIABLE = "OPENSVM_SANDBOX"
IGNORED = (
    "OPENROUTER_API_KEY",
    "OPENROUTER_API_KEYS",
    "OPENROUTER_BASE_URL",
    "DATABASE_URL",
    "CELERY_BROKER_URL",
    "OPENSVM_KEYRING",
    "OPENSVM_LOG_FILE",
)
PORT_FILE = "upstream-port"
NO_UPSTREAM_PORT = 9  # the discard port: nothing answers there
UPSTREAM_PATH = "/api/v1"


def is_asked_for(arguments: Sequence[str], variables: MutableMapping[str, str]) -> bool:
    """By `serve --sandbox`, or by the variable for every command."""
    is_serve = list(arguments[1:2]) == ["serve"]
    return (is_serve and FLAG in arguments) or Environment(variables).flag(VARIABLE, False)


def enter(variables: MutableMapping[str, str], arguments: Sequence[str], root: Path) -> list[str]:
    """Change `variables` to the sandbox's own; what to tell the operator about it."""
    ignored = [name for name in IGNORED if variables.pop(name, "").strip()]
    folder = Environment(variables).path("OPENSVM_VAR_DIR", root / "var", base=root) / "sandbox"
    port = free_port() if list(arguments[1:2]) == ["serve"] else _running_port(folder)
    variables.update(
        {
            VARIABLE: "1",
            "OPENSVM_ENVIRONMENT": "sandbox",
            "OPENSVM_VAR_DIR": str(folder),
            "OPENSVM_LOG_FILE": str(folder / "logs" / "opensvm.log"),
            "OPENROUTER_BASE_URL": f"http://127.0.0.1:{port}{UPSTREAM_PATH}",
        }
    )
    if not ignored:
        return []
    return [f"The sandbox has its own pool, database and upstream, and ignores {', '.join(ignored)}."]


def _running_port(folder: Path) -> int:
    try:
        return int((folder / PORT_FILE).read_text())
    except (OSError, ValueError):
        return NO_UPSTREAM_PORT
