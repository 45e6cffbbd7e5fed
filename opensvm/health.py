"""Is the service alive, and can it answer? For load balancers and `bin/serve`; open to everybody, says no secrets."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from concurrent.futures import Future

from django.db import Error, connection, connections
from django.db.migrations.loader import MigrationLoader
from django.db.migrations.recorder import MigrationRecorder
from django.http import HttpRequest, JsonResponse

from keys.models import KeyState, OpenRouterKey

PROBE_SECONDS = 3.0
TROUBLE = "opensvm.trouble"  # in the ASGI scope: what this process's lane has to say of the database
NO_DATABASE = "the database can't be reached"
NOT_MIGRATED = "the database lacks migrations: run manage.py migrate"
NO_ACTIVE_KEY = "At least one OpenRouter API key is required: no key in the pool is active"


class Probe:
    """Asks one question at a time in an own thread, so that a database that hangs costs a caller `seconds`, not more.

    Callers that come while a question is open share its answer: probes can't pile up.
    """

    def __init__(self, ask: Callable[[], list[str]], seconds: float) -> None:
        self._ask = ask
        self._seconds = seconds
        self._lock = threading.Lock()
        self._answer: Future[list[str]] | None = None

    def find_reasons(self) -> list[str]:
        """Why the service is not ready; empty when it is."""
        try:
            return self._open_question().result(self._seconds)
        except TimeoutError:
            return [NO_DATABASE]

    def _open_question(self) -> Future[list[str]]:
        with self._lock:
            if self._answer is None or self._answer.done():
                self._answer = Future()
                threading.Thread(target=self._run, args=(self._answer,), daemon=True).start()
            return self._answer

    def _run(self, answer: Future[list[str]]) -> None:
        try:
            answer.set_result(self._ask())
        except BaseException as exc:
            answer.set_exception(exc)


def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers; nothing else is looked at."""
    return JsonResponse({"alive": True})


def readyz(request: HttpRequest) -> JsonResponse:
    """Whether requests can be served now. A key on a cooldown counts: it comes back by itself.

    A database that can be read may still not be written to, and that the lane knows.
    """
    trouble = getattr(request, "scope", {}).get(TROUBLE, "")
    reasons = [trouble] if trouble else _probe.find_reasons()
    if reasons:
        return JsonResponse({"ready": False, "reasons": reasons}, status=503)
    return JsonResponse({"ready": True})


def ask_database() -> list[str]:
    """Two queries, three with `django_migrations` looked for; closes its connection."""
    try:
        if not _known_migrations() <= MigrationRecorder(connection).applied_migrations().keys():
            return [NOT_MIGRATED]
        return [] if OpenRouterKey.objects.filter(state=KeyState.ACTIVE).exists() else [NO_ACTIVE_KEY]
    except Error:
        return [NO_DATABASE]
    finally:
        connections.close_all()


@functools.cache
def _known_migrations() -> frozenset[tuple[str, str]]:
    """The last migration of each app: when it is applied, all before it are."""
    return frozenset(MigrationLoader(None).graph.leaf_nodes())


_probe = Probe(ask_database, PROBE_SECONDS)
