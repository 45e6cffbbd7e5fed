"""What each path takes and answers, with its errors. `opensvm.openapi.urls` imports it for its effect on the views."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from drf_spectacular.types import OpenApiTypes
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_view

from keys.reports import GROUPS
from opensvm.openapi.components import ref
from proxy.error_table import ERROR_TYPES, error_type_of
from proxy.local_views import CountTokensView, ModelsView, ModelView
from proxy.stats_view import KeyStatsView
from proxy.usage_view import UsageView
from proxy.views import ChatCompletionsView, MessagesView

_JSON, _STREAM = "application/json", "text/event-stream"
_WORDS = {
    400: "The request is not one that can be sent on; the message names the field.",
    401: "The client key is missing, malformed, unknown, revoked or expired. Never upstream's own 401.",
    403: "Refused for what the request says, or the client key lacks a scope.",
    404: "There is no such model, or no such path.",
    405: "The path takes another method; `allow` names them.",
    408: "The body came too slowly.",
    413: "The body is larger than 32 MB.",
    429: "A rate limit: of every key in the pool, or of the model's provider. `retry-after` is 1 to 60 seconds.",
    431: "The headers are larger than 64 kB.",
    500: "The service or the provider failed.",
    502: "Upstream answered something else than an answer, or can't be reached.",
    503: "The provider is not available.",
    504: "Upstream did not answer in time; it may have been billed, so it is not to be sent again.",
    529: "No key is free, the provider is overloaded, or the service is at its limit.",
}
_OWN = (400, 401, 405, 431, 500, 529)
_WITH_BODY = (*_OWN, 408, 413)
_OF_UPSTREAM = (*_WITH_BODY, 403, 404, 429, 502, 503, 504)
_REQUEST_ID = OpenApiParameter(
    "request-id", OpenApiTypes.STR, OpenApiParameter.HEADER, response=True, description="Also in the body of an error."
)
_HELLO = {"model": "claude-opus-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}]}


def _errors(statuses: Iterable[int], schema: str = "Error") -> dict[Any, Any]:
    return {
        (status, _JSON): OpenApiResponse(
            ref(schema), description=_WORDS[status], examples=[_example(status)] if schema == "Error" else []
        )
        for status in sorted(statuses)
    }


def _example(status: int) -> OpenApiExample:
    kind = ERROR_TYPES.get(status, error_type_of(status))
    error = {"type": kind, "message": _WORDS[status]}
    value = {"type": "error", "error": error, "request_id": "req_01a204a0f16f732c94b5d3f844b00f0f"}
    return OpenApiExample(f"{status} {kind}", value=value, response_only=True, status_codes=[str(status)])


def _asked(name: str, value: dict[str, Any]) -> OpenApiExample:
    return OpenApiExample(name, value=value, request_only=True)


def _query(name: str, description: str, kind: Any = OpenApiTypes.STR, **fields: Any) -> OpenApiParameter:
    return OpenApiParameter(name, kind, description=description, **fields)


extend_schema_view(
    post=extend_schema(
        operation_id="create_message",
        summary="Anthropic's Messages API",
        description="JSON, or server-sent events with `stream`. Unknown fields go upstream as they are.",
        parameters=[_REQUEST_ID],
        request={_JSON: ref("MessagesRequest")},
        responses={
            (200, _JSON): OpenApiResponse(ref("Message"), description="The answer."),
            (200, _STREAM): OpenApiResponse(ref("Event"), description="Its events."),
            **_errors(_OF_UPSTREAM),
        },
        examples=[_asked("a message", _HELLO), _asked("a stream", {**_HELLO, "stream": True})],
    )
)(MessagesView)

extend_schema_view(
    post=extend_schema(
        operation_id="create_chat_completion",
        summary="OpenAI's chat completions",
        description="Passed through to upstream's own endpoint. The cost is in `usage.cost`.",
        parameters=[_REQUEST_ID],
        request={_JSON: ref("ChatRequest")},
        responses={
            (200, _JSON): OpenApiResponse(ref("ChatCompletion"), description="The answer."),
            (200, _STREAM): OpenApiResponse(ref("Event"), description="Its chunks, and `[DONE]`."),
            **_errors(set(_OF_UPSTREAM) - {431}, "ChatError"),
            **_errors([431]),
        },
        examples=[_asked("a completion", {"model": "openai/gpt-4o-mini", "messages": _HELLO["messages"]})],
    )
)(ChatCompletionsView)

extend_schema_view(
    post=extend_schema(
        operation_id="count_tokens",
        summary="An estimate of a request's input tokens",
        parameters=[_REQUEST_ID],
        request={_JSON: ref("CountRequest")},
        responses={(200, _JSON): OpenApiResponse(ref("Count"), description="The estimate."), **_errors(_WITH_BODY)},
        examples=[_asked("a count", {"model": _HELLO["model"], "messages": _HELLO["messages"]})],
    )
)(CountTokensView)

extend_schema_view(
    get=extend_schema(
        operation_id="list_models",
        summary="Aliases and the catalogue",
        parameters=[
            _REQUEST_ID,
            _query("limit", "1 to 1000", {"type": "integer", "minimum": 1, "maximum": 1000}),
            _query("after_id", "The page behind this id"),
            _query("before_id", "The page before this id"),
        ],
        responses={(200, _JSON): OpenApiResponse(ref("ModelPage"), description="A page."), **_errors(_OWN)},
    )
)(ModelsView)

extend_schema_view(
    get=extend_schema(
        operation_id="get_model",
        summary="One model, by any name that a request may use",
        parameters=[_REQUEST_ID, OpenApiParameter("model_id", OpenApiTypes.STR, OpenApiParameter.PATH)],
        responses={(200, _JSON): OpenApiResponse(ref("Model"), description="The model."), **_errors((*_OWN, 404))},
    )
)(ModelView)

extend_schema_view(
    get=extend_schema(
        operation_id="key_stats",
        summary="The pool's keys: requests, last use, failures",
        description="For staff, or a client key with the scope `stats`.",
        parameters=[_REQUEST_ID],
        responses={
            (200, _JSON): OpenApiResponse(ref("KeyStats"), description="The statistics."),
            **_errors((*_OWN, 403)),
        },
    )
)(KeyStatsView)

extend_schema_view(
    get=extend_schema(
        operation_id="usage_report",
        summary="Usage and cost",
        description="For a client key with the scope `stats`, or staff who may see the admin's report.",
        parameters=[
            _REQUEST_ID,
            _query("since", "First day, UTC", OpenApiTypes.DATE),
            _query("until", "Last day, UTC", OpenApiTypes.DATE),
            _query("group", "What a line is for", enum=list(GROUPS)),
            *(_query(name, f"Only this {name}", OpenApiTypes.UUID) for name in ("key", "account", "client")),
            _query("model", "Only this upstream model"),
            _query("joined", "Rotated keys as one", OpenApiTypes.BOOL),
            _query("format", "JSON or CSV", enum=["json", "csv"]),
        ],
        responses={
            (200, _JSON): OpenApiResponse(ref("UsageReport"), description="The report."),
            (200, "text/csv"): OpenApiResponse(OpenApiTypes.STR, description="The same as CSV."),
            **_errors((*_OWN, 403)),
        },
    )
)(UsageView)
