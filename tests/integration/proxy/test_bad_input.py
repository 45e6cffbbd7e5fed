"""The table "What bad input gets", as the data plane decides it: what is refused, how, and what is stored of it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from keys.client_keys import new_client_key
from keys.models import Client, InFlight, RequestLog
from keys.services.clients import create_client, revoke_client
from proxy.exchange import BodyLimits
from tests.data_plane import ALICE, MESSAGE, DataPlane, OpenCall, Reply

MakeKey = Callable[[DataPlane], str]
DEEP = b'{"model": "m", "messages": [' + b"[" * 1000 + b"]" * 1000 + b"]}"


def refused(plane: DataPlane, reply: Reply, status: int, error_type: str) -> None:
    """Anthropic's shape, and neither the ledger nor upstream knows of the request."""
    assert (reply.status, reply.error["type"]) == (status, error_type)
    assert reply.json()["type"] == "error"
    assert reply.json()["request_id"] == reply.headers["request-id"]
    assert not RequestLog.objects.exists()
    assert not InFlight.objects.exists()
    assert plane.sandbox.requests() == []


# -- Client keys -----------------------------------------------------------------------------------------------------
def _unknown(plane: DataPlane) -> str:
    return new_client_key()


def _revoked(plane: DataPlane) -> str:
    key, client = create_client(actor=ALICE, name="mallory")
    revoke_client(client.id, actor=ALICE)
    return key


def _expired(plane: DataPlane) -> str:
    key, client = create_client(actor=ALICE, name="mallory")
    Client.objects.filter(pk=client.id).update(expires_at=plane.clock())
    plane.clock.forward(1)
    return key


def _without_scope(plane: DataPlane) -> str:
    key, client = create_client(actor=ALICE, name="mallory")
    Client.objects.filter(pk=client.id).update(scopes=["stats"])
    return key


BAD_CLIENTS: dict[str, MakeKey] = {"unknown": _unknown, "revoked": _revoked, "expired": _expired}


@pytest.mark.parametrize("make_key", BAD_CLIENTS.values(), ids=BAD_CLIENTS)
def test_unknown_revoked_and_expired_keys_look_like_a_malformed_one(plane: DataPlane, make_key: MakeKey) -> None:
    plane.add_key("alpha")
    reply = plane.post(headers={"x-api-key": make_key(plane)})
    refused(plane, reply, 401, "authentication_error")
    malformed = plane.post(headers={"x-api-key": "letmein"})
    assert reply.error == malformed.error
    assert reply.headers["x-should-retry"] == malformed.headers["x-should-retry"] == "false"


def test_a_key_without_the_messages_scope_opens_nothing(plane: DataPlane) -> None:
    plane.add_key("alpha")
    reply = plane.post(headers={"x-api-key": _without_scope(plane)})
    assert reply.status in (401, 403)
    assert plane.sandbox.requests() == []
    assert not RequestLog.objects.exists()


def test_a_revoked_key_stops_working_at_once(plane: DataPlane) -> None:
    plane.add_key("alpha")
    assert plane.post().status == 200
    revoke_client(plane.client.id, actor=ALICE)
    assert plane.post().status == 401


@pytest.mark.parametrize("is_sent", [True, False], ids=["with a body", "without"])
def test_a_malformed_key_is_refused_before_the_body_is_read(plane: DataPlane, is_sent: bool) -> None:
    call = plane.open(headers={"x-api-key": ""}, raw=b"not JSON at all", send=is_sent)
    refused(plane, call.reply(), 401, "authentication_error")
    plane.wait_until(lambda: call.sent.qsize() == int(is_sent))  # nothing was received


CREDENTIALS: dict[str, Callable[[str], dict[str, str]]] = {
    "x-api-key": lambda key: {"x-api-key": key},
    "Bearer": lambda key: {"x-api-key": "", "authorization": f"Bearer {key}"},
    "both": lambda key: {"x-api-key": key, "authorization": f"Bearer {key}"},
    "a foreign key beside ours": lambda key: {"x-api-key": "sk-foreign", "authorization": f"bearer {key}"},
}


