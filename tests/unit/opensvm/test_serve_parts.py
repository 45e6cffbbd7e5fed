"""Small parts of `serve`: addresses, children, the sandbox's environment, the restart delay, Python's version."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from opensvm import bootstrap
from opensvm.serve import children, sandbox
from opensvm.serve.addresses import Address, answers, free_port, require_free
from opensvm.serve.errors import StartError
from opensvm.serve.supervisor import delay_before_restart

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def taken() -> Iterator[Address]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield Address("127.0.0.1", server.getsockname()[1])


def test_a_port_in_use_is_told_with_the_setting_to_change(taken: Address) -> None:
    with pytest.raises(StartError, match=rf"Port {taken.port} on 127.0.0.1 is in use: .* set OPENSVM_PORT"):
        require_free(taken)


def test_a_host_that_is_not_ours_is_told_with_the_setting_to_change() -> None:
    with pytest.raises(StartError, match="OPENSVM_HOST"):
        require_free(Address("192.0.2.1", free_port()))


def test_a_free_port_is_free() -> None:
    require_free(Address("127.0.0.1", free_port()))


def test_only_what_listens_answers(taken: Address) -> None:
    assert asyncio.run(answers(taken, ""))
    assert not asyncio.run(answers(Address("127.0.0.1", free_port()), ""))


@pytest.mark.parametrize(
    ("role", "expected"),
    [("all", ["web", "worker", "beat"]), ("web", ["web"]), ("worker", ["worker"]), ("beat", ["beat"])],
    ids=["all", "web", "worker", "beat"],
)
def test_the_processes_of_a_role(role: str, expected: list[str]) -> None:
    specs = children.specs_for(role, address=Address("127.0.0.1", 8000))
    assert [spec.role for spec in specs] == expected


def test_children_do_not_inherit_secrets_of_the_start() -> None:
    variables = dict.fromkeys(("OPENROUTER_API_KEY", "OPENROUTER_API_KEYS", "DJANGO_SUPERUSER_PASSWORD"), "test")
    inherited = children.child_environment({**variables, "OPENROUTER_TIMEOUT": "1", "PATH": "/bin"})
    assert "test" not in inherited.values()
    assert inherited["OPENROUTER_TIMEOUT"] == "1"


@pytest.mark.parametrize(
    ("arguments", "variables", "asked"),
    [
        (["manage.py", "serve", "--sandbox"], {}, True),
        (["manage.py", "serve"], {}, False),
        (["manage.py", "create_client", "--sandbox"], {}, False),
        (["manage.py", "create_client", "NAME"], {"OPENSVM_SANDBOX": "1"}, True),
        (["manage.py"], {}, False),
    ],
    ids=["flag", "no flag", "another command", "variable", "no command"],
)
def test_when_the_sandbox_is_meant(arguments: list[str], variables: dict[str, str], asked: bool) -> None:
    assert sandbox.is_asked_for(arguments, variables) is asked


def test_a_sandbox_knows_nothing_of_the_real_pool() -> None:
    variables = {
        "OPENROUTER_API_KEY": "sk-or-v1-test-real",
        "OPENROUTER_API_KEYS": "",
        "OPENROUTER_BASE_URL": "https://openrouter.ai/api/v1",
        "DATABASE_URL": "postgres://db/real",
        "CELERY_BROKER_URL": "redis://broker",
        "OPENSVM_PORT": "8001",
    }
    (line,) = sandbox.enter(variables, ["manage.py", "serve", "--sandbox"], Path("/srv"))
    for name in ("OPENROUTER_API_KEY", "OPENROUTER_BASE_URL", "DATABASE_URL", "CELERY_BROKER_URL"):
        assert re.search(rf"\b{name}\b", line)
    assert "OPENROUTER_API_KEYS" not in line
    assert "sk-or" not in line
    assert not {"OPENROUTER_API_KEY", "DATABASE_URL", "CELERY_BROKER_URL"} & set(variables)
    assert variables["OPENSVM_VAR_DIR"] == "/srv/var/sandbox"
    assert variables["OPENROUTER_BASE_URL"].startswith("http://127.0.0.1:")
    assert variables["OPENSVM_PORT"] == "8001"


def test_a_sandbox_that_ignores_nothing_says_nothing() -> None:
    assert sandbox.enter({}, ["manage.py", "serve", "--sandbox"], Path("/srv")) == []


def test_restarts_are_soon_at_first_and_never_rarer_than_every_thirty_seconds() -> None:
    delays = [delay_before_restart(restarts) for restarts in range(20)]
    assert delays[0] < 1.0
    assert delays == sorted(delays)
    assert max(delays) == 30.0


@pytest.mark.parametrize("version", [(3, 8), (3, 10)], ids=["3.8", "3.10"])
def test_an_old_python_is_told_what_is_needed(version: tuple[int, int]) -> None:
    with pytest.raises(bootstrap.BootstrapError, match=r"needs 3\.11 or newer"):
        bootstrap.check_python(version)


def test_a_venv_is_current_only_with_a_stamp_for_these_requirements(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("one==1\n")
    venv = bootstrap.Venv(tmp_path)
    assert not venv.is_current("requirements.txt")
    _pretend_to_install(venv)
    assert venv.is_current("requirements.txt")
    (tmp_path / "requirements.txt").write_text("one==2\n")
    assert not venv.is_current("requirements.txt")


def test_a_venv_without_its_stamp_is_not_current(tmp_path: Path) -> None:
    (tmp_path / "requirements.txt").write_text("one==1\n")
    venv = bootstrap.Venv(tmp_path)
    _pretend_to_install(venv)
    (venv.folder / bootstrap.STAMP_NAME).write_text("{")
    assert not venv.is_current("requirements.txt")


def test_both_requirement_files_pin_the_same_versions() -> None:
    """`bin/serve` and `bin/test` share one .venv."""
    serve, test = (_pins(ROOT / name) for name in ("requirements.txt", "requirements-dev.txt"))
    assert len(serve) > 10
    assert {name: test.get(name) for name in serve} == serve


def _pretend_to_install(venv: bootstrap.Venv) -> None:
    venv.python.parent.mkdir(parents=True)
    venv.python.touch(mode=0o755)
    venv.write_stamp({"requirements.txt": venv.digest("requirements.txt")})


def _pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([A-Za-z0-9._\[\]-]+)==(\S+)", path.read_text(), re.MULTILINE))
