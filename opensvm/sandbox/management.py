"""What only a management key may do: list, make, change and delete the keys of its account, and see its credit."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from opensvm.sandbox.errors import Failed
from opensvm.sandbox.keys import SPANS, SandboxKey, key_record, new_key
from opensvm.sandbox.money import NANO, usd
from opensvm.sandbox.received import Received
from opensvm.sandbox.reply import Reply, failure_reply, json_reply

if TYPE_CHECKING:
    from opensvm.sandbox.app import Sandbox

PAGE = 100
ENDLESS_CREDIT_NANO = 1_000_000 * NANO  # shown for an account without a limit


def _forbidden() -> Reply:
    return failure_reply(Failed(403, "Only management keys can perform this operation", "B"))


def show_credits(sandbox: Sandbox, key: SandboxKey) -> Reply:
    if not key.is_management:
        return _forbidden()
    credit = key.account.credit_nano
    total = ENDLESS_CREDIT_NANO if credit is None else credit
    used = sandbox.ledger.spent_by_account(key.account.name)
    return json_reply({"data": {"total_credits": usd(total), "total_usage": usd(used)}})


def answer(sandbox: Sandbox, received: Received, key: SandboxKey) -> Reply:
    """`/keys` and `/keys/{hash}`."""
    if not key.is_management:
        return _forbidden()
    _, _, wanted = received.path.partition("/keys")
    wanted = wanted.strip("/")
    if not wanted:
        return _answer_collection(sandbox, received, key)
    found = next((one for one in sandbox.keys.of_account(key.account) if one.hash == wanted), None)
    if found is None:
        return failure_reply(Failed(404, "API key not found", "B"))
    match received.method:
        case "GET":
            return _show(sandbox, found)
        case "PATCH":
            return _change(sandbox, found, received.body)
        case "DELETE":
            sandbox.keys.remove(found)
            return json_reply({"deleted": True})
    return failure_reply(Failed(405, "Method Not Allowed", "B"))


def _answer_collection(sandbox: Sandbox, received: Received, key: SandboxKey) -> Reply:
    if received.method == "POST":
        return _create(sandbox, key, received.body)
    if received.method != "GET":
        return failure_reply(Failed(405, "Method Not Allowed", "B"))
    with_disabled = received.query.get("include_disabled", "").lower() == "true"
    keys = [one for one in sandbox.keys.of_account(key.account) if with_disabled or not one.disabled]
    offset = received.query.get("offset", "0")
    start = int(offset) if offset.isascii() and offset.isdigit() else 0
    today = sandbox.now().date()
    return json_reply({"data": [key_record(one, sandbox.ledger, today) for one in keys[start : start + PAGE]]})


def _show(sandbox: Sandbox, key: SandboxKey) -> Reply:
    return json_reply({"data": key_record(key, sandbox.ledger, sandbox.now().date())})


def _create(sandbox: Sandbox, management_key: SandboxKey, body: Any) -> Reply:
    """The key's text stands at the top level of the answer, this once."""
    fault = _body_fault(body, named=True)
    if fault:
        return failure_reply(Failed(400, fault, "B"))
    made = new_key(
        sandbox.keys,
        sandbox.now(),
        name=body["name"],
        account=management_key.account.name,
        limit_usd=body.get("limit"),
        limit_reset=body.get("limit_reset"),
        expires_at=_moment(body.get("expires_at")),
    )
    record = key_record(made, sandbox.ledger, sandbox.now().date())
    return json_reply({"data": record, "key": made.secret}, status=201)


def _change(sandbox: Sandbox, key: SandboxKey, body: Any) -> Reply:
    if fault := _body_fault(body, named=False):
        return failure_reply(Failed(400, fault, "B"))
    key.name = body.get("name", key.name)
    key.disabled = body.get("disabled", key.disabled)
    key.include_byok_in_limit = body.get("include_byok_in_limit", key.include_byok_in_limit)
    key.limit_reset = body.get("limit_reset", key.limit_reset)
    if "limit" in body:
        key.limit_nano = None if body["limit"] is None else round(body["limit"] * NANO)
    key.updated_at = sandbox.now()
    return _show(sandbox, key)


def _body_fault(body: Any, *, named: bool) -> str:
    if not isinstance(body, dict):
        return "Input should be a valid JSON object"
    name, limit = body.get("name"), body.get("limit")
    if (named or "name" in body) and not (isinstance(name, str) and name):
        return "name: Input should be a non-empty string"
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int | float) or limit < 0):
        return "limit: Input should be a non-negative number"
    if body.get("limit_reset") not in SPANS:
        return "limit_reset: Input should be 'daily', 'weekly', 'monthly' or null"
    if not isinstance(body.get("disabled", False), bool):
        return "disabled: Input should be a boolean"
    try:
        _moment(body.get("expires_at"))
    except (TypeError, ValueError):
        return "expires_at: Input should be a UTC timestamp in ISO 8601"
    return ""


def _moment(text: Any) -> dt.datetime | None:
    if text is None:
        return None
    at = dt.datetime.fromisoformat(text)
    if at.tzinfo is None:
        raise ValueError("without a time zone")
    return at
