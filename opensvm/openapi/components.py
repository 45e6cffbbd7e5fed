"""The schemas of requests and answers. Anthropic's and OpenAI's types are open: only what the service reads is fixed.

Read by `opensvm.settings`, so it imports nothing of Django.
"""

from __future__ import annotations

from typing import Any

from proxy.error_table import CHAT_TYPES, STATUSES

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_OPEN: Schema = {"type": "object", "additionalProperties": True}


def ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _object(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": True}


def _optional(schema: Schema) -> Schema:
    return {"oneOf": [schema, {"type": "null"}]}


_CONTENT: Schema = {"oneOf": [_TEXT, {"type": "array", "items": _OPEN}]}
_ERROR = _object(
    ("type", "error", "request_id"),
    type={"type": "string", "enum": ["error"]},
    error=_object(("type", "message"), type={"type": "string", "enum": sorted(STATUSES)}, message=_TEXT),
    request_id={"type": "string", "pattern": "^req_"},
)
_CHAT_ERROR = _object(
    ("error", "request_id"),
    error=_object(
        ("message", "type", "param", "code"),
        message=_TEXT,
        type={"type": "string", "enum": sorted({kind for kind, _ in CHAT_TYPES.values()})},
        param=_optional(_TEXT),
        code=_optional(_TEXT),
    ),
    request_id={"type": "string", "pattern": "^req_"},
)
_MODEL = _object(
    ("type", "id", "display_name", "created_at", "object", "created", "owned_by"),
    type={"type": "string", "enum": ["model"]},
    id=_TEXT,
    display_name=_TEXT,
    created_at={"type": "string", "format": "date-time"},
    max_input_tokens=_optional(_COUNT),
    max_tokens=_optional(_COUNT),
    lifecycle={"type": "string", "enum": ["active"]},
    object={"type": "string", "enum": ["model"]},
    created={"type": "integer"},
    owned_by=_TEXT,
)
_KEY_STATS = _object(
    ("requests", "lastUsed", "isFailed", "keyPreview"),
    requests=_COUNT,
    lastUsed=_optional({"type": "string", "format": "date-time"}),
    isFailed={"type": "boolean"},
    keyPreview=_TEXT,
)

SCHEMAS: dict[str, Schema] = {
    "Error": _ERROR,
    "Event": _object(("data",), event=_TEXT, data=_TEXT),
    "ChatError": _CHAT_ERROR,
    "MessagesRequest": _object(
        ("model", "messages"),
        model={"type": "string", "minLength": 1},
        messages={"type": "array", "items": _object(("role", "content"), role=_TEXT, content=_CONTENT)},
        max_tokens={**_COUNT, "maximum": 2**31},
        stream={"type": "boolean", "default": False},
        system=_CONTENT,
        tools={"type": "array", "items": _OPEN},
        stop_sequences={"type": "array", "items": _TEXT},
    ),
    "Message": _object(
        ("id", "type", "role", "content", "model", "usage"),
        id=_TEXT,
        type={"type": "string", "enum": ["message"]},
        role=_TEXT,
        content={"type": "array", "items": _OPEN},
        model=_TEXT,
        stop_reason=_optional(_TEXT),
        usage=_OPEN,
    ),
    "CountRequest": _object(
        ("model", "messages"),
        model={"type": "string", "minLength": 1},
        messages={"type": "array", "items": _object(("role", "content"), role=_TEXT, content=_CONTENT)},
        system=_CONTENT,
        tools={"type": "array", "items": _OPEN},
    ),
    "Count": _object(("input_tokens",), input_tokens=_COUNT),
    "ChatRequest": _object(
        ("model", "messages"),
        model={"type": "string", "minLength": 1},
        messages={"type": "array", "items": _object(("role",), role=_TEXT, content=_CONTENT)},
        stream={"type": "boolean", "default": False},
        max_completion_tokens={**_COUNT, "maximum": 2**31},
    ),
    "ChatCompletion": _object(
        ("id", "object", "model", "choices"),
        id=_TEXT,
        object=_TEXT,
        model=_TEXT,
        choices={"type": "array", "items": _OPEN},
        usage=_OPEN,
    ),
    "Model": _MODEL,
    "ModelPage": _object(
        ("object", "data", "has_more", "first_id", "last_id"),
        object={"type": "string", "enum": ["list"]},
        data={"type": "array", "items": ref("Model")},
        has_more={"type": "boolean"},
        first_id=_optional(_TEXT),
        last_id=_optional(_TEXT),
    ),
    "KeyStats": _object(
        ("totalKeys", "activeKeys", "failedKeys", "usage"),
        totalKeys=_COUNT,
        activeKeys=_COUNT,
        failedKeys=_COUNT,
        usage={"type": "object", "additionalProperties": _KEY_STATS},
    ),
    "UsageReport": _object(
        ("period", "periodBefore", "group", "filters", "joined", "currency", "totals", "lines"),
        period=_OPEN,
        periodBefore=_OPEN,
        group=_TEXT,
        filters=_OPEN,
        joined={"type": "boolean"},
        currency={"type": "string", "enum": ["USD"]},
        totals=_OPEN,
        lines={"type": "array", "items": _OPEN},
    ),
}
SECURITY_SCHEMES: dict[str, Schema] = {
    "clientKey": {"type": "apiKey", "in": "header", "name": "x-api-key", "description": "A client key."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "The same client key."},
}
COMPONENTS: dict[str, Any] = {"schemas": SCHEMAS, "securitySchemes": SECURITY_SCHEMES}
