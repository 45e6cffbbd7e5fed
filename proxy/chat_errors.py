"""Errors as OpenAI's clients read them: `{"error": {message, type, param, code}}`, also as the data of a stream."""

from __future__ import annotations

import json
from typing import Any

from proxy.error_table import CHAT_TYPES, TOO_LONG


def error_body(error_type: str, message: str, request_id: str) -> bytes:
    """The JSON body. A lone surrogate in `message` becomes a question mark."""
    return json.dumps(_document(error_type, message, request_id), ensure_ascii=False).encode("utf-8", "replace")


def error_event(error_type: str, message: str, request_id: str) -> bytes:
    """What ends a stream: the clients raise it, and no `[DONE]` follows. Plain ASCII, as U+2028 splits lines too."""
    clean = message.encode("utf-8", "replace").decode()
    return b"data: " + json.dumps(_document(error_type, clean, request_id)).encode() + b"\n\n"


def _document(error_type: str, message: str, request_id: str) -> dict[str, Any]:
    kind, code = CHAT_TYPES.get(error_type, ("server_error", None))
    if kind == "invalid_request_error" and TOO_LONG.search(message):
        code = "context_length_exceeded"
    return {"error": {"message": message, "type": kind, "param": None, "code": code}, "request_id": request_id}
