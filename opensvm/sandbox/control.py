"""How tests script the sandbox and look into it, also from another process: `/sandbox/…` on the same port.

Only callers on this machine are answered. `remote.Controls` is the client of this module.
"""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from opensvm.sandbox.errors import Failed
from opensvm.sandbox.keys import RateLimit, SandboxKey, key_facts, new_key
from opensvm.sandbox.ledger import Generation
from opensvm.sandbox.money import NANO
from opensvm.sandbox.received import Received
from opensvm.sandbox.reply import Reply, failure_reply, json_reply
from opensvm.sandbox.script import BadScript, read_rule

if TYPE_CHECKING:
    from opensvm.sandbox.app import Sandbox

PREFIX = "/sandbox"
WELCOME = "This is the OpenSVM Sandbox, not OpenRouter. No model is asked and no money is spent."


def is_control(path: str) -> bool:
    return path in ("/", PREFIX) or path.startswith(f"{PREFIX}/")


def answer(sandbox: Sandbox, received: Received) -> Reply:
    if received.path in ("/", PREFIX):
        return json_reply({"sandbox": WELCOME, "base_url": "/api/v1"})
    action = _ACTIONS.get((received.method, received.path.removeprefix(PREFIX)))
    if action is None:
        return failure_reply(Failed(404, f"The sandbox has no control {received.method} {received.path}", "B"))
    try:
        document = json.loads(received.raw_body or b"{}")
        return json_reply(action(sandbox, document))
    except (BadScript, ValueError, TypeError, KeyError) as exc:
        return failure_reply(Failed(400, f"{received.path}: {exc}", "B"))


def _add_rules(sandbox: Sandbox, document: Any) -> Any:
    rules = [read_rule(one) for one in document["rules"]]
    for rule in rules:
        sandbox.script.add(rule)
    return _show_rules(sandbox, None)


def _show_rules(sandbox: Sandbox, _: Any) -> Any:
    return {"rules": [{**rule.as_json(), "calls": calls} for rule, calls in sandbox.script]}


def _clear_rules(sandbox: Sandbox, _: Any) -> Any:
    sandbox.script.clear()
    return {"rules": []}


def _show_requests(sandbox: Sandbox, _: Any) -> Any:
    return {"requests": [received.as_json() for received in sandbox.inbox.requests]}


def _show_ledger(sandbox: Sandbox, _: Any) -> Any:
    return {"generations": [_generation(generation) for generation in sandbox.ledger.all()]}


def _generation(generation: Generation) -> dict[str, Any]:
    document = dataclasses.asdict(generation)
    moments = {name: value.isoformat() for name, value in document.items() if isinstance(value, dt.datetime)}
    return {**document, **moments, "finished": generation.finished}


def _reset(sandbox: Sandbox, document: Any) -> Any:
    sandbox.reset(keys=document.get("keys", False))
    return {"sandbox": WELCOME}


def _configure(sandbox: Sandbox, document: Any) -> Any:
    sandbox.config = dataclasses.replace(sandbox.config, **document)
    return dataclasses.asdict(sandbox.config)


def _break_connections(sandbox: Sandbox, document: Any) -> Any:
    sandbox.faults = dataclasses.replace(sandbox.faults, **document)
    return dataclasses.asdict(sandbox.faults)


def _add_key(sandbox: Sandbox, document: Any) -> Any:
    """A key with everything that `keys.new_key` takes; the only answer that shows its text."""
    key = new_key(sandbox.keys, sandbox.now(), **_key_fields(document))
    return {"secret": key.secret, **_key(sandbox, key)}


def _key_fields(document: dict[str, Any]) -> dict[str, Any]:
    fields = dict(document)
    if fields.get("expires_at"):
        fields["expires_at"] = dt.datetime.fromisoformat(fields["expires_at"])
    if fields.get("rate_limit"):
        fields["rate_limit"] = RateLimit(**fields["rate_limit"])
    return fields


def _change_key(sandbox: Sandbox, document: Any) -> Any:
    """Changes the key that `key` names (text, name, tail or hash)."""
    fields = _key_fields(document)
    name = fields.pop("key")
    key = sandbox.keys.find_named(name)
    if key is None:
        raise BadScript("the sandbox knows no such key; add it first.")
    if "limit_usd" in fields:
        limit = fields.pop("limit_usd")
        key.limit_nano = None if limit is None else round(limit * NANO)
    for field, value in fields.items():
        if field not in ("limit_reset", "expires_at", "disabled", "rate_limit"):
            raise BadScript(f"{field} of a key can't be changed.")
        setattr(key, field, value)
    return _key(sandbox, key)


def _show_keys(sandbox: Sandbox, _: Any) -> Any:
    return {"keys": [_key(sandbox, key) for key in sandbox.keys]}


def _key(sandbox: Sandbox, key: SandboxKey) -> dict[str, Any]:
    facts = key_facts(key, sandbox.ledger, sandbox.now().date())
    return {"name": key.name, "tail": key.tail, "hash": key.hash, "account": key.account.name, **facts}


def _set_account(sandbox: Sandbox, document: Any) -> Any:
    account = sandbox.keys.account(document["name"])
    credit = document.get("credit_usd")
    account.credit_nano = None if credit is None else round(credit * NANO)
    account.organization_id = document.get("organization_id", account.organization_id)
    return {"name": account.name, "credit_nano": account.credit_nano, "user_id": account.user_id}


_ACTIONS: dict[tuple[str, str], Callable[[Sandbox, Any], Any]] = {
    ("GET", "/script"): _show_rules,
    ("POST", "/script"): _add_rules,
    ("DELETE", "/script"): _clear_rules,
    ("GET", "/requests"): _show_requests,
    ("GET", "/ledger"): _show_ledger,
    ("POST", "/reset"): _reset,
    ("POST", "/config"): _configure,
    ("POST", "/connections"): _break_connections,
    ("GET", "/keys"): _show_keys,
    ("POST", "/keys"): _add_key,
    ("PATCH", "/keys"): _change_key,
    ("POST", "/accounts"): _set_account,
}
