"""Unknown costs: who is asked, how often, what is stored, and what is left when nobody tells."""

from __future__ import annotations

import datetime as dt
import logging
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.db import connections
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st

from keys.models import Account, CostInquiry, CostSource, KeyState, ModelPrice, OpenRouterKey, RequestLog, UsageHour
from keys.services import costs
from keys.services.costs import CostSchedule, settle_costs
from keys.services.rollups import aggregate_usage
from keys.steps.settlement import note_generation
from tests.integration.keys.ledger_rows import MODEL, ledger_row, pool_key

SECOND = dt.timedelta(seconds=1)
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
SCHEDULE = CostSchedule(first=30 * SECOND, most=HOUR, give_up=DAY)
LATER = 0.5  # the middle of the spread

pytestmark = pytest.mark.django_db


class Upstream(httpx.BaseTransport):
    """`GET /generation`; knows who asked for what, in order. Refuses keys by their last four letters."""

    def __init__(self, bills: dict[str, Any] | None = None, refuses: tuple[str, ...] = (), status: int = 404) -> None:
        self.bills = bills or {}
        self.asked: list[tuple[str, str]] = []
        self._refuses = refuses
        self._status = status

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/generation")
        tail, generation = request.headers["authorization"][-4:], request.url.params["id"]
        self.asked.append((tail, generation))
        if tail in self._refuses:
            return httpx.Response(401, json={"error": {"message": "User not found.", "code": 401}})
        if generation not in self.bills:
            return httpx.Response(self._status, json={"error": {"message": "none", "code": self._status}})
        return httpx.Response(200, json={"data": {"id": generation, **self.bills[generation]}})


class Unreachable(Upstream):
    def handle_request(self, request: httpx.Request) -> httpx.Response:
        super().handle_request(request)
        raise httpx.ConnectError("connection refused")


BILL = {
    "total_cost": "0.000012345",
    "native_tokens_prompt": 100,
    "native_tokens_completion": 7,
    "native_tokens_cached": 60,
}


def settle(upstream: httpx.BaseTransport, now: dt.datetime | None = None) -> int:
    return settle_costs(now or timezone.now(), transport=upstream, spread=lambda: LATER)


@pytest.fixture
def key() -> uuid.UUID:
    return pool_key("sk-or-v1-test-costs-own1")


def waiting(key: uuid.UUID, **columns: Any) -> RequestLog:
    return ledger_row(**{"key_id": key, "generation_id": "gen-1"} | columns)


def price(model: str, prompt: int | None, completion: int | None) -> None:
    ModelPrice.objects.update_or_create(
        model=model,
        defaults={"prompt": prompt, "completion": completion, "updated_at": timezone.now(), "source": "synced"},
    )


# -- asking ----------------------------------------------------------------------------------------------------------
def test_a_told_cost_is_stored_with_its_tokens_and_moves_the_row(key: uuid.UUID) -> None:
    before = timezone.now() - MINUTE
    row = waiting(key, recorded_at=before)
    now = timezone.now()

    assert settle(Upstream({"gen-1": BILL}), now) == 1

    row.refresh_from_db()
    assert (row.cost_nano, row.cost_source) == (12_345, CostSource.RECONCILED)
    assert (row.input_tokens, row.output_tokens, row.cache_read_tokens) == (40, 7, 60)
    assert row.recorded_at == now
    assert not CostInquiry.objects.exists()


def test_the_sandbox_tells_what_it_billed(sandbox: Any, settings: Any) -> None:
    settings.OPENROUTER_BASE_URL = sandbox.base_url
    text = sandbox.add_key("sk-or-v1-test-costs-sand", name="sand")
    body = {"model": MODEL, "max_tokens": 50, "messages": [{"role": "user", "content": "Hello"}]}
    answer = httpx.post(f"{sandbox.base_url}/messages", json=body, headers={"authorization": f"Bearer {text}"})
    row = ledger_row(key_id=pool_key(text), generation_id=answer.json()["id"])

    assert settle_costs(timezone.now()) == 1

    row.refresh_from_db()
    (billed,) = sandbox.ledger()
    assert (row.cost_nano, row.cost_source) == (billed.cost_nano, CostSource.RECONCILED)
    assert (row.input_tokens, row.output_tokens) == (billed.usage.input, billed.usage.output)


def test_the_hour_of_a_settled_cost_is_summed_again(key: uuid.UUID) -> None:
    now = timezone.now()
    waiting(key, created_at=now - 3 * HOUR, recorded_at=now - 2 * HOUR)
    aggregate_usage(now - HOUR)
    assert UsageHour.objects.get().unknown_costs == 1

    settle(Upstream({"gen-1": BILL}), now)
    aggregate_usage(now + SECOND)

    hour = UsageHour.objects.get()
    assert (hour.cost_nano, hour.unknown_costs, hour.output_tokens) == (12_345, 0, 7)


