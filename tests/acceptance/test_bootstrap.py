"""`.venv`, made by a bare Python in an empty folder. Requirements that need no network stand for the real ones."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from opensvm import bootstrap
from tests import hermetic
from tests.acceptance.service import ROOT

PYTHON = os.path.realpath(sys.executable)  # the one that .venv was made from: it has none of our packages


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """As much of the project as a start needs that goes no further than `.venv`."""
    root = tmp_path / "a project"
    for name in ("bin/serve", "bin/test", "opensvm/bootstrap.py", "opensvm/__init__.py", "manage.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    (root / "requirements.txt").write_text("# nothing\n")
    (root / "requirements-dev.txt").write_text("# nothing either\n")
    (root / "tests").mkdir()
    (root / "tests" / "run.py").write_text("import sys; print('ran in', sys.prefix, *sys.argv[1:])\n")
    return root


def test_a_bare_python_makes_the_venv_and_goes_on_in_it(project: Path) -> None:
    first = _run(project)
    assert first.stdout == f"ran in {project / '.venv'} an argument\n"
    assert "Making .venv" in first.stderr
    second = _run(project)
    assert second.stdout == first.stdout
    assert second.stderr == ""


def test_a_half_made_venv_is_made_anew(project: Path) -> None:
    process = subprocess.Popen(_command(project), env=_environment(), stderr=subprocess.PIPE, start_new_session=True)
    while not (project / ".venv" / "bin" / "python").exists():
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    done = _run(project)
    assert done.returncode == 0
    assert "Making .venv" in done.stderr


def test_several_starts_make_one_venv(project: Path) -> None:
    processes = [
        subprocess.Popen(
            _command(project), env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    results = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert sum("Making .venv" in errors for _, errors in results) == 1


def test_changed_requirements_are_installed_into_the_venv_there_is(project: Path) -> None:
    _run(project)
    (project / "requirements-dev.txt").write_text("# something else\n")
    done = _run(project)
    assert "Installing 0 packages from requirements-dev.txt" in done.stderr
    assert "Making .venv" not in done.stderr
    stamp = json.loads((project / ".venv" / bootstrap.STAMP_NAME).read_text())
    assert set(stamp) == {"python", "requirements-dev.txt"}


def test_a_failed_installation_is_told_and_tried_again(project: Path) -> None:
    (project / "requirements-dev.txt").write_text("no-hash==1\n")
    for _ in range(2):
        done = _run(project)
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1].startswith("Installing requirements-dev.txt failed")


def test_a_python_without_venv_is_told_what_to_install(project: Path) -> None:
    hide = f"import sys; sys.modules['ensurepip'] = None; sys.path.insert(0, {str(project)!r})"
    find = (
        "import importlib.util as u; real = u.find_spec; u.find_spec = lambda n: None if n == 'ensurepip' else real(n)"
    )
    code = f"{hide}; {find}; from opensvm import bootstrap; sys.exit(bootstrap.main(['test']))"
    done = subprocess.run([PYTHON, "-c", code], env=_environment(), capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "apt install python3-venv" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_manage_without_django_and_without_a_venv_names_bin_serve(project: Path) -> None:
    done = subprocess.run(
        [PYTHON, "-S", str(project / "manage.py"), "check"],
        env=_environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "run bin/serve first" in done.stderr


def _command(project: Path) -> list[str]:
    return [str(project / "bin" / "test"), "an argument"]


def _environment() -> dict[str, str]:
    return hermetic.clean_environment(os.environ) | {"PYTHON": PYTHON}


def _run(project: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_command(project), env=_environment(), cwd="/", capture_output=True, text=True, timeout=120)
