"""Error bodies as upstream sends them, and the failures that are made of them, for the tests of `proxy.failures`."""

import datetime as dt
import json

from proxy.failures import classify

NOW = dt.datetime(2026, 11, 18, 10, 30, tzinfo=dt.UTC)  # a Wednesday
MODEL = "anthropic/claude-sonnet-4"
HASH = "0123456789abcdef" * 4
AFFORD = (
    "This request requires more credits, or fewer max_tokens. You requested up to 8192 tokens, but can only afford {}."
)
PAGE = b"<!DOCTYPE html><html><body>Error</body></html>"


def utc(*parts):
    return dt.datetime(*parts, tzinfo=dt.UTC)


def shape_a(error_type, message="", **more):
    """As /messages is documented: Anthropic's shape with OpenRouter's error_type."""
    metadata = more.pop("metadata", None)
    error = {"type": "api_error", "message": message, "error_type": error_type, **more}
    return {"type": "error", "error": error, "request_id": None, **({"metadata": metadata} if metadata else {})}


def shape_b(code, message="", **metadata):
    """As the router's front and /chat/completions send it, also on /messages."""
    return {"error": {"code": code, "message": message, "metadata": metadata}, "user_id": "user_2abcDEF3ghiJKL4"}


def failure_of(status, document, headers=None, model=MODEL):
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return classify(status, headers or {}, body, now=NOW, model=model)