def test_a_cost_that_is_asked_for_too_early_is_asked_for_again_later(key: uuid.UUID) -> None:
    row = waiting(key)
    upstream = Upstream()
    now = row.recorded_at + SECOND
    for wait in (0, 10, 15, 20):  # due again 30 s after the first
        settle(upstream, now + wait * SECOND)
    assert len(upstream.asked) == 1

    upstream.bills["gen-1"] = BILL
    assert settle(upstream, now + 31 * SECOND) == 1


def test_a_day_of_not_found_takes_some_forty_calls_for_one_row(key: uuid.UUID) -> None:
    row = waiting(key)
    upstream = Upstream()

    for minute in range(24 * 60):
        settle(upstream, row.recorded_at + minute * MINUTE)

    assert 20 <= len(upstream.asked) <= 45


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_a_wait_is_never_shorter_or_longer_than_its_bounds(age: int, spread: float) -> None:
    wait = SCHEDULE.wait("gen-1", age * SECOND, spread)

    if age < DAY.total_seconds():
        assert 0.8 * 30 * SECOND <= wait <= 1.2 * HOUR
    else:
        assert 4 * HOUR <= wait <= 8 * HOUR


@pytest.mark.parametrize(
    ("state", "other_state", "asked"),
    [
        pytest.param(KeyState.ACTIVE, KeyState.ACTIVE, ["own1"], id="its own key"),
        pytest.param(KeyState.DISABLED, KeyState.ACTIVE, ["own1"], id="disabled: it may still read its bill"),
        pytest.param(KeyState.DRAINING, KeyState.ACTIVE, ["own1"], id="draining"),
        pytest.param(KeyState.INVALID, KeyState.ACTIVE, ["oth2"], id="invalid: another of the account"),
        pytest.param(KeyState.RETIRED, KeyState.ACTIVE, ["oth2"], id="retired: another of the account"),
        pytest.param(KeyState.RETIRED, KeyState.RETIRED, [], id="nobody can ask"),
    ],
)
def test_which_key_asks(state: KeyState, other_state: KeyState, asked: list[str]) -> None:
    account = Account.objects.create(name="main")
    columns = {value: {"state": value} | ({"secret": b""} if value == KeyState.RETIRED else {}) for value in KeyState}
    own = pool_key("sk-or-v1-test-costs-own1", account=account, **columns[state])
    pool_key("sk-or-v1-test-costs-oth2", account=account, **columns[other_state])
    pool_key("sk-or-v1-test-costs-for3")  # of nobody's account
    waiting(own)
    upstream = Upstream({"gen-1": BILL})

    settle(upstream)

    assert [tail for tail, _ in upstream.asked] == asked


def test_a_key_without_an_account_stands_alone() -> None:
    own = pool_key("sk-or-v1-test-costs-own1", state=KeyState.INVALID)
    pool_key("sk-or-v1-test-costs-oth2")
    waiting(own)
    upstream = Upstream({"gen-1": BILL})

    assert settle(upstream) == 0
    assert upstream.asked == []


def test_a_key_that_is_refused_is_tried_once_a_run() -> None:
    account = Account.objects.create(name="main")
    own = pool_key("sk-or-v1-test-costs-own1", account=account)
    pool_key("sk-or-v1-test-costs-oth2", account=account)
    now = timezone.now()
    for n in range(3):
        waiting(own, generation_id=f"gen-{n}", recorded_at=now - (9 - n) * SECOND)
    upstream = Upstream({f"gen-{n}": BILL for n in range(3)}, refuses=("own1",))

    assert settle(upstream, now) == 3
    assert upstream.asked == [("own1", "gen-0"), ("oth2", "gen-0"), ("oth2", "gen-1"), ("oth2", "gen-2")]


def test_a_secret_that_can_not_be_opened_is_passed_over(key: uuid.UUID) -> None:
    OpenRouterKey.objects.filter(pk=key).update(secret=b"nonsense")
    waiting(key)
    upstream = Upstream({"gen-1": BILL})

    assert settle(upstream) == 0
    assert upstream.asked == []


def test_an_upstream_in_trouble_is_left_alone_until_the_next_run(key: uuid.UUID) -> None:
    now = timezone.now()
    for n in range(9):
        waiting(key, generation_id=f"gen-{n}", recorded_at=now - (9 - n) * SECOND)
    upstream = Upstream(status=502)

    settle(upstream, now)
    assert [generation for _, generation in upstream.asked] == ["gen-0", "gen-1", "gen-2"]

    settle(upstream, now + SECOND)  # those that were not asked are due, the three are not
    assert [generation for _, generation in upstream.asked[3:]] == ["gen-3", "gen-4", "gen-5"]


