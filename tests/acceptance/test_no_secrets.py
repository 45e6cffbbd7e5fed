"""After a run in which everything happens, no planted key can be found in anything that the service wrote or showed."""

from __future__ import annotations

import json
import secrets
import sqlite3
import string
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from opensvm.sandbox.thread import SandboxServer
from tests.acceptance.service import Service, wait_until

PASSWORD = "planted-admin-password"
ASKED: dict[str, Any] = {"model": "claude-3-opus-4", "max_tokens": 50, "messages": [{"role": "user", "content": "hi"}]}
ADMIN_LISTS = [
    "openrouterkey",
    "client",
    "account",
    "cooldown",
    "requestlog",
    "modelalias",
    "auditevent",
]


def _planted() -> str:
    """An upstream key of this run alone; its text can't be anywhere by chance."""
    letters = string.ascii_lowercase + string.digits
    return "sk-or-v1-test-" + "".join(secrets.choice(letters) for _ in range(40))


@dataclass(frozen=True, slots=True)
class Run:
    """A service after its run. `pages` are the admin's, by path."""

    service: Service
    folder: Path
    planted: dict[str, str]  # what may not be found, by name
    pages: dict[str, str]

    def files(self) -> list[Path]:
        """All that was written, but the keyring, which is what keys are sealed with."""
        return [path for path in self.folder.rglob("*") if path.is_file() and path.name != "keyring.json"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, sandbox_server: SandboxServer) -> Run:
    folder = tmp_path_factory.mktemp("secrets")
    keys = {name: _planted() for name in ("environment", "stdin", "admin", "refused", "limited")}
    sandbox_server.start_afresh()
    for name in keys.keys() - {"refused"}:
        sandbox_server.controls.add_key(keys[name], name=name)
    sandbox_server.controls.fail("rate_limited", key="limited")
    variables = {
        "OPENROUTER_API_KEYS": ",".join(
            [keys["environment"], keys["limited"], keys["refused"], f"no key {keys['stdin']}"]
        ),
        "OPENROUTER_BASE_URL": sandbox_server.base_url,
        "DJANGO_SUPERUSER_USERNAME": "alice",
        "DJANGO_SUPERUSER_PASSWORD": PASSWORD,
        "OPENROUTER_RETRY_DELAY": "10",
    }
    with Service(folder, variables) as service:
        service.manage("import_keys", "-", stdin=f"{keys['stdin']}\nnot a key {keys['stdin']}\n", check=False)
        client_key = service.client_key("bob")
        with httpx.Client(base_url=service.url, timeout=20, trust_env=False) as browser:
            _use(service, browser, client_key, keys)
            pages = _visit(browser, keys["admin"])
            _use(service, browser, client_key, keys)
            pages |= _visit(browser, "")
    with Service(folder / "beat", variables, "--role", "beat", var_dir=folder / "var") as beat:
        wait_until(lambda: any(path.is_file() for path in beat.var_dir.glob("broker/**/*")))  # and nobody takes them
    return Run(service, folder, {**keys, "client": client_key}, pages)


def _use(service: Service, api: httpx.Client, client_key: str, keys: dict[str, str]) -> None:
    """Answers, streams and every kind of refusal, with keys in all the wrong places."""
    good = {"x-api-key": client_key}
    odd = {
        "authorization": f"Bearer {client_key}",
        "user-agent": f"agent/1 {client_key}",
        "x-session-id": keys["environment"],
        "anthropic-beta": keys["environment"],
    }
    for _ in range(6):
        assert api.post("/v1/messages", json=ASKED, headers=good).status_code == 200
    for changes in ({"stream": True}, {"messages": []}, {"model": "no/such-model"}, {"model": keys["environment"]}):
        api.post("/v1/messages", json={**ASKED, **changes}, headers=good)
    for text in (keys["environment"], client_key[:-1], client_key + "x"):
        assert api.post("/v1/messages", json=ASKED, headers={"x-api-key": text}).status_code == 401
    api.post(f"/v1/{client_key}", json=ASKED, headers=good)
    api.get(f"/{keys['environment']}")
    api.get("/api/keys/stats", params={"key": client_key}, headers=good)
    api.post("/v1/messages", content=b'{"broken', headers={**good, **odd})
    assert api.post("/v1/messages", json=ASKED, headers=odd).status_code == 200


