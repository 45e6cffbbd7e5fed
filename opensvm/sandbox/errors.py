"""Every failure of OpenRouter that the sandbox can answer, by name.

`/messages` answers in shape A (`{"type": "error", "error": {type, message, error_type}, "request_id"}`). What fails
before OpenRouter's router comes in shape B (`{"error": {code, message, metadata}, "user_id"}`), and edge proxies
answer HTML.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

USER_ID = "user_sandbox2fVQx0kTq"  # leaks in shape B, as OpenRouter's does
PROVIDER = "OpenSVM Sandbox"

# Failures inside a 200: in the first event of a stream, after some events, or as a JSON body.
STREAM_ERRORS = frozenset({"error_in_200", "error_first_event", "error_mid_stream"})

ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    524: "timeout_error",
    529: "overloaded_error",
}
ERROR_TYPES = {
    400: "invalid_request",
    401: "authentication",
    402: "payment_required",
    403: "permission_denied",
    404: "not_found",
    408: "timeout",
    413: "payload_too_large",
    422: "unprocessable",
    429: "rate_limit_exceeded",
    500: "server",
    502: "provider_unavailable",
    503: "provider_overloaded",
    504: "timeout",
    524: "timeout",
    529: "provider_overloaded",
}


@dataclass(frozen=True, slots=True)
class Failed:
    """One failure before it is written. `shape`: A, B or H (HTML)."""

    status: int
    message: str
    shape: Literal["A", "B", "H"] = "A"
    error_type: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)  # further fields of the error object

    def document(self) -> dict[str, Any]:
        metadata = {"metadata": dict(self.metadata)} if self.metadata else {}
        error_type = self.error_type or ERROR_TYPES.get(self.status, "unmapped")
        if self.shape == "B":
            return {
                "error": {"message": self.message, "code": self.status, **metadata, **self.extra},
                "user_id": USER_ID,
            }
        anthropic = ANTHROPIC_TYPES.get(self.status, "api_error")
        error = {"type": anthropic, "message": self.message, "error_type": error_type, **metadata, **self.extra}
        return {"type": "error", "error": error, "request_id": None}

    def with_hint(self, seconds: float, where: str) -> Failed:
        """The same failure that says after how many seconds to come back: in a header, or only in its metadata."""
        bare = {name: value for name, value in self.headers.items() if name.lower() != "retry-after"}
        metadata = {name: value for name, value in self.metadata.items() if name != "retry_after_seconds"}
        if where == "metadata":
            return replace(self, headers=bare, metadata={**metadata, "retry_after_seconds": seconds})
        hint = {"Retry-After": f"{seconds:g}"}
        if where == "metadata_headers":
            return replace(self, headers=bare, metadata={**metadata, "headers": hint})
        return replace(self, headers={**bare, **hint}, metadata=metadata)


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the text of a failure depends on."""

    now: dt.datetime
    key_hash: str = "0" * 64
    max_tokens: int = 0
    model: str = ""

    @property
    def tomorrow(self) -> dt.datetime:
        midnight = self.now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight + dt.timedelta(days=1)


Maker = Callable[[Circumstances], Failed]


def _html(status: int, title: str) -> Maker:
    page = f"<html>\n<head><title>{status} {title}</title></head>\n<body><h1>{status} {title}</h1></body>\n</html>\n"
    return lambda _: Failed(status, page, "H")


def _plain(status: int, message: str, shape: Literal["A", "B"] = "A", error_type: str = "", **metadata: Any) -> Maker:
    return lambda _: Failed(status, message, shape, error_type, metadata)


def _available(status: int, message: str, code: str, *, retryable: bool = False) -> Maker:
    """A failure of routing: `error.availability` says why no endpoint can serve the model."""

    def make(seen: Circumstances) -> Failed:
        availability = {"code": code, "retryable": retryable, "requested_models": [seen.model]}
        return Failed(status, message.format(model=seen.model), extra={"availability": availability})

    return make


def _provider_busy(_: Circumstances) -> Failed:
    metadata = {
        "limit_source": "upstream_provider_shared_pool",
        "provider_name": PROVIDER,
        "raw": "Sandbox provider is temporarily rate-limited upstream. Please retry shortly.",
        "is_byok": False,
    }
    return Failed(429, "Provider returned error", metadata=metadata, headers={"Retry-After": "7"})


def _cannot_afford(seen: Circumstances, limit_source: str) -> Failed:
    asked = seen.max_tokens or 4096
    message = (
        f"This request requires more credits, or fewer max_tokens. You requested up to {asked} tokens, but can only "
        f"afford {asked // 3}. To increase, visit https://openrouter.ai/settings/credits and add more credits"
    )
    return Failed(402, message, metadata={"limit_source": limit_source, "remedy_hint": "lower_max_tokens"})


def _key_limit(seen: Circumstances, span: str) -> Failed:
    message = f"Key limit exceeded ({span} limit). Manage it using https://openrouter.ai/settings/keys"
    if span == "total":
        return Failed(403, message, "B")
    link = f"https://openrouter.ai/workspaces/default/keys/{seen.key_hash}"
    metadata = {
        "limit_source": "openrouter_key_limit",
        "scope": "key",
        "limit_usd": 1,
        "spend_usd": 1.01,
        "resets_at": seen.tomorrow.isoformat().replace("+00:00", "Z"),
    }
    return Failed(403, f"Key limit exceeded ({span} limit). Manage it using {link}", "B", metadata=metadata)


