"""What an action reports when rows are skipped, fail, or take too long."""

from __future__ import annotations

from django.db import OperationalError

from keys.admin.row_actions import Outcome, RowAction, apply
from keys.errors import IllegalStateChange, NotFound
from keys.services.audit import Actor

ALICE = Actor("alice")


def action_that(run: object) -> RowAction:
    return RowAction("do", "Do", "done", lambda row: "odd" if row % 2 else "", run)  # type: ignore[arg-type]


def refuse(error: Exception) -> RowAction:
    def run(row: int, actor: Actor) -> Outcome:
        raise error

    return action_that(run)


def test_rows_are_counted_by_what_came_of_them() -> None:
    report = apply(action_that(lambda row, actor: Outcome()), [1, 2, 3, 4, 6], ALICE)

    assert report.sentence("done") == "3 done, 2 skipped (odd)."
    assert report.changed == [2, 4, 6]


def test_several_reasons_are_counted_each() -> None:
    action = RowAction("do", "Do", "done", lambda row: ["", "odd", "too high"][row], lambda row, actor: Outcome())

    assert apply(action, [0, 1, 2, 2], ALICE).sentence("done") == "1 done, 3 skipped (1 odd, 2 too high)."


def test_a_row_that_someone_else_changed_first_is_skipped() -> None:
    report = apply(refuse(IllegalStateChange("work", "retired", "disabled")), [2], ALICE)

    assert report.sentence("done") == "0 done, 1 skipped (already retired)."


def test_a_refusal_of_a_service_is_told_in_its_words() -> None:
    assert apply(refuse(NotFound("key", 7)), [2, 4], ALICE).sentence("done") == (
        "0 done, 2 failed (There is no key 7.)."
    )


def test_database_trouble_is_told_without_its_text() -> None:
    sentence = apply(refuse(OperationalError("password=hunter2")), [2], ALICE).sentence("done")

    assert "hunter2" not in sentence
    assert "The database did not take this" in sentence


def test_what_is_not_begun_in_time_is_left_for_the_next_press() -> None:
    report = apply(action_that(lambda row, actor: Outcome()), [2, 4], ALICE, time_for_all=-1)

    assert report.done == 0
    assert "not begun" in report.sentence("done")
