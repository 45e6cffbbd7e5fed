"""The client of `/sandbox/…`: scripts a sandbox and looks into it, in this process or in another one."""

from __future__ import annotations

import base64
import datetime as dt
import http.client
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from opensvm.sandbox.catalogue import Usage
from opensvm.sandbox.script import Behaviour, Break, Rule

TIMEOUT_SECONDS = 10.0
POLL_SECONDS = 0.01


class ControlError(Exception):
    """The sandbox refused a control; the text is its own."""


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request as the sandbox received it. Keys in `headers` are cut down to their tails.

    `left_at`: the client went away before the reply was whole. `whole`: the reply went out to its end.
    """

    number: int
    connection: int
    at: dt.datetime
    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Any
    body_bytes: int
    key_name: str
    key_tail: str
    status: int | None
    generation_id: str
    left_at: dt.datetime | None
    ended_at: dt.datetime | None
    whole: bool


@dataclass(frozen=True, slots=True)
class SeenGeneration:
    """A line of what the sandbox billed."""

    id: str
    key_hash: str
    key_name: str
    key_tail: str
    account: str
    model: str
    streamed: bool
    created_at: dt.datetime
    usage: Usage
    cost_nano: int
    finish_reason: str
    cancelled: bool
    finished: bool
    settled_at: dt.datetime | None
    session_id: str
    user: str
    referer: str
    user_agent: str


class Controls:
    """One connection for each call, so it works whatever the script does to other connections."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._netloc = urlsplit(url).netloc

    # -- Scripting -----------------------------------------------------------------------------------------------------

    def add_rules(self, *rules: Rule) -> None:
        self._call("POST", "/script", {"rules": [rule.as_json() for rule in rules]})

    def behave(
        self,
        *,
        key: str = "",
        model: str = "",
        path: str = "/messages",
        method: str = "",
        streamed: bool | None = None,
        first: int = 1,
        times: int | None = None,
        **behaviour: Any,
    ) -> None:
        """One rule; the fields of `Behaviour` follow as keywords. `body` may be bytes."""
        if isinstance(behaviour.get("body"), bytes):
            behaviour["body_base64"] = base64.b64encode(behaviour.pop("body")).decode()
        calls: dict[str, Any] = {"key": key, "model": model, "path": path, "method": method, "streamed": streamed}
        self.add_rules(Rule(then=Behaviour(**behaviour), first=first, times=times, **calls))

    def fail(self, error: str, **rule_and_behaviour: Any) -> None:
        """The named error of `opensvm.sandbox.errors`."""
        self.behave(error=error, **rule_and_behaviour)

    def clear_rules(self) -> None:
        self._call("DELETE", "/script")

    def rules(self) -> list[dict[str, Any]]:
        """As JSON, each with the number of `calls` that it counted."""
        return list(self._call("GET", "/script")["rules"])

    def break_connections(self, times: int, how: Break = "close", at: str = "first_byte") -> None:
        """The next `times` connections end at the first byte of a request, or (`at="accept"`) before it.

        After "accept" no control can be called until the faults are used up: its connection would take one.
        """
        self._call("POST", "/connections", {"times": times, "how": how, "at": at})

    def configure(self, **config: Any) -> None:
        """Fields of `opensvm.sandbox.app.Config`."""
        self._call("POST", "/config", config)

    def reset(self, *, keys: bool = False) -> None:
        """Forgets rules, requests, bills and configuration, with `keys` also the keys and accounts."""
        self._call("POST", "/reset", {"keys": keys})

    # -- Keys ----------------------------------------------------------------------------------------------------------

    def add_key(self, secret: str = "", **fields: Any) -> str:
        """The key's text. `fields` are those of `opensvm.sandbox.keys.new_key`."""
        return str(self._call("POST", "/keys", {"secret": secret, **_plain(fields)})["secret"])

    def change_key(self, key: str, **fields: Any) -> None:
        """limit_usd, limit_reset, expires_at, disabled, rate_limit of the key with this text, name or tail."""
        self._call("PATCH", "/keys", {"key": key, **_plain(fields)})

    def limit_rate(self, key: str, *, requests: int, seconds: float, retry_after: float | None = None) -> None:
        """429 for what is more than `requests` in any `seconds`."""
        limit = {"requests": requests, "seconds": seconds, "retry_after": retry_after}
        self.change_key(key, rate_limit=limit)

    def set_account(self, name: str, *, credit_usd: float | None = None, organization_id: str | None = None) -> None:
        """`credit_usd` None is credit without end."""
        self._call("POST", "/accounts", {"name": name, "credit_usd": credit_usd, "organization_id": organization_id})

    def keys(self) -> list[dict[str, Any]]:
        return list(self._call("GET", "/keys")["keys"])

    # -- Looking -------------------------------------------------------------------------------------------------------

    def requests(self, path: str = "/messages", key: str = "") -> list[SeenRequest]:
        """In the order of arrival; `path` is below /api/v1, "" for all; `key` is a name or a tail."""
        seen = [_seen_request(one) for one in self._call("GET", "/requests")["requests"]]
        on_path = [one for one in seen if not path or one.path == f"/api/v1{path}"]
        return [one for one in on_path if not key or key in (one.key_name, one.key_tail)]

    def ledger(self) -> list[SeenGeneration]:
        return [_seen_generation(one) for one in self._call("GET", "/ledger")["generations"]]

    def billed_nano(self) -> int:
        return sum(generation.cost_nano for generation in self.ledger())

    def wait_until(self, holds: Callable[[Controls], bool], timeout_seconds: float = 5.0) -> None:
        """Looks again and again; `TimeoutError` when it does not hold in time."""
        deadline = time.monotonic() + timeout_seconds
        while not holds(self):
            if time.monotonic() > deadline:
                raise TimeoutError(f"The sandbox did not come to that in {timeout_seconds:g} s.")
            time.sleep(POLL_SECONDS)

    def _call(self, method: str, path: str, document: Any = None) -> Any:
        connection = http.client.HTTPConnection(self._netloc, timeout=TIMEOUT_SECONDS)
        try:
            body = None if document is None else json.dumps(document)
            connection.request(method, f"/sandbox{path}", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise ControlError(answer["error"]["message"])
        return answer


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in fields.items()}


def _moment(text: str | None) -> dt.datetime | None:
    return None if text is None else dt.datetime.fromisoformat(text)


def _seen_request(document: dict[str, Any]) -> SeenRequest:
    moments = {name: _moment(document[name]) for name in ("left_at", "ended_at")}
    return SeenRequest(**{**document, **moments, "at": dt.datetime.fromisoformat(document["at"])})


def _seen_generation(document: dict[str, Any]) -> SeenGeneration:
    return SeenGeneration(
        **{
            **document,
            "usage": Usage(**document["usage"]),
            "created_at": dt.datetime.fromisoformat(document["created_at"]),
            "settled_at": _moment(document["settled_at"]),
        }
    )
