"""Other gateways, installed once under `.cache/bench/` in the pinned version, and pointed at the benchmark's upstream.

Each runs as its own documentation advises for production, on one core, without a database. What can't be had here
raises `Missing`, and is named so in the table.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from bench.errors import Missing
from bench.load import MODEL, Order
from bench.process_tree import Tree
from bench.targets import ROOT, Bench, Target, running_process, wait_until_ready
from opensvm.serve.addresses import free_port
from tests import hermetic

LITELLM, PORTKEY = PEERS = "LiteLLM proxy", "Portkey gateway"
LITELLM_VERSION = "1.102.4"
PORTKEY_VERSION = "1.15.2"
HONO_VERSION = "1.14.1"  # with newer ones this Portkey answers 500 to every stream: its issues 1389 and 1550
_CACHE = ROOT / ".cache" / "bench"
_DONE = "installed"
_INSTALL_SECONDS = 900.0
_KEY = "sk-bench-fake"
_LITELLM_CONFIG = f"""\
model_list:
  - model_name: {MODEL}
    litellm_params:
      model: anthropic/{MODEL}
      api_base: %s
      api_key: {_KEY}
general_settings:
  master_key: {_KEY}
litellm_settings:
  request_timeout: 600
  set_verbose: false
"""
_LITELLM_VARIABLES = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # it would ask the network for prices first
}
_QUIET = {"version": 1, "disable_existing_loggers": False, "loggers": {"uvicorn.access": {"level": "WARNING"}}}


@contextmanager
def running_litellm(bench: Bench) -> Iterator[Target]:
    """One worker; its Anthropic route, which asks an Anthropic-compatible upstream without translating."""
    program = _litellm_program()
    port, folder = free_port(), bench.folder / "litellm"
    folder.mkdir()
    (folder / "config.yaml").write_text(_LITELLM_CONFIG % bench.upstream.base_url.removesuffix("/v1"))
    (folder / "log.json").write_text(json.dumps(_QUIET))
    command = [str(program), "--config", str(folder / "config.yaml"), "--log_config", str(folder / "log.json")]
    command += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    with running_process("litellm", command, _environment(_LITELLM_VARIABLES), bench) as process:
        seconds = wait_until_ready(f"http://127.0.0.1:{port}/health/liveliness", process)
        yield _checked(Target(
            name=LITELLM,
            url=f"http://127.0.0.1:{port}/v1/messages",
            headers={"x-api-key": _KEY},
            tree=Tree(process.pid),
            web=Tree(process.pid),
            start_seconds=seconds,
            version=LITELLM_VERSION,
        ))  # fmt: skip


@contextmanager
def running_portkey(bench: Bench) -> Iterator[Target]:
    """One Node process; each request says where it goes, as Portkey's clients do."""
    script = _portkey_script()
    port = free_port()
    command = ["node", str(script), f"--port={port}", "--headless"]
    with running_process("portkey", command, _environment({"NODE_ENV": "production"}), bench) as process:
        seconds = wait_until_ready(f"http://127.0.0.1:{port}/", process)
        yield _checked(Target(
            name=PORTKEY,
            url=f"http://127.0.0.1:{port}/v1/messages",
            headers={
                "x-portkey-provider": "anthropic",
                "x-portkey-custom-host": bench.upstream.base_url,
                "x-api-key": _KEY,
            },
            tree=Tree(process.pid),
            web=Tree(process.pid),
            start_seconds=seconds,
            version=PORTKEY_VERSION,
        ))  # fmt: skip


def _checked(target: Target) -> Target:
    """That one answer and one stream are the upstream's: nothing else would be a measurement."""
    for streams, mark in ((False, b"gen-1700000000-"), (True, b"message_stop")):
        order = Order(target.url, target.headers, streams=streams)
        request = urllib.request.Request(order.url, order.body.encode(), order.all_headers)  # noqa: S310  # loopback
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310  # loopback
                body = answer.read()
        except OSError as exc:
            raise Missing(f"{target.name} {target.version} does not answer here: {exc}") from exc
        if mark not in body:
            raise Missing(f"{target.name} {target.version} does not pass on what the upstream says")
    return target


def _environment(variables: Mapping[str, str]) -> dict[str, str]:
    return hermetic.clean_environment(os.environ) | dict(variables)


def _litellm_program() -> Path:
    folder = _CACHE / f"litellm-{LITELLM_VERSION}"
    pip = folder / "bin" / "pip"
    if not (folder / _DONE).exists():
        _install([sys.executable, "-m", "venv", "--clear", str(folder)])
        _install([str(pip), "install", "--quiet", "--retries", "1", f"litellm[proxy]=={LITELLM_VERSION}"])
        (folder / _DONE).touch()
    return folder / "bin" / "litellm"


def _portkey_script() -> Path:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise Missing(f"there is no {program} on this machine")
    folder = _CACHE / f"portkey-{PORTKEY_VERSION}-{HONO_VERSION}"
    if not (folder / _DONE).exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        pinned = {"private": True, "overrides": {"@hono/node-server": HONO_VERSION}}
        (folder / "package.json").write_text(json.dumps(pinned))
        options = ["--no-audit", "--no-fund", "--ignore-scripts", "--loglevel=error", "--fetch-retries=1"]
        _install(["npm", "install", *options, f"@portkey-ai/gateway@{PORTKEY_VERSION}"], cwd=folder)
        (folder / _DONE).touch()
    return folder / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"


def _install(command: list[str], cwd: Path | None = None) -> None:
    """Raises `Missing` with the last line of what the installer said."""
    try:
        done = subprocess.run(  # noqa: S603  # our own command, no shell
            command, cwd=cwd, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Missing(f"{Path(command[0]).name} failed: {type(exc).__name__}") from exc
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        raise Missing(f"could not be installed: {said[-1][:200]}")
