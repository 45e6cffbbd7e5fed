"""`GET /api/keys/stats`: the guide's `getKeyUsageStats()` for monitors and for staff."""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

from django.db import Error as DatabaseError
from django.http import HttpResponse
from django.utils import timezone
from rest_framework.authentication import SessionAuthentication
from rest_framework.exceptions import MethodNotAllowed
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from keys.client_keys import prefix_of
from keys.models import Client
from keys.sealing import get_vault
from keys.stats import KeyStats, PoolStats, read_pool_stats
from keys.uuid7 import new_request_uuid, request_id_of
from proxy.credentials import MalformedCredential, read_client_key
from proxy.errors import Refusal, bad_credential, error_body, internal_error, overloaded

logger = logging.getLogger("opensvm.clients")

SCOPE = "stats"
DATABASE_RETRY_SECONDS = 5.0


class KeyStatsView(APIView):
    """For a staff session, or a client key with the scope `stats`; a client key decides when both are there."""

    http_method_names = ["get", "head"]
    authentication_classes = [SessionAuthentication]
    permission_classes = []
    throttle_classes = []

    def get(self, request: Request) -> Response:
        now = timezone.now()
        authorize(request, now)
        return Response(shown(read_pool_stats(now)))

    def handle_exception(self, exc: Exception) -> HttpResponse:  # type: ignore[override]  # any response will do
        return refused(_refusal_of(exc), request_id_of(new_request_uuid()))

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        response.headers.setdefault("request-id", request_id_of(new_request_uuid()))
        response.headers["Cache-Control"] = "no-store"
        return super().finalize_response(request, response, *args, **kwargs)


def authorize(request: Request, now: dt.datetime, *, permission: str = "") -> None:
    """Raise `Refusal` unless the caller may see the statistics. One query, two for a session.

    `permission` is what a session's user needs beside being staff.
    """
    try:
        client_key = read_client_key(_credential_headers(request))
    except MalformedCredential as exc:
        if exc.reason != "missing":
            raise _denied(request, exc.reason, exc.prefix) from exc
        _authorize_user(request, permission)
        return
    client = Client.objects.filter(digest=get_vault().client_digest(client_key)).first()
    if client is None:
        raise _denied(request, "unknown", prefix_of(client_key))
    if client.revoked_at is not None:
        raise _denied(request, "revoked", prefix_of(client_key))
    if client.expires_at is not None and client.expires_at <= now:
        raise _denied(request, "expired", prefix_of(client_key))
    if not client.has_scope(SCOPE):
        raise Refusal(403, "permission_error", f"This client key lacks the scope {SCOPE}: use one that has it.")


def shown(stats: PoolStats) -> dict[str, Any]:
    """The guide's object."""
    return {
        "totalKeys": stats.total,
        "activeKeys": stats.active,
        "failedKeys": stats.failed,
        "usage": {f"key_{number}": _shown_key(key) for number, key in enumerate(stats.keys, start=1)},
    }


def refused(refusal: Refusal, request_id: str) -> HttpResponse:
    """The response of a refusal, in Anthropic's shape."""
    body = error_body(refusal.error_type, refusal.message, request_id)
    response = HttpResponse(body, status=refusal.status, content_type="application/json")
    response["request-id"] = request_id
    if refusal.retry_after_seconds is not None:
        response["retry-after"] = str(refusal.retry_after_seconds)
    if refusal.should_retry is not None:
        response["x-should-retry"] = "true" if refusal.should_retry else "false"
    return response


def _shown_key(key: KeyStats) -> dict[str, Any]:
    last_used = key.last_used.astimezone(dt.UTC).isoformat(timespec="milliseconds") if key.last_used else None
    return {
        "requests": key.requests,
        "lastUsed": last_used.replace("+00:00", "Z") if last_used else None,
        "isFailed": key.is_failed,
        "keyPreview": key.preview,
    }


def _authorize_user(request: Request, permission: str) -> None:
    user = request.user
    if not user.is_authenticated:
        raise _denied(request, "missing", "")
    if not (user.is_active and user.is_staff):
        raise Refusal(403, "permission_error", "Only staff may see the statistics of the pool.")
    if permission and not user.has_perm(permission):
        raise Refusal(403, "permission_error", f"You lack the permission {permission}: ask an administrator for it.")


def _denied(request: Request, reason: str, prefix: str) -> Refusal:
    extra = {"event": "client.refused", "reason": reason, "prefix": prefix, "ip": request.META.get("REMOTE_ADDR", "")}
    logger.warning("refused a client key", extra={**extra, "path": request.path})
    return bad_credential()


def _refusal_of(exc: Exception) -> Refusal:
    if isinstance(exc, Refusal):
        return exc
    if isinstance(exc, MethodNotAllowed):
        return Refusal(405, "invalid_request_error", "This method is not allowed here. Use GET.")
    if isinstance(exc, DatabaseError):
        logger.error("could not read statistics", exc_info=exc, extra={"event": "stats.database_down"})
        return overloaded("The database can't be reached at the moment.", DATABASE_RETRY_SECONDS)
    logger.error("could not show statistics", exc_info=exc, extra={"event": "stats.failed"})
    return internal_error()


def _credential_headers(request: Request) -> list[tuple[bytes, bytes]]:
    names = ("x-api-key", "authorization")
    return [(name.encode(), request.headers.get(name, "").encode("latin-1", "replace")) for name in names]
