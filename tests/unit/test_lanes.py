"""Steps of `bin/test`, run beside each other."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_a_signal_ends_what_runs_and_starts_no_more(tmp_path: Path) -> None:
    program = f"""
import os, signal, sys
from tests.lanes import Lanes, Step
def end(number, frame): sys.exit(7)
signal.signal(signal.SIGTERM, end)
waits = Step("waits", [sys.executable, "-c", "print(0, flush=True); import time; time.sleep(60)"], os.environ)
tells = Step("tells", [sys.executable, "-c", "import os, signal; os.kill(os.getppid(), signal.SIGTERM)"], os.environ)
never = Step("never", [sys.executable, "-c", "open({str(tmp_path / "ran")!r}, 'w')"], os.environ)
Lanes([[waits, never], [tells]]).run()
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=30, stdout=subprocess.DEVNULL)

    assert done.returncode == 7
    assert not (tmp_path / "ran").exists()
