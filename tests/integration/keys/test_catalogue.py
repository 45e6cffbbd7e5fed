"""The model catalogue: what is shipped, what a sync changes, and when one is due."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from django.conf import settings
from django.db import connections
from django.utils import timezone

from keys.models import ModelAlias, ModelPrice, PriceSource
from keys.services import catalogue
from keys.services.catalogue import sync_catalogue

pytestmark = pytest.mark.django_db

SECOND = dt.timedelta(seconds=1)
SONNET = "anthropic/claude-sonnet-4.5"


def entry(model: str, prompt: str = "0.000003", completion: str = "0.000015", **fields: Any) -> dict[str, Any]:
    return {"id": model, "name": model, "pricing": {"prompt": prompt, "completion": completion}, **fields}


class Upstream(httpx.BaseTransport):
    """`GET /models` in pages of `page` models; with `endless` it offers the same page for ever."""

    def __init__(self, *models: dict[str, Any], page: int = 1000, endless: bool = False) -> None:
        self.asked: list[int] = []
        self._models = models
        self._page = page
        self._endless = endless

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        assert request.url.path.endswith("/models")
        assert "authorization" not in request.headers
        offset = int(request.url.params["offset"])
        self.asked.append(offset)
        begin = 0 if self._endless else offset
        document: dict[str, Any] = {"data": self._models[begin : begin + self._page]}
        if self._endless or begin + self._page < len(self._models):
            document["links"] = {"next": "http://192.0.2.1/elsewhere"}
        return httpx.Response(200, json=document)


class Answers(httpx.BaseTransport):
    def __init__(self, answer: Callable[[], httpx.Response]) -> None:
        self._answer = answer

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._answer()


def unreachable() -> httpx.Response:
    raise httpx.ConnectError("refused")


# -- shipped ---------------------------------------------------------------------------------------------------------
def test_the_guides_models_have_a_price_from_the_start() -> None:
    targets = set(ModelAlias.objects.values_list("target", flat=True))

    assert targets
    for target in targets:
        assert ModelPrice.objects.get(model=target).price is not None


def test_a_price_that_is_not_known_is_no_price() -> None:
    model = ModelPrice.objects.get(model="anthropic/claude-opus-4.8")

    assert (model.price, model.source) == (None, PriceSource.SNAPSHOT)


# -- what a sync changes ---------------------------------------------------------------------------------------------
def test_a_sync_adds_and_corrects_models_and_keeps_the_others() -> None:
    now = timezone.now()
    shipped = ModelPrice.objects.count()
    details = {"created": 1_759_161_676, "context_length": 1_000_000, "top_provider": {"max_completion_tokens": 64_000}}

    stored = sync_catalogue(now, transport=Upstream(entry(SONNET, "0.000004", **details), entry("new/model")))

    assert (stored, ModelPrice.objects.count()) == (2, shipped + 1)
    sonnet = ModelPrice.objects.get(model=SONNET)
    assert (sonnet.prompt, sonnet.context_length, sonnet.max_output) == (4_000_000_000, 1_000_000, 64_000)
    assert (sonnet.updated_at, sonnet.source) == (now, PriceSource.SYNCED)
    assert ModelPrice.objects.get(model="anthropic/claude-3-opus").source == PriceSource.SNAPSHOT


def test_a_router_has_no_price_and_nonsense_changes_none() -> None:
    sync_catalogue(
        timezone.now(), transport=Upstream(entry("openrouter/auto", "-1", "-1"), entry(SONNET, "cheap", "dear"))
    )

    assert ModelPrice.objects.get(model="openrouter/auto").price is None
    assert ModelPrice.objects.get(model=SONNET).prompt == 3_000_000_000


def test_the_sandbox_lists_its_models(sandbox: Any, settings: Any) -> None:
    settings.OPENROUTER_BASE_URL = sandbox.base_url

    assert sync_catalogue(timezone.now()) > 20
    haiku = ModelPrice.objects.get(model="anthropic/claude-haiku-4.5")
    assert (haiku.prompt, haiku.cache_read, haiku.cache_write) == (1_000_000_000, 100_000_000, 1_250_000_000)


# -- pages -----------------------------------------------------------------------------------------------------------
def test_all_pages_are_read_by_offset_and_no_address_is_followed() -> None:
    upstream = Upstream(*(entry(f"a/{n}") for n in range(5)), page=2)

    assert sync_catalogue(timezone.now(), transport=upstream) == 5
    assert upstream.asked == [0, 2, 4]


def test_a_list_that_does_not_end_is_left() -> None:
    upstream = Upstream(entry("a/b"), entry("a/c"), endless=True)

    assert sync_catalogue(timezone.now(), transport=upstream) == 2
    assert upstream.asked == [0, 2]


def test_a_model_that_is_listed_twice_is_stored_once() -> None:
    assert sync_catalogue(timezone.now(), transport=Upstream(entry("a/b"), entry("a/b"))) == 1


# -- when ------------------------------------------------------------------------------------------------------------
def test_a_sync_is_due_again_after_its_interval() -> None:
    now, upstream = timezone.now(), Upstream(entry("a/b"))
    interval = settings.SYNC_CATALOGUE_SECONDS * SECOND

    for at in (now, now + SECOND, now + interval - SECOND, now + interval):
        sync_catalogue(at, transport=upstream)

    assert len(upstream.asked) == 2


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(unreachable, id="unreachable"),
        pytest.param(lambda: httpx.Response(500, json={}), id="upstream's error"),
        pytest.param(lambda: httpx.Response(302, headers={"location": "http://192.0.2.1/"}), id="redirect"),
        pytest.param(lambda: httpx.Response(200, json={"data": []}), id="empty"),
        pytest.param(lambda: httpx.Response(200, text="<html>"), id="no JSON"),
    ],
)
def test_a_failed_sync_changes_nothing_and_is_tried_again_soon(answer: Callable[[], httpx.Response]) -> None:
    now, before = timezone.now(), list(ModelPrice.objects.values())

    assert sync_catalogue(now, transport=Answers(answer)) == 0
    assert list(ModelPrice.objects.values()) == before

    again_at = now + settings.RETRY_CATALOGUE_SECONDS * SECOND
    assert sync_catalogue(again_at - SECOND, transport=Upstream(entry("a/b"))) == 0
    assert sync_catalogue(again_at, transport=Upstream(entry("a/b"))) == 1


def test_an_answer_that_is_too_large_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "MAX_PAGE_BYTES", 100)

    assert sync_catalogue(timezone.now(), transport=Upstream(entry("a/" + "b" * 100))) == 0


def test_when_none_is_due_it_takes_one_query(django_assert_num_queries: Any) -> None:
    sync_catalogue(timezone.now(), transport=Upstream(entry("a/b")))

    with django_assert_num_queries(1):
        sync_catalogue(timezone.now(), transport=Upstream())


@pytest.mark.django_db(transaction=True)
def test_of_several_schedulers_one_syncs() -> None:
    now, upstream, start = timezone.now(), Upstream(entry("a/b")), threading.Barrier(4)

    def run() -> int:
        start.wait(10)
        try:
            return sync_catalogue(now, transport=upstream)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        stored = [future.result(60) for future in [pool.submit(run) for _ in range(4)]]

    assert sorted(stored) == [0, 0, 0, 1]
    assert upstream.asked == [0]
