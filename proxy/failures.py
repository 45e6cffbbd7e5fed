"""Whose fault a failed upstream try is: turns what upstream answered into one `keys.causes.Failure`.

The dispatcher asks it after each failed try, the relay for an `error` event. The table is the README's section "Whose
fault is it". A key is benched only for what is its own or its account's fault; when in doubt nobody is, but for a
401, 402 or 429 without a provider's mark.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from typing import Any, Final

from keys.causes import Cause, Failure
from proxy.error_table import BUSY, PASSED_ON, POOL_ANSWERS, TIMEOUTS, TOO_LONG, error_type_of
from proxy.errors import Refusal, clamp_retry_after
from proxy.redaction import redact
from proxy.reported_errors import ReportedError, read_error, read_error_document

FREE_MODELS: Final = ":free"
MAX_DETAIL_CHARS: Final = 300
MAX_MESSAGE_CHARS: Final = 8_000

# What `limit_source` and `reason` of OpenRouter's error metadata may hold, and whose limit that is. A budget of a
# guardrail or a workspace lies above the key, but what it groups is not known here: each key finds out by itself.
_LIMITS: Final = (
    ("in_flight_budget", Cause.ACCOUNT_LIMITED),
    ("admission_control", Cause.ACCOUNT_LIMITED),
    ("free_tier", Cause.ACCOUNT_LIMITED),
    ("key_limit", Cause.KEY_LIMIT_REACHED),
    ("guardrail_budget", Cause.KEY_LIMIT_REACHED),
    ("workspace_budget", Cause.KEY_LIMIT_REACHED),
    ("openrouter_credits", Cause.OUT_OF_CREDIT),
)
_AFFORDABLE: Final = re.compile(r"can only afford\s+(-?[0-9,]+)", re.IGNORECASE)
_KEY_LIMIT: Final = re.compile(r"\bkey limit\b|\b(?:guardrail|workspace) budget\b", re.IGNORECASE)


def classify(status: int, headers: Mapping[str, str], body: bytes, *, now: dt.datetime, model: str) -> Failure:
    """The failure in an HTTP answer: an error status, or a 2xx with an error in it or that can't be read.

    `headers` have lower-case names; `model` is the one sent upstream. Never raises.
    """
    error = read_error(status, headers, body, now)
    if not error.is_error:
        return _unreadable(status)
    return _failure(error, model, _cause_of(error))


def classify_event(data: Mapping[str, Any], *, now: dt.datetime, model: str, mid_stream: bool = False) -> Failure:
    """The failure in the data of an `error` event, or in a JSON answer with status 200 and an `error`.

    In mid-stream the key was accepted before: without a limit's name the provider is at fault. Never raises.
    """
    error = read_error_document(data, status=200, headers={}, now=now)
    cause = _cause_of(error)
    if mid_stream and cause in (Cause.KEY_RATE_LIMITED, Cause.KEY_REFUSED):
        cause = Cause.PROVIDER_BUSY
    return _failure(error, model, cause)


def transport_failure(sent: bool, timed_out: bool, detail: str) -> Failure:
    """A try without an answer. `sent`: a byte of it may have reached upstream, so it is never sent again."""
    detail = _for_log(detail)
    if not sent:
        message = "The upstream can't be reached."
        return Failure(Cause.NOT_SENT, 502, "api_error", message, detail)
    what = "did not answer in time" if timed_out else "closed the connection before the answer was complete"
    message = f"The upstream {what}. The request was not sent again, as it may have been billed."
    return Failure(Cause.TIMED_OUT, 504, "timeout_error", message, detail, billed=True)


def refusal_of(failure: Failure) -> Refusal:
    """What the client gets when nothing has been sent to it and no further try is made."""
    retry_after = None
    if failure.cause is not Cause.BAD_REQUEST and failure.retry_after_seconds is not None:
        retry_after = clamp_retry_after(failure.retry_after_seconds)
    is_final = failure.cause in (Cause.TIMED_OUT, Cause.CANNOT_AFFORD)
    return Refusal(failure.status, failure.error_type, failure.message, retry_after, False if is_final else None)


# -- The cause -------------------------------------------------------------------------------------------------------
def _cause_of(error: ReportedError) -> Cause:
    if error.status in TIMEOUTS:
        return Cause.TIMED_OUT
    if error.is_page:
        return Cause.BAD_REQUEST if error.status == 413 else Cause.PROVIDER_BUSY
    if error.status in (402, 403, 429) and (limit := _limit_of(error)):
        return limit
    match error.status:
        case 401:
            return Cause.PROVIDER_BUSY if error.is_of_provider else Cause.KEY_REFUSED
        case 402:
            return Cause.PROVIDER_BUSY if error.is_of_provider else Cause.OUT_OF_CREDIT
        case 403 if error.error_type == "authentication" and not error.is_of_provider:
            return Cause.KEY_REFUSED
        case 429:
            return Cause.PROVIDER_BUSY if error.is_of_provider else Cause.KEY_RATE_LIMITED
    return Cause.BAD_REQUEST if 400 <= error.status < 500 else Cause.PROVIDER_BUSY


def _limit_of(error: ReportedError) -> Cause | None:
    """The limit that upstream names, in its metadata or in its words."""
    if (affordable := _AFFORDABLE.search(error.message)) and _is_positive(affordable[1]):
        return Cause.CANNOT_AFFORD
    words = error.limit_words.lower()
    for name, cause in _LIMITS:
        if name in words:
            return cause
    if error.is_of_provider:
        return None
    if error.status == 429:
        return Cause.ACCOUNT_LIMITED if "free-models-per-" in error.message.lower() else None
    return Cause.KEY_LIMIT_REACHED if _KEY_LIMIT.search(error.message) else None


def _is_positive(number: str) -> bool:
    """A key that can afford 0 tokens, or fewer, is out of credit for every request."""
    return not number.startswith("-") and number.strip("0,") != ""


# -- The failure -----------------------------------------------------------------------------------------------------
def _failure(error: ReportedError, model: str, cause: Cause) -> Failure:
    status, message = _for_client(error, cause)
    takes_hint = cause in (Cause.KEY_RATE_LIMITED, Cause.ACCOUNT_LIMITED)
    return Failure(
        cause=cause,
        status=status,
        error_type=error_type_of(status),
        message=_clean(message),
        detail=_detail(error, model, cause),
        upstream_status=error.http_status,
        hint_seconds=error.retry_after_seconds if takes_hint else None,
        resets_at=error.resets_at if cause is Cause.KEY_LIMIT_REACHED else None,
        pattern=_pattern_of(error, model, cause),
        retry_after_seconds=error.retry_after_seconds,
        billed=cause is Cause.TIMED_OUT,
    )


def _for_client(error: ReportedError, cause: Cause) -> tuple[int, str]:
    """Status and words. What is the pool's trouble never tells upstream's words, and never is a 401."""
    if cause in POOL_ANSWERS:
        return POOL_ANSWERS[cause]
    if cause is Cause.TIMED_OUT:
        return 504, transport_failure(sent=True, timed_out=True, detail="").message
    if cause is Cause.BAD_REQUEST:
        status = error.status if error.status in PASSED_ON else 400
        return status, _refused_message(error)
    return error.status if error.status in BUSY else 502, _busy_message(error)


def _refused_message(error: ReportedError) -> str:
    """Upstream's words; a context that is too long by the words that clients look for, if upstream has others."""
    message = error.message or f"The upstream refused the request with HTTP {error.status}."
    is_unsaid = error.error_type == "context_length_exceeded" and TOO_LONG.search(message) is None
    return f"{message} (context_length_exceeded)" if is_unsaid else message