@pytest.mark.parametrize("headers", CREDENTIALS.values(), ids=CREDENTIALS)
def test_a_client_key_comes_in_either_header_or_in_both(
    plane: DataPlane, headers: Callable[[str], dict[str, str]]
) -> None:
    plane.add_key("alpha")
    assert plane.post(headers=headers(plane.client_key)).status == 200


# -- Bodies that are no request --------------------------------------------------------------------------------------
def _body(**changes: object) -> bytes:
    return json.dumps({**MESSAGE, **changes}).encode()


BAD_BODIES = {
    "empty": (b"", "body: is not JSON"),
    "not JSON": (b"hello", "body: is not JSON"),
    "cut": (_body()[:-1], "body: is not JSON"),
    "two documents": (_body() + _body(), "body: is not JSON"),
    "not UTF-8": (_body().replace(b"Hello", b"\xff\xfe"), "body: is not UTF-8"),
    "a byte order mark": (b"\xef\xbb\xbf" + _body(), "body: starts with a byte order mark"),
    "UTF-16": (_body().decode().encode("utf-16"), "body: starts with a byte order mark"),
    "an array": (b"[]", "body: must be a JSON object, not an array"),
    "a string": (b'"hi"', "body: must be a JSON object, not a string"),
    "null": (b"null", "body: must be a JSON object, not null"),
    "no model": (json.dumps({"messages": []}).encode(), "model: field required"),
    "model null": (_body(model=None), "model: must be a string, not null"),
    "model a number": (_body(model=4), "model: must be a string, not a number"),
    "model empty": (_body(model=" "), "model: must not be empty"),
    "no messages": (json.dumps({"model": "m"}).encode(), "messages: field required"),
    "messages an object": (_body(messages={}), "messages: must be an array, not an object"),
    "messages a string": (_body(messages="hi"), "messages: must be an array, not a string"),
    "stream a string": (_body(stream="yes"), "stream: must be true or false, not a string"),
    "max_tokens a float": (_body(max_tokens=1.5), "max_tokens: must be an integer"),
    "max_tokens true": (_body(max_tokens=True), "max_tokens: must be an integer"),
    "max_tokens negative": (_body(max_tokens=-1), "max_tokens: must be 0 or more"),
    "NaN": (_body(temperature=float("nan")), "temperature: is not a finite number"),
    "infinity": (_body(top_p=float("inf")), "top_p: is not a finite number"),
    "a float out of range": (_body(x=1).replace(b'"x": 1', b'"x": 1e999'), "x: is not a finite number"),
    "a lone surrogate": (_body(system="\ud800"), "system: has a lone surrogate"),
    "a lone surrogate deep": (
        _body(messages=[{"role": "user", "content": "\udfff"}]),
        "messages.0.content: has a lone surrogate",
    ),
    "a lone surrogate in a key": (_body(metadata={"\ud83d": 1}), "metadata.?: has a lone surrogate"),
    "deeper than 1,000": (DEEP, "body: nested more than 1,000 levels deep"),
    "a million brackets": (b"[" * 1_000_000, "body: nested more than 1,000 levels deep"),
    "an integer of 5,000 digits": (_body(x=1).replace(b'"x": 1', b'"x": ' + b"1" * 5000), "body: has an integer"),
}


@pytest.mark.parametrize(("raw", "message"), BAD_BODIES.values(), ids=BAD_BODIES)
def test_a_body_that_is_no_request_gets_400_naming_the_field(plane: DataPlane, raw: bytes, message: str) -> None:
    plane.add_key("alpha")
    reply = plane.post(raw=raw)
    refused(plane, reply, 400, "invalid_request_error")
    assert reply.error["message"].startswith(message)


def test_a_depth_of_1000_is_passed_on(plane: DataPlane) -> None:
    plane.add_key("alpha")
    raw = _body(x=1).replace(b'"x": 1', b'"x": ' + b"[" * 999 + b"]" * 999)
    plane.post(raw=raw)  # what upstream says to it is upstream's
    (asked,) = plane.sandbox.requests()
    assert asked.body_bytes > 2 * 999