def test_what_can_be_estimated_is_settled_while_upstream_is_away(key: uuid.UUID) -> None:
    now = timezone.now()
    for n in range(4):
        waiting(key, generation_id=f"gen-{n}", recorded_at=now - HOUR)
    waiting(key, generation_id="", recorded_at=now, input_tokens=10)

    assert settle(Unreachable(), now) == 1


def test_no_secret_reaches_the_log(key: uuid.UUID, caplog: pytest.LogCaptureFixture) -> None:
    waiting(key)

    class Echo(httpx.BaseTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            message = f"bad key {request.headers['authorization']}"
            return httpx.Response(500, json={"error": {"message": message, "code": 500}})

    with caplog.at_level(logging.INFO, logger="opensvm"):
        settle(Echo())

    (line,) = [record for record in caplog.records if getattr(record, "event", "") == "costs.no_answer"]
    assert "...own1" in line.getMessage()
    assert "sk-or-v1-test-costs-own1" not in caplog.text


# -- how much at once ------------------------------------------------------------------------------------------------
def test_who_waited_longest_is_asked_first(key: uuid.UUID) -> None:
    now = timezone.now()
    for name, age in (("new", 1), ("old", 3), ("middle", 2)):
        waiting(key, generation_id=name, recorded_at=now - age * HOUR)
    again = waiting(key, generation_id="again", recorded_at=now - 9 * HOUR)
    CostInquiry.objects.create(request=again, since=again.recorded_at, next_at=now - HOUR - MINUTE)
    upstream = Upstream()

    settle(upstream, now)

    assert [generation for _, generation in upstream.asked] == ["old", "middle", "again", "new"]


def test_a_run_takes_a_batch_and_the_next_the_rest(key: uuid.UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "BATCH_ROWS", 2)
    now = timezone.now()
    for n in range(3):
        waiting(key, generation_id=f"gen-{n}", recorded_at=now - (9 - n) * SECOND)
    upstream = Upstream()

    settle(upstream, now)
    settle(upstream, now)

    assert [generation for _, generation in upstream.asked] == ["gen-0", "gen-1", "gen-2"]


def test_a_run_stops_at_its_time_limit(key: uuid.UUID, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "LONGEST_RUN_SECONDS", 0.0)
    waiting(key)
    upstream = Upstream({"gen-1": BILL})

    assert settle(upstream) == 0
    assert upstream.asked == []
    assert not CostInquiry.objects.exists()  # it is due at once in the next run


def test_without_unknown_costs_it_takes_three_queries(key: uuid.UUID, django_assert_num_queries: Any) -> None:
    waiting(key, cost_source=CostSource.REPORTED, cost_nano=1)

    with django_assert_num_queries(3):
        settle(Upstream())


# -- estimates -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("generation", "age", "source"),
    [
        pytest.param("gen-1", DAY - MINUTE, CostSource.UNKNOWN, id="asked for nearly a day"),
        pytest.param("gen-1", DAY, CostSource.ESTIMATED, id="asked for a day"),
        pytest.param("", SECOND, CostSource.ESTIMATED, id="nothing to ask for"),
    ],
)
def test_when_a_cost_is_estimated(key: uuid.UUID, generation: str, age: dt.timedelta, source: CostSource) -> None:
    now = timezone.now()
    row = waiting(key, generation_id=generation, recorded_at=now - age, input_tokens=1000, output_tokens=10)
    price(MODEL, 2_000_000_000, 10_000_000_000)

    settle(Upstream(), now)

    row.refresh_from_db()
    assert row.cost_source == source
    assert row.cost_nano == (2_100_000 if source == CostSource.ESTIMATED else None)


@pytest.mark.parametrize(
    ("model", "source", "nano"),
    [
        pytest.param("a/listed", CostSource.ESTIMATED, 30, id="listed"),
        pytest.param("a/listed:nitro", CostSource.ESTIMATED, 30, id="by another route"),
        pytest.param("a/listed:free", CostSource.UNKNOWN, None, id="another model"),
        pytest.param("a/half", CostSource.UNKNOWN, None, id="half a price"),
        pytest.param("a/router", CostSource.UNKNOWN, None, id="no price"),
        pytest.param("a/unlisted", CostSource.UNKNOWN, None, id="not listed"),
        pytest.param("", CostSource.UNKNOWN, None, id="no model"),
    ],
)
def test_without_a_price_a_cost_stays_unknown(key: uuid.UUID, model: str, source: CostSource, nano: int | None) -> None:
    price("a/listed", 3_000_000, 1)
    price("a/half", 1, None)
    price("a/router", None, None)
    row = waiting(key, generation_id="", model_sent=model, input_tokens=10)

    settle(Upstream())

    row.refresh_from_db()
    assert (row.cost_source, row.cost_nano) == (source, nano)


