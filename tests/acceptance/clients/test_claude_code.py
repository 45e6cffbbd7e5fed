"""Claude Code, headless, against the service; only with `OPENSVM_TEST_CLAUDE_CODE=1`, as it is installed from npm.

A forwarder between the two notes what Claude Code asks for.
"""

from __future__ import annotations

import http.client
import json
import os
import platform
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests import hermetic
from tests.acceptance.clients.conftest import Target
from tests.acceptance.clients.environments import NodeClient, Unavailable
from tests.acceptance.service import wait_until

VERSION = "2.1.330"
CLIENT = ("Claude Code", VERSION)
MODEL = "anthropic/claude-opus-4.5"
RUN_SECONDS = 90.0
HOP_BY_HOP = {"connection", "transfer-encoding", "keep-alive"}

if os.environ.get(hermetic.TEST_CLAUDE_CODE) != "1":
    pytest.skip(f"Claude Code is asked only with {hermetic.TEST_CLAUDE_CODE}=1", allow_module_level=True)


@dataclass(slots=True)
class Forwarder:
    """Passes requests on to the service. `seen`: (method, path with query, status)."""

    port: int
    seen: list[tuple[str, str, int]] = field(default_factory=list)
    url: str = ""

    def on(self, path: str) -> list[tuple[str, str, int]]:
        return [one for one in self.seen if one[1].partition("?")[0] == path]


@pytest.fixture
def forwarder(target: Target) -> Iterator[Forwarder]:
    forwarder = Forwarder(target.service.port)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("content-length", 0)))
            connection = http.client.HTTPConnection("127.0.0.1", forwarder.port, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            forwarder.seen.append((self.command, self.path, answer.status))
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in HOP_BY_HOP | {"content-length"}:
                    self.send_header(name, value)
            whole = b"" if self.command == "HEAD" else answer.read()
            self.send_header("content-length", str(len(whole)))
            self.end_headers()
            self.wfile.write(whole)
            connection.close()

        do_GET = do_POST = do_HEAD = _forward  # noqa: N815 - the names of http.server

        def log_message(self, *_: object) -> None:
            """Not on the test's output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        forwarder.url = f"http://127.0.0.1:{server.server_port}"
        yield forwarder
        server.shutdown()
        thread.join(10)


@pytest.fixture(scope="module")
def binary() -> Path:
    """The native build, which needs no node of the version that its wrapper asks for."""
    client = NodeClient("@anthropic-ai/claude-code", VERSION)
    machine = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    try:
        folder = client.prepare()
    except Unavailable as exc:
        pytest.skip(f"{client.name} {VERSION}: {exc}")
    found = folder / "node_modules" / "@anthropic-ai" / f"claude-code-linux-{machine}" / "claude"
    if not found.exists():
        pytest.skip(f"Claude Code {VERSION} has no native build for this machine")
    return found


@dataclass(frozen=True, slots=True)
class ClaudeCode:
    binary: Path
    home: Path
    forwarder: Forwarder
    client_key: str

    def ask(self, prompt: str, *options: str, **variables: str) -> dict[str, Any]:
        """The result of one headless turn."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "ANTHROPIC_BASE_URL": self.forwarder.url,
            "ANTHROPIC_AUTH_TOKEN": self.client_key,
            "ANTHROPIC_MODEL": MODEL,
            "ANTHROPIC_DEFAULT_HAIKU_MODEL": MODEL,
            "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
            **variables,
        }
        done = subprocess.run(
            [str(self.binary), "-p", prompt, "--output-format", "json", *options],
            env=environment,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=RUN_SECONDS,
        )
        assert done.stdout, done.stderr
        found = json.loads(done.stdout)
        result: dict[str, Any] = found[-1] if isinstance(found, list) else found
        return result


@pytest.fixture
def claude(binary: Path, tmp_path: Path, forwarder: Forwarder, target: Target) -> ClaudeCode:
    target.script()
    return ClaudeCode(binary, tmp_path, forwarder, target.client_key)


def test_a_plain_turn(claude: ClaudeCode, target: Target) -> None:
    target.upstream.behave(text="Hello from the sandbox.")
    result = claude.ask("Say hi.")
    assert (result["is_error"], result["result"]) == (False, "Hello from the sandbox.")
    assert {status for _, _, status in claude.forwarder.on("/v1/messages")} == {200}
    wait_until(lambda: bool(target.service.log("request.settled")))


def test_a_tool_round_trip(claude: ClaudeCode, target: Target) -> None:
    """The answer asks for Bash, its output comes back, and the next answer ends the turn."""
    use = {"type": "tool_use", "id": "toolu_1", "name": "Bash", "input": {"command": "echo round-$((40+2))-trip"}}
    target.upstream.behave(content=(use,), stop_reason="tool_use", times=1)
    target.upstream.behave(text="Done.")
    result = claude.ask("Use the shell.", "--allowedTools", "Bash")
    assert (result["is_error"], result["result"]) == (False, "Done.")
    bodies = [json.dumps(request.body) for request in target.upstream.requests()]
    assert any("round-42-trip" in body for body in bodies)


def test_context_counts_tokens(claude: ClaudeCode, target: Target) -> None:
    result = claude.ask("/context")
    assert not result["is_error"], result
    counts = claude.forwarder.on("/v1/messages/count_tokens")
    assert len(counts) >= 10, claude.forwarder.seen
    assert {status for _, _, status in counts} == {200}
    assert target.upstream.requests() == []


def test_model_discovery(claude: ClaudeCode, target: Target) -> None:
    target.upstream.behave(text="Hello.")
    claude.ask("Say hi.", CLAUDE_CODE_ENABLE_GATEWAY_MODEL_DISCOVERY="1")
    assert ("GET", "/v1/models?limit=1000", 200) in claude.forwarder.seen, claude.forwarder.seen


def test_a_wrong_key_is_said_at_once(claude: ClaudeCode, target: Target) -> None:
    """`x-should-retry: false` keeps it from trying ten times."""
    result = claude.ask("Say hi.", ANTHROPIC_AUTH_TOKEN="not-a-key")
    assert result["is_error"]
    assert [status for _, _, status in claude.forwarder.on("/v1/messages")] == [401]