@pytest.mark.plane(parse_in_thread_bytes=10)
def test_a_large_body_is_parsed_in_a_thread_with_the_same_result(plane: DataPlane) -> None:
    plane.add_key("alpha")
    refused(plane, plane.post(raw=b'{"model": 1, "messages": []}'), 400, "invalid_request_error")
    assert plane.post().status == 200


# -- Size ------------------------------------------------------------------------------------------------------------
LIMIT = 32 * 1024 * 1024


def test_a_declared_length_over_32_mb_gets_413_unread(plane: DataPlane) -> None:
    call = plane.open(headers={"content-length": str(LIMIT + 1)}, send=False)
    refused(plane, call.reply(), 413, "request_too_large")


def test_a_chunked_body_over_32_mb_gets_413_while_it_is_read(plane: DataPlane) -> None:
    call = plane.open(send=False)
    for _ in range(32):
        call.send_body(b" " * 1024 * 1024, more=True)
    call.send_body(b" ", more=True)  # the rest never comes
    refused(plane, call.reply(), 413, "request_too_large")
    assert plane.service.body_budget.used == 0


@pytest.mark.parametrize("declared", ["ten", "1e3", "-1", "1.0", "\u0663"], ids=ascii)
def test_a_length_that_is_no_number_gets_400(plane: DataPlane, declared: str) -> None:
    call = plane.open(headers={"content-length": declared}, send=False)
    refused(plane, call.reply(), 400, "invalid_request_error")


def _opened(plane: DataPlane, size: int) -> OpenCall:
    """A call that has sent `size` bytes of a body and holds the rest back."""
    before = plane.service.body_budget.used
    call = plane.open(send=False)
    call.send_body(b" " * size, more=True)
    plane.wait_until(lambda: plane.service.body_budget.used == before + size)
    return call


@pytest.mark.plane(bodies_bytes=1000)
def test_bodies_over_the_256_mb_of_a_process_get_529(plane: DataPlane) -> None:
    plane.add_key("alpha")
    first = _opened(plane, 900)
    reply = plane.post()
    refused(plane, reply, 529, "overloaded_error")
    assert 1 <= int(reply.headers["retry-after"]) <= 60
    assert plane.service.body_budget.used == 900  # what the refused one held is given back
    first.send_body(b"", more=False)
    assert first.reply().status == 400
    assert plane.service.body_budget.used == 0


def _finish(call: OpenCall) -> None:
    call.send_body(b"nonsense", more=False)


BODY_ENDINGS: dict[str, Callable[[OpenCall], None]] = {
    "finished": _finish,
    "left": lambda call: call.leave(),
    "silent": lambda call: None,
    "too large": lambda call: call.send_body(b" " * 2000, more=True),
}
SHORT_LIMITS = BodyLimits(max_bytes=LIMIT, silence_seconds=0.5, grace_seconds=0.5, min_bytes_per_second=64 * 1024)


@pytest.mark.plane(bodies_bytes=1000, body=SHORT_LIMITS)
@pytest.mark.parametrize("end", BODY_ENDINGS.values(), ids=BODY_ENDINGS)
def test_the_budget_is_given_back_however_a_body_ends(plane: DataPlane, end: Callable[[OpenCall], None]) -> None:
    plane.add_key("alpha")
    end(_opened(plane, 900))
    plane.wait_until(lambda: plane.service.body_budget.used == 0)
    assert plane.post().status == 200


def test_the_budget_is_given_back_after_an_answer(plane: DataPlane) -> None:
    plane.add_key("alpha")
    plane.sandbox.behave(deltas=3)
    assert plane.stream().status == plane.post().status == 200
    plane.wait_until(lambda: plane.service.body_budget.used == 0)


# -- Speed -----------------------------------------------------------------------------------------------------------
@pytest.mark.plane(body=SHORT_LIMITS)
def test_a_silent_body_is_refused(plane: DataPlane) -> None:
    call = plane.open(send=False)
    call.send_body(b"{", more=True)
    refused(plane, call.reply(), 408, "timeout_error")


