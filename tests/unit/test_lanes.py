"""Steps of `bin/test`, run beside each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.service import is_running
from tests.lanes import Lanes, Outcome, Step
from tests.run import report

ROOT = Path(__file__).parents[2]
MEET = """
import pathlib, sys, time
mine, other = map(pathlib.Path, sys.argv[1:])
mine.touch()
while not other.exists():
    time.sleep(0.01)
print("met")
"""


def step(name: str, code: str, *arguments: str) -> Step:
    return Step(name, [sys.executable, "-c", code, *arguments], os.environ)


def test_lanes_run_beside_each_other(tmp_path: Path) -> None:
    left, right = str(tmp_path / "left"), str(tmp_path / "right")

    outcomes = Lanes([[step("left", MEET, left, right)], [step("right", MEET, right, left)]]).run()

    assert [(o.name, o.exit_code, o.summary) for o in outcomes] == [("left", 0, "met"), ("right", 0, "met")]


def test_after_a_step_that_fails_the_next_one_runs_and_each_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    lane = [step("bad", "print('first'); print('2 failed'); raise SystemExit(3)"), step("good", "print('1 passed')")]

    outcomes = Lanes([lane]).run()

    assert [(o.name, o.exit_code, o.summary) for o in outcomes] == [("bad", 3, "2 failed"), ("good", 0, "1 passed")]
    assert "== bad\nfirst\n2 failed\n" in capsys.readouterr().out


@pytest.mark.parametrize(("code", "word"), [(0, "All passed."), (1, "FAILED: tests")], ids=["good", "bad"])
def test_the_report_ends_with_each_steps_own_last_line(
    capsys: pytest.CaptureFixture[str], code: int, word: str
) -> None:
    assert report([Outcome("lint", 0, "All checks passed!", 0.4), Outcome("tests", code, "5 done", 61.2)]) == code

    verdict = "failed" if code else "ok"
    assert capsys.readouterr().out.splitlines() == [
        "",
        word,
        "lint (ok, 0 s): All checks passed!",
        f"tests ({verdict}, 61 s): 5 done",
    ]


SIGNALLED = """
import os, pathlib, signal, sys
from tests.lanes import Lanes, Step

signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))
waits = "import pathlib, subprocess, sys; child = subprocess.Popen(['sleep', '60']); " \\
    "pathlib.Path(sys.argv[1], 'new').write_text(str(child.pid)); " \\
    "pathlib.Path(sys.argv[1], 'new').rename(pathlib.Path(sys.argv[1], 'child')); child.wait()"
tells = "import os, pathlib, signal, sys, time\\n" \\
    "while not pathlib.Path(sys.argv[1], 'child').exists(): time.sleep(0.01)\\n" \\
    "os.kill(os.getppid(), signal.SIGTERM)"
never = "import pathlib, sys; pathlib.Path(sys.argv[1], 'ran').touch()"
first, next_one, other = (
    Step("step", [sys.executable, "-c", code, sys.argv[1]], os.environ) for code in (waits, never, tells)
)
Lanes([[first, next_one], [other]]).run()
"""


def test_a_signal_ends_what_runs_with_all_it_has_started_and_starts_no_more(tmp_path: Path) -> None:
    command = [sys.executable, "-c", SIGNALLED, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, timeout=30, capture_output=True, check=False)

    assert done.returncode == 7, done.stderr
    assert not (tmp_path / "ran").exists()
    assert not is_running(int((tmp_path / "child").read_text()))
