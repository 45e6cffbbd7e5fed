"""The comparing of the crash loop's three ledgers finds each breach of a promise."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from opensvm.sandbox.catalogue import Usage
from opensvm.sandbox.remote import SeenGeneration
from tests.acceptance.crash.ledgers import Row, compare
from tests.acceptance.crash.load import Received

NOW = dt.datetime(2026, 11, 22, tzinfo=dt.UTC)
WHOLE = Received(1, is_stream=True, status=200, request_id="req_1", message_id="gen-1", cost_nano=500, is_whole=True)
LEFT = dataclasses.replace(WHOLE, is_whole=False, has_left=True, cost_nano=None)
ROW = Row("req_1", 200, "", 500, "reported", "gen-1")
LOST = Row("req_1", 500, "api_error", None, "unknown", "")


def bill(name: str = "gen-1", cost_nano: int = 500) -> SeenGeneration:
    return SeenGeneration(
        id=name,
        key_hash="",
        key_name="",
        key_tail="",
        account="",
        model="",
        streamed=True,
        created_at=NOW,
        usage=Usage(),
        cost_nano=cost_nano,
        finish_reason="",
        cancelled=False,
        finished=True,
        settled_at=NOW,
        session_id="",
        user="",
        referer="",
        user_agent="",
    )


@pytest.mark.parametrize(
    ("received", "bills", "rows"),
    [
        ([WHOLE], [bill()], [ROW]),
        ([LEFT], [bill()], [ROW]),
        ([LEFT], [bill()], [LOST]),
        ([Received(2, is_stream=False)], [], []),
        ([], [bill(cost_nano=0)], []),
    ],
    ids=["whole", "left", "killed before its id came", "never admitted", "nothing billed"],
)
def test_ledgers_that_agree(received: list[Received], bills: list[SeenGeneration], rows: list[Row]) -> None:
    assert compare(received, bills, rows).wrong == {}


@pytest.mark.parametrize(
    ("received", "bills", "rows", "wrong"),
    [
        ([WHOLE], [bill()], [], "whole answers without a row"),
        ([WHOLE], [bill()], [ROW, ROW], "whole answers with two rows"),
        ([WHOLE], [bill()], [LOST], "whole answers that their row does not call finished"),
        ([WHOLE], [bill()], [dataclasses.replace(ROW, cost_nano=499)], "nano-dollars off in whole answers"),
        ([WHOLE], [bill(cost_nano=501)], [ROW], "nano-dollars off in whole answers"),
        ([dataclasses.replace(WHOLE, cost_nano=7)], [bill()], [ROW], "nano-dollars off in whole answers"),
        ([LEFT], [], [], "begun answers without a row"),
        ([], [bill()], [ROW, dataclasses.replace(ROW, request_id="req_2")], "rows twice"),
        ([], [bill(cost_nano=501)], [ROW], "costs that differ from the bill"),
        ([], [bill()], [dataclasses.replace(LOST, generation_id="gen-1")], "unknown costs that could be asked for"),
        ([], [bill("gen-2")], [ROW], "bills that no row can stand for"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_each_breach_is_found(
    received: list[Received], bills: list[SeenGeneration], rows: list[Row], wrong: str
) -> None:
    assert wrong in compare(received, bills, rows).wrong
