"""No cell of a CSV is a formula, and what is no formula stays as it is."""

from __future__ import annotations

import csv
import io

import pytest

from keys.csv_text import csv_chunks, plain
from tests.acceptance.payloads import PAYLOADS


@pytest.mark.parametrize("payload", PAYLOADS)
def test_no_payload_is_a_formula(payload: str) -> None:
    (row,) = csv.reader(io.StringIO("".join(csv_chunks([payload], [])), newline=""))

    assert not row[0].lstrip(' \u00a0\ufeff"').startswith(("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠"))
    assert payload.lstrip("'\ufeff")[:20] in row[0]


@pytest.mark.parametrize("text", ["prod-1", "anthropic/claude-3-opus", "a=b", "12", "no key", "ünïcode", ""])
def test_plain_text_stays_as_it_is(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize("number", [-1, 0, 12, -0.5])
def test_numbers_stay_numbers(number: float) -> None:
    assert plain(number) == number


def test_long_files_come_in_pieces() -> None:
    pieces = list(csv_chunks(["n"], ([n] for n in range(1_000))))

    assert len(pieces) == 6
    assert len("".join(pieces).splitlines()) == 1_001
