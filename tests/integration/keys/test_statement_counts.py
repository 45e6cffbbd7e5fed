"""What a batch asks of the database. A later change can't make the hot path slow unseen: the figures are exact.

Each statement is named by how it begins. A batch of fifty asks as often as a batch of one.
"""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import Any

import psycopg
import pytest
from django.db import connection, connections
from django.utils import timezone

from keys.lane_queue import Waiting
from keys.lane_writer import BatchWriter
from keys.ledger_items import LaneItem
from keys.models import CostSource, InFlight, RequestLog
from keys.steps.database import tune_connection
from keys.steps.sqlite import CANDIDATES
from tests.integration.keys.ledger import RULES, add_client, add_keys, admit, settlement

ADMITTED = [
    "SELECT 0, turn,",
    "SELECT k.id,",
    "UPDATE keys_pool",
    "UPDATE keys_openrouterkey",
    "INSERT INTO keys_inflight",
]
SETTLED = [
    "DELETE FROM keys_inflight",
    "INSERT INTO keys_requestlog",
]
ON_SQLITE = {
    "admit": ["PRAGMA synchronous=NORMAL", "BEGIN IMMEDIATE", *ADMITTED, "COMMIT"],
    "settle": ["PRAGMA synchronous=FULL", "BEGIN IMMEDIATE", *SETTLED, "COMMIT"],
    "both": ["BEGIN IMMEDIATE", *ADMITTED, *SETTLED, "COMMIT"],
}
ON_POSTGRESQL = {  # each is a round trip
    "admit": [
        "BEGIN; SET LOCAL synchronous_commit = off; EXECUTE opensvm_lock; EXECUTE opensvm_clients ",
        "EXECUTE opensvm_save_selections ",
    ],
    "settle": ["BEGIN; EXECUTE opensvm_settle "],
    "both": [
        "BEGIN; EXECUTE opensvm_lock; EXECUTE opensvm_clients ",
        "EXECUTE opensvm_save_selections ",
    ],
}


@pytest.fixture
def expected() -> dict[str, list[str]]:
    return ON_SQLITE if connection.vendor == "sqlite" else ON_POSTGRESQL


@pytest.fixture
def writer(django_db_serialized_rollback: None, transactional_db: None) -> Iterator[BatchWriter]:
    """As the lane's thread uses it, outside of any transaction."""
    yield BatchWriter(RULES, timezone.now, None)
    connections.close_all()


@contextmanager
def sent_to_the_database() -> Iterator[list[str]]:
    """Every text that goes to SQLite, or to PostgreSQL's server: also what passes Django and psycopg by."""
    texts: list[str] = []
    raw: Any = connection.connection
    if isinstance(raw, sqlite3.Connection):
        raw.set_trace_callback(texts.append)
        yield texts
        raw.set_trace_callback(None)
        return
    with TemporaryFile("w+") as trace:
        raw.pgconn.trace(trace.fileno())
        raw.pgconn.set_trace_flags(psycopg.pq.Trace.SUPPRESS_TIMESTAMPS)
        yield texts
        raw.pgconn.untrace()
        trace.seek(0)
        sent = [line.split("\t", 3) for line in trace if line.startswith("F\t")]
        texts += [line[3].split('"', 3 if line[2] == "Parse" else 1)[-1] for line in sent if line[2] in ASKING]
        assert len(texts) == sum(line[2].strip() in WAITING for line in sent), "one round trip for each"


ASKING = {"Query", "Parse"}  # messages of PostgreSQL's protocol that hold a text
WAITING = {"Query", "Sync"}  # and those after which an answer is waited for


def asked(writer: BatchWriter, items: Sequence[LaneItem]) -> tuple[list[str], list[Any]]:
    """What the commit of one batch asks; and its results."""
    batch = [Waiting(item, None) for item in items]
    with sent_to_the_database() as texts:
        writer.commit(batch)
    return texts, [waiting.outcome for waiting in batch]


@pytest.mark.parametrize("size", [1, 50])
def test_a_batch_asks_as_often_as_committed(writer: BatchWriter, expected: dict[str, list[str]], size: int) -> None:
    add_keys("alpha", "beta", "gamma")
    digest, _ = add_client()
    first = admit(digest)
    _, (admitted,) = asked(writer, [first])  # `last_used_at` is written now, and not for a minute
    asked(writer, [settlement(first, admitted)])

    new = [admit(digest) for _ in range(size)]
    admitting, results = asked(writer, new)
    settling, _ = asked(writer, [settlement(item, found) for item, found in zip(new, results, strict=True)])

    assert starts_of(admitting, expected["admit"]) == expected["admit"]
    assert starts_of(settling, expected["settle"]) == expected["settle"]
    assert RequestLog.objects.count() == size + 1
    assert not InFlight.objects.exists()