def test_a_cost_without_a_price_is_rarely_looked_at_and_settled_when_there_is_one(
    key: uuid.UUID, caplog: pytest.LogCaptureFixture
) -> None:
    now = timezone.now()
    row = waiting(key, generation_id="", model_sent="a/new", input_tokens=10)
    with caplog.at_level(logging.WARNING, logger="opensvm"):
        settle(Upstream(), now)
        settle(Upstream(), now + HOUR)
    assert len([record for record in caplog.records if getattr(record, "event", "") == "costs.no_price"]) == 1

    price("a/new", 3_000_000, 1)
    settle(Upstream(), now + 8 * HOUR)

    row.refresh_from_db()
    assert (row.cost_source, row.cost_nano) == (CostSource.ESTIMATED, 30)


def test_where_no_token_is_known_the_cost_stays_unknown(key: uuid.UUID) -> None:
    row = waiting(key, generation_id="")

    settle(Upstream())

    row.refresh_from_db()
    assert (row.cost_source, row.cost_nano) == (CostSource.UNKNOWN, None)


def test_a_generation_id_that_comes_late_is_asked_about_at_once(key: uuid.UUID) -> None:
    row, now = waiting(key, generation_id=""), timezone.now()
    settle(Upstream(), now)

    note_generation(row.pk, "gen-late", now + MINUTE)
    settle(Upstream({"gen-late": {"total_cost": 0.001}}), now + 2 * MINUTE)

    row.refresh_from_db()
    assert (row.cost_source, row.cost_nano) == (CostSource.RECONCILED, 1_000_000)


# -- what came meanwhile ---------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "kept"),
    [
        pytest.param({"cost_source": CostSource.REPORTED, "cost_nano": 9}, 9, id="a better source"),
        pytest.param({"output_tokens": 5}, None, id="other tokens: looked at again"),
        pytest.param({"cost_source": CostSource.ESTIMATED, "cost_nano": 9}, 12_345, id="a worse source"),
    ],
)
def test_what_came_while_upstream_was_asked_counts(key: uuid.UUID, change: dict[str, Any], kept: int | None) -> None:
    row = waiting(key)

    class Slow(Upstream):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            RequestLog.objects.filter(pk=row.pk).update(**change)
            return super().handle_request(request)

    settle(Slow({"gen-1": BILL}))

    row.refresh_from_db()
    assert row.cost_nano == kept


def test_an_inquiry_whose_row_has_its_cost_or_is_gone_is_dropped(key: uuid.UUID) -> None:
    now = timezone.now()
    known = waiting(key, cost_source=CostSource.REPORTED, cost_nano=1)
    for request in (known.pk, uuid.uuid4()):
        CostInquiry.objects.create(request_id=request, since=now, next_at=now)
    upstream = Upstream()

    settle(upstream, now)

    assert (upstream.asked, CostInquiry.objects.count()) == ([], 0)


def test_an_estimate_is_replaced_when_its_generation_becomes_known(key: uuid.UUID) -> None:
    now = timezone.now()
    row = waiting(key, cost_source=CostSource.ESTIMATED, cost_nano=1)
    CostInquiry.objects.create(request=row, since=now, next_at=now)

    settle(Upstream({"gen-1": BILL}), now)

    row.refresh_from_db()
    assert (row.cost_source, row.cost_nano) == (CostSource.RECONCILED, 12_345)


@pytest.mark.django_db(transaction=True)
def test_several_schedulers_ask_for_each_cost_once() -> None:
    key, now = pool_key("sk-or-v1-test-costs-own1"), timezone.now()
    rows = 12
    for n in range(rows):
        waiting(key, generation_id=f"gen-{n}")
    upstream = Upstream({f"gen-{n}": BILL for n in range(rows)})
    start = threading.Barrier(3)

    def run() -> int:
        start.wait(10)
        try:
            return settle(upstream, now + SECOND)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as pool:
        settled = [future.result(60) for future in [pool.submit(run) for _ in range(3)]]

    assert sum(settled) == rows
    assert sorted(generation for _, generation in upstream.asked) == sorted(f"gen-{n}" for n in range(rows))
    assert not RequestLog.objects.exclude(cost_source=CostSource.RECONCILED).exists()


def test_the_schedule_is_the_setting() -> None:
    schedule = CostSchedule.from_settings()

    assert schedule.give_up == settings.COST_GIVE_UP_SECONDS * SECOND
    assert schedule == SCHEDULE
