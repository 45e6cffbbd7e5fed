"""A text with parameters, sent to PostgreSQL as literals."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import connection

from keys.steps.round_trip import Session, ask

pytestmark = [
    pytest.mark.django_db,
    pytest.mark.skipif(connection.vendor != "postgresql", reason="SQLite takes parameters as they are"),
]


@pytest.fixture
def raw() -> Any:
    connection.ensure_connection()
    return connection.connection


@pytest.mark.parametrize(
    ("kind", "value", "read"),
    [
        *(("text", text, text) for text in ("", "it's", "''", "\\", "\\'; --", "100 % %s", "é \N{SNOWMAN} \n\t", "$1")),
        ("text", b"it's", "it's"),
        ("text", None, None),
        ("bigint", -(2**63), -(2**63)),
        ("bigint[]", [1, 2], [1, 2]),
        ("bigint[]", [], []),
        ("text[]", ["0af", "1"], ["0af", "1"]),
    ],
    ids=repr,
)
def test_a_value_comes_back_as_it_was(raw: Any, kind: str, value: Any, read: Any) -> None:
    assert ask(raw, f"SELECT %s::{kind}", [value], Session()) == [[(read,)]]


def test_each_statement_has_its_rows(raw: Any) -> None:
    text = "SELECT %s::text, 2; SELECT 1 WHERE false; SET LOCAL jit = off; SELECT 3 UNION SELECT 4 ORDER BY 1"
    assert ask(raw, text, ["a"], Session()) == [[("a", 2)], [], [], [(3,), (4,)]]


def test_a_nul_is_the_fault_of_the_row(raw: Any) -> None:
    with pytest.raises(psycopg.DataError, match="NUL"):
        ask(raw, "SELECT %s::text", ["a\0b"], Session())


def test_an_error_is_psycopgs_own(raw: Any) -> None:
    with pytest.raises(psycopg.errors.DivisionByZero) as caught:
        ask(raw, "SELECT 1; SELECT 1 / %s::int", [0], Session())
    assert caught.value.sqlstate == "22012"
