"""What `serve` tells the operator: where it is, what it found, and what is still missing. Pure.

The two lines with a check mark are those that the OpenRouter setup guide says to look for.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from keys.services.key_imports import ImportReport
from opensvm.serve.admin_user import AdminUser

NO_KEY = "At least one OpenRouter API key is required"
SHORT_TIMEOUT_SECONDS = 120.0
CLIENT_KEY_PLACEHOLDER = "sk-ant-api03-your-opensvm-key"
GUIDE_MODEL = "claude-3-sonnet-20240229"
GUIDE_QUESTION = "Hello! Can you confirm you are working through OpenRouter?"


@dataclass(frozen=True, slots=True)
class Situation:
    """All that the texts are made of. `client_key` is known only in the sandbox, whose key it is."""

    url: str
    log_file: Path
    upstream_url: str
    environment: str
    manage: Path
    active_keys: int
    clients: int
    timeout_seconds: float
    serves_web: bool = True
    client_key: str | None = None
    is_sandbox: bool = False
    listens_everywhere: bool = False


def status_lines(situation: Situation) -> list[str]:
    """The first lines: where everything is. The check marks are what the guide greps for."""
    lines = []
    if situation.is_sandbox:
        lines.append("SANDBOX: the upstream is a local imitation. No model is asked and no money is spent.")
    if situation.serves_web:
        lines.append(f"URL: {situation.url} (admin: {situation.url}/admin/)")
    lines.append(f"Log: {situation.log_file}")
    if situation.active_keys:
        lines.append(f"✓ Initialized with {situation.active_keys} OpenRouter API key(s)")
    lines.append(f"✓ Using OpenRouter endpoint: {situation.upstream_url}")
    return lines


def warnings(situation: Situation) -> list[str]:
    lines = []
    if situation.timeout_seconds < SHORT_TIMEOUT_SECONDS:
        lines.append(
            f"OPENROUTER_TIMEOUT is {situation.timeout_seconds:g} s: long answers that are not streamed will be cut; "
            "set it to 120000 (ms) or more."
        )
    if situation.listens_everywhere and urlsplit(situation.url).hostname in ("127.0.0.1", "::1"):
        lines.append(
            f"OPENSVM_HOST is every address of this machine, but the admin answers at {situation.url} only: "
            "set OPENSVM_URL to the address that others use."
        )
    return lines


def admin_user_line(user: AdminUser) -> str:
    if user.password is not None:
        return f"Admin user {user.name!r} is made. Its password, shown this once: {user.password}"
    if user.password_file is not None:
        return f"Admin user {user.name!r} is made. Read its password in {user.password_file}, then delete the file."
    return f"Admin user {user.name!r} is made, with the password from DJANGO_SUPERUSER_PASSWORD."


def import_lines(report: ImportReport) -> list[str]:
    """What became of the environment's keys, where it is not what the operator may expect."""
    lines = [f"Skipped {place}: it is not an OpenRouter key (sk-or-v1-…)." for place in report.refused]
    for key in report.missing:
        lines.append(f"{key} is no longer in the environment. It stays in the pool until you disable or retire it.")
    return lines


def next_lines(situation: Situation) -> list[str]:
    """What is missing, in the order in which to do it; when nothing is, a request to paste."""
    lines = []
    if not situation.active_keys:
        lines.append(f"{NO_KEY}: add one at {situation.url}/admin/keys/openrouterkey/add/")
    if not situation.clients:
        command = shlex.join([str(situation.manage), "create_client", "NAME"])
        lines.append(f"There is no client yet. Make one, which prints its key: {command}")
    return lines or ["Ready. Try it:", curl(situation)]


def curl(situation: Situation) -> str:
    """The guide's own request."""
    question = {"role": "user", "content": GUIDE_QUESTION}
    body = json.dumps({"model": GUIDE_MODEL, "max_tokens": 100, "messages": [question]})
    return " \\\n  ".join(
        [
            f"curl -X POST {shlex.quote(situation.url + '/v1/messages')}",
            '-H "Content-Type: application/json"',
            f'-H "Authorization: Bearer {situation.client_key or CLIENT_KEY_PLACEHOLDER}"',
            '-H "anthropic-version: 2023-06-01"',
            f"-d {shlex.quote(body)}",
        ]
    )