def test_a_batch_that_admits_and_settles_asks_as_often_as_committed(
    writer: BatchWriter, expected: dict[str, list[str]]
) -> None:
    add_keys("alpha", "beta", "gamma")
    digest, _ = add_client()
    first, second = admit(digest), admit(digest)
    _, (found, other) = asked(writer, [first, second])
    asked(writer, [settlement(second, other)])  # on PostgreSQL, all is prepared now

    asking, _ = asked(writer, [settlement(first, found), admit(digest)])

    assert starts_of(asking, expected["both"]) == expected["both"]
    assert (InFlight.objects.count(), RequestLog.objects.count()) == (1, 2)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL tells with what it writes")
def test_a_batch_that_repeats_asks_what_is_known(writer: BatchWriter) -> None:
    add_keys("alpha", "beta", "gamma")
    digest, _ = add_client()
    first, second = admit(digest), admit(digest)
    _, (found, other) = asked(writer, [first, second])
    asked(writer, [settlement(first, found)])

    asking, _ = asked(writer, [settlement(first, found), settlement(second, other)])

    state = "SELECT (SELECT group_concat(id) FROM keys_inflight"
    expected = ["BEGIN IMMEDIATE", "DELETE FROM keys_inflight", state, *SETTLED, "COMMIT"]
    assert starts_of(asking[: len(expected)], expected) == expected
    assert (InFlight.objects.count(), RequestLog.objects.count()) == (0, 2)


@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL gets JSON")
def test_no_value_makes_the_adapter_of_sqlite_look_for_a_protocol(writer: BatchWriter) -> None:
    """It does so for each that is not plainly a text or a number: on five values of a row, a tenth of the batch."""
    add_keys("alpha", "beta", "gamma")
    digest, _ = add_client()
    first, others = admit(digest), [admit(digest) for _ in range(4)]
    _, (found,) = asked(writer, [first])
    types: set[type] = set()

    def note(execute: Any, text: str, params: Sequence[Any], *rest: Any) -> Any:
        types.update(map(type, params))
        return execute(text, params, *rest)

    with connection.execute_wrapper(note):
        asked(writer, [settlement(first, found, cost_source=CostSource.REPORTED.value), *others])
    assert types == {str, int}


def starts_of(texts: Sequence[str], expected: Sequence[str]) -> list[str]:
    """Each text cut to the length of the one that is expected in its place."""
    cuts = [len(start) for start in expected]
    return [text[:cut] for text, cut in itertools.zip_longest(texts, cuts[: len(texts)])]


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "sqlite", reason="PostgreSQL plans by its statistics")
def test_keys_are_read_in_turn_without_sorting_the_pool_or_reading_closed_cooldowns() -> None:
    with connection.cursor() as cursor:
        plan = [row[3] for row in cursor.connection.execute(f"EXPLAIN QUERY PLAN {CANDIDATES}", ["x"] * 4)]
    assert [step for step in plan if "SUBQUERY" not in step] == [
        "SEARCH k USING INDEX key_round_robin (state=?)",
        "SEARCH c USING INDEX cooldown_one_open_per_key (key_id=?)",
        "SEARCH i USING COVERING INDEX sqlite_autoindex_keys_inflight_1 (id=?)",
        "SEARCH c USING INDEX cooldown_one_open_per_account (account_id=?)",
        "SEARCH i USING COVERING INDEX sqlite_autoindex_keys_inflight_1 (id=?)",
        "SEARCH c USING INDEX cooldown_one_open_per_key (key_id=?)",
        "SEARCH c USING INDEX cooldown_one_open_per_account (account_id=?)",
    ]


@pytest.mark.skipif(connection.vendor != "sqlite", reason="SQLite's temporary files")
@pytest.mark.django_db(transaction=True)
def test_a_batch_needs_no_folder_for_temporary_files():
    """A file system that is read-only but for `var/` has none, and a large batch would make a file there."""
    connection.close()
    connection.ensure_connection()
    tune_connection(connection)

    with connection.cursor() as cursor:
        assert cursor.execute("PRAGMA temp_store").fetchone() == (2,)
