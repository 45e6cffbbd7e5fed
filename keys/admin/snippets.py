"""Ready pieces to paste for a new client key: curl, the SDKs, Claude Code. Pure."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass

ANTHROPIC_VERSION = "2023-06-01"


@dataclass(frozen=True, slots=True)
class Snippet:
    """`name` is also the anchor of the page."""

    name: str
    title: str
    text: str


def snippets_for(client_key: str, *, url: str, model: str) -> list[Snippet]:
    """`url` is the service's public address without a path; `model` a name that it answers to."""
    return [
        Snippet("curl", "curl", _curl(client_key, url, model)),
        Snippet("claude-code", "Claude Code", _claude_code(client_key, url)),
        Snippet("python", "Python, the anthropic package", _python(client_key, url, model)),
        Snippet("typescript", "TypeScript, the @anthropic-ai/sdk package", _typescript(client_key, url, model)),
    ]


def _curl(client_key: str, url: str, model: str) -> str:
    body = {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "Hello!"}]}
    return " \\\n  ".join(
        (
            f"curl {shlex.quote(f'{url}/v1/messages')}",
            f"-H {shlex.quote(f'x-api-key: {client_key}')}",
            f"-H 'anthropic-version: {ANTHROPIC_VERSION}'",
            "-H 'content-type: application/json'",
            f"-d {shlex.quote(json.dumps(body))}",
        )
    )


def _claude_code(client_key: str, url: str) -> str:
    return (
        f"export ANTHROPIC_BASE_URL={shlex.quote(url)}\nexport ANTHROPIC_AUTH_TOKEN={shlex.quote(client_key)}\nclaude"
    )


def _python(client_key: str, url: str, model: str) -> str:
    return f"""import anthropic

client = anthropic.Anthropic(base_url={_literal(url)}, api_key={_literal(client_key)})
message = client.messages.create(
    model={_literal(model)},
    max_tokens=100,
    messages=[{{"role": "user", "content": "Hello!"}}],
)
print(message.content[0].text)"""


def _typescript(client_key: str, url: str, model: str) -> str:
    return f"""import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({{ baseURL: {_literal(url)}, apiKey: {_literal(client_key)} }});
const message = await client.messages.create({{
  model: {_literal(model)},
  max_tokens: 100,
  messages: [{{ role: "user", content: "Hello!" }}],
}});
console.log(message.content);"""


def _literal(text: str) -> str:
    """A string literal that Python and TypeScript both read."""
    return json.dumps(text)
