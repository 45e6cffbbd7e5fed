"""The one table of errors: what upstream may call a failure, and what clients of both dialects are told.

    OpenRouter's error_type or code  ->  HTTP status  ->  Anthropic's type  ->  OpenAI's type and code

`proxy.reported_errors` finds the status in whichever shape upstream wrote it, `proxy.failures` decides whose fault it
is, `proxy.errors` and `proxy.chat_errors` write it. What is the pool's trouble is told in own words, never upstream's.
"""

from __future__ import annotations

import re
from typing import Final

from keys.causes import Cause

# OpenRouter's error_type, where a body with status 200 or an event has no code. Others that begin with `invalid_` are
# 400, and what nobody knows is 500.
OPENROUTER_STATUSES: Final[dict[str, int]] = {
    "authentication": 401,
    "payment_required": 402,
    "permission_denied": 403,
    "content_policy_violation": 403,
    "refusal": 403,
    "not_found": 404,
    "image_not_found": 404,
    "payload_too_large": 413,
    "rate_limit_exceeded": 429,
    "provider_overloaded": 529,
    "timeout": 504,
    "provider_unavailable": 502,
    "server": 500,
    "unmapped": 500,
    "unprocessable": 400,
    "precondition_failed": 400,
    "context_length_exceeded": 400,
    "max_tokens_exceeded": 400,
    "token_limit_exceeded": 400,
    "string_too_long": 400,
}

ERROR_TYPES: Final[dict[int, str]] = {
    400: "invalid_request_error",
    401: "authentication_error",
    402: "billing_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    500: "api_error",
    502: "api_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
STATUSES: Final[dict[str, int]] = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "conflict_error": 409,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "api_error": 500,
    "timeout_error": 504,
    "overloaded_error": 529,
}

# What OpenAI's clients read: type and code.
CHAT_TYPES: Final[dict[str, tuple[str, str | None]]] = {
    "invalid_request_error": ("invalid_request_error", None),
    "authentication_error": ("authentication_error", "invalid_api_key"),
    "billing_error": ("insufficient_quota", "insufficient_quota"),
    "permission_error": ("permission_error", None),
    "not_found_error": ("invalid_request_error", "not_found"),
    "conflict_error": ("invalid_request_error", "conflict"),
    "request_too_large": ("invalid_request_error", "request_too_large"),
    "rate_limit_error": ("rate_limit_error", "rate_limit_exceeded"),
    "timeout_error": ("server_error", "timeout"),
    "overloaded_error": ("server_error", "overloaded"),
    "api_error": ("server_error", None),
}

# The pool's own trouble: never a 401 or 402, which clients would take for their own.
POOL_ANSWERS: Final[dict[Cause, tuple[int, str]]] = {
    Cause.KEY_RATE_LIMITED: (429, "The OpenRouter key in use is rate-limited."),
    Cause.ACCOUNT_LIMITED: (529, "The OpenRouter account in use is at a limit."),
    Cause.OUT_OF_CREDIT: (529, "The OpenRouter account in use is out of credit."),
    Cause.KEY_LIMIT_REACHED: (529, "The OpenRouter key in use has reached its spending limit."),
    Cause.KEY_REFUSED: (529, "The OpenRouter key in use was refused."),
    Cause.CANNOT_AFFORD: (529, "No OpenRouter key can pay for this request; a smaller max_tokens may fit."),
}
# By these words Claude Code sees that it has to compact the conversation; OpenAI's clients get their code by them.
TOO_LONG: Final = re.compile(
    r"prompt is too long|exceed context limit|maximum context length|exceeds the context window"
    r"|context_length_exceeded",
    re.IGNORECASE,
)
PASSED_ON: Final = frozenset({400, 403, 404, 409, 413})  # of a bad request; every other 4xx becomes a 400
BUSY: Final = frozenset({429, 500, 502, 503, 529})  # of a busy provider; every other status becomes a 502
TIMEOUTS: Final = frozenset({408, 504, 524})  # all of them become a 504


def error_type_of(status: int) -> str:
    """Anthropic's error type for an HTTP status; of an unknown status, that of its class."""
    return ERROR_TYPES.get(status, "invalid_request_error" if 400 <= status < 500 else "api_error")