@pytest.mark.plane(body=SHORT_LIMITS)
def test_a_body_that_is_slow_after_its_grace_is_refused(plane: DataPlane) -> None:
    call = plane.open(send=False)
    for _ in range(30):
        call.send_body(b" " * 500, more=True)
        time.sleep(0.05)
        if call.is_over:
            break
    refused(plane, call.reply(), 408, "timeout_error")


@pytest.mark.plane(body=SHORT_LIMITS)
def test_a_body_that_is_fast_enough_may_take_longer_than_its_grace(plane: DataPlane) -> None:
    plane.add_key("alpha")
    raw = _body()
    call = plane.open(send=False)
    for _ in range(8):
        call.send_body(b" " * 16 * 1024, more=True)  # 160 kB a second
        time.sleep(0.1)
    call.send_body(raw, more=False)
    assert call.reply().status == 200


# -- Methods and paths -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE", "TRACE", "post-haste"])
def test_a_wrong_method_gets_405(plane: DataPlane, method: str) -> None:
    reply = plane.post(method=method)
    refused(plane, reply, 405, "invalid_request_error")
    assert reply.headers["allow"] == "POST, OPTIONS"


@pytest.mark.parametrize(
    "path", ["/v1/", "/v1/nothing", "/v1/messages/", "/v1/messages/x", "/v1/\0", "/v1/\udc80"], ids=ascii
)
def test_an_unknown_path_under_v1_gets_404(plane: DataPlane, path: str) -> None:
    scope_path = path.encode("utf-8", "replace").decode()
    refused(plane, plane.post(path=scope_path), 404, "not_found_error")


# -- Logged fields ---------------------------------------------------------------------------------------------------
ODD_TEXTS = {
    "NUL": "a\0b",
    "10 kB": "x" * 10_240,
    "not UTF-8": "\udcff\udcfe\udc80",  # the bytes ff fe 80
    "a lone surrogate in UTF-8": "\udced\udca0\udc80",
    "a four-byte character at the cut": "x" * 299 + "🦀" * 10,
    "controls": "".join(map(chr, range(1, 32))),
    "SQL": "'; DROP TABLE keys_requestlog; --",
}


@pytest.mark.parametrize("text", ODD_TEXTS.values(), ids=ODD_TEXTS)
def test_any_bytes_in_a_logged_header_are_exactly_one_row(plane: DataPlane, text: str) -> None:
    plane.add_key("alpha")
    headers = {"user-agent": text, "x-session-id": text, "x-claude-code-session-id": text, "anthropic-beta": text}
    assert plane.post(headers=headers).status == 200
    row = plane.only_row()
    assert row.status == 200
    assert row.cost_nano == plane.sandbox.billed_nano()
    assert 0 < len(row.user_agent) <= 300


@pytest.mark.parametrize("text", [t for t in ODD_TEXTS.values() if t.isprintable() or "\0" in t], ids=ascii)
def test_any_model_name_is_exactly_one_row(plane: DataPlane, text: str) -> None:
    plane.add_key("alpha")
    reply = plane.post(raw=_body(model=text.encode("utf-8", "replace").decode()))
    assert reply.status in (400, 404)  # upstream knows no such model
    assert plane.only_row().status == reply.status


@pytest.mark.parametrize("field", ["id", "x-generation-id"])
def test_any_bytes_in_upstreams_names_are_exactly_one_row(plane: DataPlane, field: str) -> None:
    plane.add_key("alpha")
    odd = "gen-\u0000\ud800" + "x" * 10_000
    document = {"id": odd, "type": "message", "content": [], "model": odd, "stop_reason": odd, "usage": {"cost": 0.5}}
    plane.sandbox.behave(body=json.dumps(document), headers={"x-generation-id": "g" * 5_000} if field != "id" else {})
    assert plane.post().status == 200
    assert plane.only_row().cost_nano == 500_000_000


def test_a_request_without_a_free_key_is_exactly_one_row(plane: DataPlane) -> None:
    reply = plane.post(headers={"user-agent": "a\0b"})
    assert (reply.status, reply.error["type"]) == (529, "overloaded_error")
    assert reply.error["message"].startswith("At least one OpenRouter API key is required")
    row = plane.only_row()
    assert (row.status, row.key_id, row.attempts) == (529, None, 0)