def _free_daily(seen: Circumstances) -> Failed:
    reset = int(seen.tomorrow.timestamp() * 1000)
    headers = {"X-RateLimit-Limit": "50", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(reset)}
    message = "Rate limit exceeded: free-models-per-day. Add 10 credits to unlock 1000 free model requests per day"
    metadata = {"limit_source": "openrouter_free_tier_daily", "headers": headers}
    return Failed(429, message, metadata=metadata, headers=headers)


def _with_retry_after(seconds: int, maker: Maker) -> Maker:
    return lambda seen: replace(maker(seen), headers={"Retry-After": str(seconds)})


# Grouped by whose fault it is, as the error guide does.
ERRORS: dict[str, Maker] = {
    # The key
    "refused": _plain(401, "User not found.", "B"),
    "no_credentials": _plain(401, "No auth credentials found", "B"),
    "disabled": _plain(401, "API key is disabled.", "B"),
    "expired": _plain(401, "API key has expired.", "B"),
    "rate_limited": _plain(429, "Rate limit exceeded", "B", error_type="rate_limit_exceeded"),
    "key_limit": lambda seen: _key_limit(seen, "total"),
    "key_limit_daily": lambda seen: _key_limit(seen, "daily"),
    "key_limit_weekly": lambda seen: _key_limit(seen, "weekly"),
    "key_limit_monthly": lambda seen: _key_limit(seen, "monthly"),
    "key_limit_402": lambda seen: _cannot_afford(seen, "openrouter_key_limit"),
    # The account
    "out_of_credit": _plain(
        402,
        "Insufficient credits. Add more using https://openrouter.ai/settings/credits",
        limit_source="openrouter_credits",
    ),
    "out_of_credit_b": _plain(402, "Insufficient credits", "B"),
    "in_flight_budget": _with_retry_after(
        120,
        _plain(
            402,
            "Too many requests in flight for your remaining credits.",
            limit_source="openrouter_in_flight_budget",
            reason="in_flight_budget_exhausted",
        ),
    ),
    "admission_control": _with_retry_after(
        10, _plain(429, "Too many concurrent requests, please slow down.", limit_source="openrouter_admission_control")
    ),
    "free_daily": _free_daily,
    "guardrail_budget": _plain(403, "Guardrail budget exceeded.", limit_source="openrouter_guardrail_budget"),
    "workspace_budget": _plain(403, "Workspace budget exceeded.", limit_source="openrouter_workspace_budget"),
    # This request
    "cannot_afford": lambda seen: _cannot_afford(seen, "openrouter_credits"),
    "bad_request": _plain(400, "messages: Input should be a valid array"),
    "context_length": _plain(
        400, "prompt is too long: 200001 tokens > 200000 maximum", error_type="context_length_exceeded"
    ),
    "bad_model": _available(400, "{model} is not a valid model ID", "model_not_found"),
    "no_endpoints": _available(404, "No endpoints found for {model}.", "no_endpoints"),
    "moderation": _plain(
        403,
        "Your chosen model requires moderation and your input was flagged.",
        error_type="content_policy_violation",
        reasons=["violence"],
        flagged_input="...",
        provider_name=PROVIDER,
    ),
    "guardrail_filter": _plain(
        403, "Blocked by a guardrail content filter.", error_type="content_policy_violation", reason="guardrail_filter"
    ),
    "region_restricted": _available(403, "{model} is not available in your region.", "region_restricted"),
    "too_large": _plain(413, "Request body is too large."),
    "unprocessable": _plain(422, "The request could not be processed."),
    # The provider
    "provider_busy": _provider_busy,
    "capacity": _available(429, "No capacity for {model}.", "capacity_exhausted", retryable=True),
    "server_error": _plain(500, "Internal Server Error"),
    "bad_gateway": _plain(502, "Provider returned error", provider_name=PROVIDER, raw="connection reset"),
    "html_502": _html(502, "Bad Gateway"),
    "unavailable": _plain(503, "Service temporarily unavailable"),
    "overloaded": _plain(529, "Provider is overloaded", provider_name=PROVIDER),
    "timeout": _plain(408, "Request timed out"),
    "gateway_timeout": _plain(504, "Provider did not answer in time", provider_name=PROVIDER),
    "html_524": _html(524, "A timeout occurred"),
}


def make_failure(name: str, seen: Circumstances) -> Failed:
    return ERRORS[name](seen)


def stream_error(message: str = "Sandbox provider disconnected", error_type: str = "provider_unavailable") -> Any:
    """The document of an `error` event; HTTP stays 200."""
    return {"type": "error", "error": {"type": "api_error", "message": message, "error_type": error_type}}


def body_error_in_200(message: str = "Sandbox provider disconnected", code: int = 502) -> Any:
    """Shape C: an error as the JSON body of a 200."""
    return {"error": {"code": code, "message": message, "metadata": {"provider_name": PROVIDER}}, "user_id": USER_ID}
