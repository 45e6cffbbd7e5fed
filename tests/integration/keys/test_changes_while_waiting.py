"""An operator's change that is committed while an admission waits for the lock of the key that it has chosen."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections, transaction

from keys.ledger_items import Admitted, NoKey
from keys.models import KeyState, OpenRouterKey
from tests.integration.keys.ledger import add_client, add_keys, admit, run

pytestmark = pytest.mark.django_db(transaction=True)


def admit_elsewhere(digest: str, count: int = 1) -> Any:
    """What came of `count` admissions of one batch; of one alone, by itself."""
    try:
        outcomes = run(*(admit(digest) for _ in range(count)))
        return outcomes if count > 1 else outcomes[0]
    finally:
        connections.close_all()


def wait_until_it_waits(admission: Future[Any]) -> None:
    """On SQLite it waits from its first statement on, and nothing shows it; it finds the change either way."""
    deadline = time.monotonic() + 10
    while connection.vendor == "postgresql":
        assert not admission.done()
        assert time.monotonic() < deadline
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
            if cursor.fetchone()[0]:
                return


@pytest.mark.parametrize("state", [KeyState.DRAINING, KeyState.DISABLED])
def test_another_key_serves_instead_of_one_that_is_taken_out(state: KeyState) -> None:
    digest, _ = add_client()
    chosen, other = add_keys("chosen", "other")

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            OpenRouterKey.objects.filter(pk=chosen.pk).update(state=state)
            admission = threads.submit(admit_elsewhere, digest)
            wait_until_it_waits(admission)
        outcome = admission.result(20)

    assert isinstance(outcome, Admitted)
    assert outcome.selection.key_id == other.pk


def test_the_others_still_take_turns() -> None:
    digest, _ = add_client()
    chosen, *others = add_keys("chosen", "second", "third")

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            OpenRouterKey.objects.filter(pk=chosen.pk).update(state=KeyState.DRAINING)
            admissions = threads.submit(admit_elsewhere, digest, 2)
            wait_until_it_waits(admissions)
        outcomes = admissions.result(20)

    assert [outcome.selection.key_id for outcome in outcomes] == [key.pk for key in others]


def test_without_another_key_there_is_none() -> None:
    digest, _ = add_client()
    (only,) = add_keys("only")

    with ThreadPoolExecutor(1) as threads:
        with transaction.atomic():
            OpenRouterKey.objects.filter(pk=only.pk).update(state=KeyState.DISABLED)
            admission = threads.submit(admit_elsewhere, digest)
            wait_until_it_waits(admission)
        outcome = admission.result(20)

    assert isinstance(outcome, NoKey)
    assert outcome.pool_size == 0