def _busy_message(error: ReportedError) -> str:
    if 300 <= error.status < 400:
        return f"The upstream answered with a redirect (HTTP {error.status}); the operator should check its address."
    if error.is_page:
        return f"The upstream answered HTTP {error.status} with a page instead of an API answer."
    if error.status in (401, 402):
        return f"The provider of the model failed with HTTP {error.status}."
    return error.message or f"The upstream failed with HTTP {error.status}."


def _pattern_of(error: ReportedError, model: str, cause: Cause) -> str:
    """The models that a bench is for. The limits of free models are their own: paid ones go on with the same key."""
    if cause is Cause.KEY_RATE_LIMITED:
        return FREE_MODELS if model.endswith(FREE_MODELS) else ""
    is_free_tier = "free_tier" in error.limit_words.lower() or "free-models-per-" in error.message.lower()
    return FREE_MODELS if cause is Cause.ACCOUNT_LIMITED and is_free_tier else ""


def _unreadable(status: int) -> Failure:
    """No error status and no error in it: an answer that was cut, or none of this API. It may have been billed."""
    if 300 <= status < 400:
        error = ReportedError(status, status, "")
        return _failure(error, "", Cause.PROVIDER_BUSY)
    message = "The upstream's answer can't be read. The request was not sent again, as it may have been billed."
    detail = f"HTTP {status} without a readable answer"
    return Failure(Cause.TIMED_OUT, 502, "api_error", message, detail, upstream_status=status, billed=True)


def _detail(error: ReportedError, model: str, cause: Cause) -> str:
    parts = [f"HTTP {error.http_status}"]
    if error.status != error.http_status:
        parts.append(f"stands for {error.status}")
    parts += [part for part in (error.limit_words, error.error_type) if part]
    if error.status == 404 and cause is Cause.BAD_REQUEST:
        parts.append(f"model sent: {model}, see the model aliases")
    words = "a page, not an API answer" if error.is_page else error.message
    return _for_log(f"{', '.join(parts)}: {words}" if words else ", ".join(parts))


def _for_log(text: str) -> str:
    """One line that fits the ledger's column."""
    return _cut(" ".join(_clean(text).split()), MAX_DETAIL_CHARS)


def _clean(text: str) -> str:
    """Redacted, and without what a database or UTF-8 can't hold. Cut afterwards: half a hash would not be found."""
    return _cut(redact(text.replace("\0", "").encode("utf-8", "replace").decode()), MAX_MESSAGE_CHARS)


def _cut(text: str, size: int) -> str:
    return text if len(text) <= size else text[: size - 1] + "…"