def _visit(browser: httpx.Client, secret: str) -> dict[str, str]:
    """Log in, add a key if there is one to add, and open every list and its first row's page."""
    _log_in(browser)
    if secret:
        _add_key(browser, secret)
    pages = {"/admin/": browser.get("/admin/").text}
    for name in ADMIN_LISTS:
        path = f"/admin/keys/{name}/"
        answer = browser.get(path)
        if answer.status_code == 404:
            continue  # no such page
        assert answer.status_code == 200, path
        pages[path] = answer.text
        for link in sorted(_links(answer.text, path))[:6]:
            pages[link] = browser.get(link).text
    return pages


def _links(page: str, path: str) -> set[str]:
    parts = [part.partition('"')[0] for part in page.split('href="')[1:]]
    return {part for part in parts if part.startswith(path) and part.endswith(("/change/", "/history/"))}


def _log_in(browser: httpx.Client) -> None:
    browser.get("/admin/login/")
    form = {"username": "alice", "password": PASSWORD, "csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    answer = browser.post("/admin/login/?next=/admin/", data=form, follow_redirects=True)
    assert answer.status_code == 200
    assert "/admin/logout/" in answer.text


def _add_key(browser: httpx.Client, secret: str) -> None:
    path = "/admin/keys/openrouterkey/add/"
    browser.get(path)
    form = {"key_text": secret, "tier": "1", "note": "", "account": ""}
    token = {"csrfmiddlewaretoken": browser.cookies["csrftoken"]}
    twice = [browser.post(path, data={**form, **token, "name": name}, follow_redirects=True) for name in ("a", "b")]
    assert ["<title>Error:" in answer.text for answer in twice] == [False, True]  # a key is in the pool once
    assert all(secret not in answer.text for answer in twice)  # not even in the form that refuses it


def test_the_run_was_a_run(run: Run) -> None:
    """Or else there would be nothing to find."""
    with closing(sqlite3.connect(run.service.var_dir / "opensvm.sqlite3")) as database:
        (requests,) = database.execute("SELECT count(*) FROM keys_requestlog").fetchone()
        (keys,) = database.execute("SELECT count(*) FROM keys_openrouterkey").fetchone()
        (benched,) = database.execute("SELECT count(*) FROM keys_cooldown").fetchone()
    assert requests >= 16
    assert keys == 5
    assert benched >= 2
    assert len(run.pages) > 10
    events = {line["event"] for line in run.service.log()}
    assert {"client.refused", "key.benched", "request.settled"} <= events
    assert any("broker" in path.parts for path in run.files())


@pytest.mark.parametrize("name", ["environment", "stdin", "admin", "refused", "limited", "client"])
def test_a_planted_key_is_in_no_file(run: Run, name: str) -> None:
    """Log, database with its write-ahead log, broker, standard output and error."""
    wanted = run.planted[name].encode()
    assert {path.name for path in run.files()} >= {"stdout", "stderr", "opensvm.log", "opensvm.sqlite3"}
    found = [str(path) for path in run.files() if wanted in path.read_bytes()]
    assert found == []


@pytest.mark.parametrize("name", ["environment", "stdin", "admin", "refused", "limited", "client"])
def test_a_planted_key_is_on_no_page(run: Run, name: str) -> None:
    assert [path for path, page in run.pages.items() if run.planted[name] in page] == []


@pytest.mark.parametrize("name", ["environment", "stdin", "admin", "refused", "limited", "client"])
def test_no_half_of_a_planted_key_is_written_either(run: Run, name: str) -> None:
    """Cutting a text is not hiding it: neither the first nor the last 20 characters of its random part."""
    random_part = run.planted[name].removeprefix("sk-ant-api03-").removeprefix("sk-or-v1-test-")
    texts = [path.read_bytes() for path in run.files()] + [page.encode() for page in run.pages.values()]
    for piece in (random_part[:20], random_part[-20:]):
        assert not any(piece.encode() in text for text in texts)


def test_keys_show_as_their_tails(run: Run) -> None:
    tails = {f"...{run.planted[name][-4:]}" for name in ("environment", "limited", "refused")}
    shown = json.dumps(run.service.log())
    assert all(tail in shown for tail in tails)
    assert any(tail in page for page in run.pages.values() for tail in tails)
