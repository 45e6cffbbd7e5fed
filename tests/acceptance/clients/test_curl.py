"""curl as people use it: without a version, with `Expect`, over HTTP/1.0, chunked, with HEAD and with OPTIONS."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.clients.conftest import Target

MODEL = "anthropic/claude-opus-4.5"
MB = 1024 * 1024

if shutil.which("curl") is None:
    pytest.skip("there is no curl on this machine", allow_module_level=True)
VERSION = subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.split()[1]


CLIENT = ("curl", VERSION)


def curl(target: Target, path: str, *options: str, key: bool = True) -> str:
    """What curl prints, with `--include` or not as `options` say."""
    credential = ["-H", f"x-api-key: {target.client_key}"] if key else []
    command = ["curl", "-sS", "--noproxy", "*", "--max-time", "20", *credential, *options, f"{target.url}{path}"]
    done = subprocess.run(command, capture_output=True, timeout=30)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def body(text: str = "Hello", **fields: object) -> str:
    messages = [{"role": "user", "content": text}]
    return json.dumps({"model": MODEL, "max_tokens": 100, "messages": messages, **fields})


def head_and_body(printed: str) -> tuple[list[str], str]:
    """Of `--include`; a 100 Continue before it is left out."""
    head, _, rest = printed.partition("\r\n\r\n")
    while head.startswith(("HTTP/1.1 100", "HTTP/1.0 100")):
        head, _, rest = rest.partition("\r\n\r\n")
    return head.lower().split("\r\n"), rest


def test_without_a_version_2023_06_01_is_assumed(target: Target) -> None:
    answer = json.loads(curl(target, "/v1/messages", "-H", "content-type: application/json", "-d", body("no version")))
    assert answer["content"][0]["text"].endswith("no version")
    assert target.upstream.requests()[-1].headers["anthropic-version"] == "2023-06-01"


def test_the_content_type_that_curl_sends_by_itself(target: Target) -> None:
    assert json.loads(curl(target, "/v1/messages", "-d", body()))["type"] == "message"


def test_a_bearer_token(target: Target) -> None:
    bearer = f"Authorization: Bearer {target.client_key}"
    assert json.loads(curl(target, "/v1/messages", "-H", bearer, "-d", body(), key=False))["type"] == "message"


def test_a_stream(target: Target) -> None:
    printed = curl(target, "/v1/messages", "-N", "-i", "-d", body(stream=True))
    head, events = head_and_body(printed)
    assert "content-type: text/event-stream; charset=utf-8" in head
    assert events.startswith((": ", "event: message_start"))
    assert events.rstrip().endswith('data: {"type":"message_stop"}')


def test_expect_100_continue(target: Target, tmp_path: Path) -> None:
    """curl asks by itself for bodies over 1 MB, and waits a second for the answer if none comes."""
    large = tmp_path / "body"
    large.write_text(body("x" * 2 * MB))
    printed = curl(target, "/v1/messages", "-i", "-H", "Expect: 100-continue", "--data-binary", f"@{large}")
    assert printed.startswith("HTTP/1.1 100")
    assert head_and_body(printed)[0][0] == "http/1.1 200 ok"


def test_http_1_0(target: Target) -> None:
    whole = curl(target, "/v1/messages", "--http1.0", "-d", body("over 1.0"))
    assert json.loads(whole)["content"][0]["text"].endswith("over 1.0")
    head, events = head_and_body(curl(target, "/v1/messages", "--http1.0", "-i", "-N", "-d", body(stream=True)))
    assert not [line for line in head if line.startswith("transfer-encoding")]
    assert "message_stop" in events


def test_a_chunked_body(target: Target) -> None:
    chunked = ["-H", "Transfer-Encoding: chunked", "-d", body("in chunks")]
    assert json.loads(curl(target, "/v1/messages", *chunked))["content"][0]["text"].endswith("in chunks")


def test_head(target: Target) -> None:
    head, rest = head_and_body(curl(target, "/v1/models", "-I"))
    assert (head[0], rest) == ("http/1.1 200 ok", "")
    refused, _ = head_and_body(curl(target, "/v1/messages", "-I"))
    assert refused[0].startswith("http/1.1 405")
    assert "allow: post, options" in refused


def test_options_need_no_key_and_allow_no_page(target: Target) -> None:
    page = ["-H", "Origin: https://app.example.com", "-H", "Access-Control-Request-Method: POST"]
    head, rest = head_and_body(curl(target, "/v1/messages", "-i", "-X", "OPTIONS", *page, key=False))
    assert (head[0], rest) == ("http/1.1 204 no content", "")
    assert "allow: post, options" in head
    assert not [line for line in head if line.startswith("access-control")]


def test_models_and_token_counts(target: Target) -> None:
    assert MODEL in [row["id"] for row in json.loads(curl(target, "/v1/models"))["data"]]
    assert json.loads(curl(target, f"/v1/models/{MODEL}"))["id"] == MODEL
    assert json.loads(curl(target, "/v1/messages/count_tokens", "-d", body()))["input_tokens"] > 0


def test_chat_completions(target: Target) -> None:
    assert json.loads(curl(target, "/v1/chat/completions", "-d", body()))["object"] == "chat.completion"
    streamed = curl(target, "/v1/chat/completions", "-N", "-d", body(stream=True))
    assert streamed.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize(
    ("path", "status"),
    [("/v1/nothing", 404), ("/v1/messages?beta=true", 200), ("/v1/models/none", 404)],
)
def test_a_query_and_unknown_paths(target: Target, path: str, status: int) -> None:
    options = ["-d", body()] if "messages" in path else []
    head, _ = head_and_body(curl(target, path, "-i", *options))
    assert head[0].split()[1] == str(status)
    assert [line for line in head if line.startswith("request-id: req_")]


def test_a_slow_reader_gets_the_whole_answer(target: Target) -> None:
    printed = curl(target, "/v1/messages", "-N", "--limit-rate", "40k", "-d", body("x" * 60_000, stream=True))
    assert printed.rstrip().endswith('data: {"type":"message_stop"}')
