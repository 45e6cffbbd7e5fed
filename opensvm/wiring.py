"""Builds the data plane of one web process from the settings. Called by `opensvm.asgi` when the server starts."""

from __future__ import annotations

import datetime as dt
import uuid

from django.conf import settings
from django.utils import timezone

from keys.heartbeat import Heartbeat
from keys.held_vault import HeldVault
from keys.journal import Journal
from keys.lane import Lane
from keys.lane_watch import Patience
from keys.sealing import get_vault
from keys.services.recovery import DeathWatch
from keys.steps.batch import BatchRules
from opensvm import __version__
from opensvm.logs import line_handler
from proxy.cors import CorsPolicy
from proxy.exchange import BodyBudget, BodyLimits
from proxy.retry import RetryPolicy
from proxy.service import CallRules, Service
from proxy.upstream import Upstream, UpstreamConfig


def build_service() -> Service:
    """A service whose lane is not started yet."""
    get_vault()  # a keyring that can't be read stops the start, not the first request
    worker = uuid.uuid4()
    journal = Journal(settings.JOURNAL_DIR, worker, max_bytes=settings.JOURNAL_MAX_BYTES)
    lines = line_handler()
    return Service(
        lane=build_lane(worker, journal),
        journal=journal,
        upstream=Upstream(upstream_config()),
        rules=call_rules(),
        vault=HeldVault(),
        now=utc_now,
        body_budget=BodyBudget(settings.MAX_BODIES_BYTES),
        say=lines.say if lines is not None else None,
    )


def utc_now() -> dt.datetime:
    """As `timezone.now`, which looks a setting up each time."""
    return dt.datetime.now(dt.UTC)


def build_lane(worker: uuid.UUID, journal: Journal) -> Lane:
    return Lane(
        BatchRules(worker=worker, policy=settings.BENCH_POLICY, trial_seconds=settings.TRIAL_SECONDS),
        max_queue=settings.LANE_QUEUE_SIZE,
        clock=utc_now,
        heartbeat=Heartbeat(
            worker=worker,
            role="web",
            every_seconds=settings.BEAT_SECONDS,
            watch=DeathWatch(settings.DEATH_SECONDS, longest_gap_seconds=settings.BEAT_SECONDS * 3),
            clock=timezone.now,
            journals=settings.JOURNAL_DIR,
        ),
        journal=journal,
        patience=Patience(
            admit_seconds=settings.ADMIT_TIMEOUT_SECONDS,
            step_seconds=settings.SETTLE_TIMEOUT_SECONDS,
            hang_seconds=settings.DATABASE_HANG_SECONDS,
        ),
    )


def upstream_config() -> UpstreamConfig:
    return UpstreamConfig(
        base_url=settings.OPENROUTER_BASE_URL,
        silence_seconds=settings.OPENROUTER_TIMEOUT_SECONDS,
        connect_seconds=settings.OPENROUTER_CONNECT_TIMEOUT_SECONDS,
        headers={"user-agent": f"opensvm/{__version__}", **settings.OPENROUTER_HEADERS},
    )


def call_rules() -> CallRules:
    return CallRules(
        retry=RetryPolicy(
            max_retries=settings.OPENROUTER_MAX_RETRIES,
            delay_seconds=settings.OPENROUTER_RETRY_DELAY_SECONDS,
            max_keys=settings.MAX_KEYS_PER_REQUEST,
        ),
        ping_seconds=settings.PING_SECONDS,
        first_event_seconds=settings.FIRST_EVENT_SECONDS,
        settle_seconds=settings.SETTLE_TIMEOUT_SECONDS,
        parse_in_thread_bytes=settings.PARSE_IN_THREAD_BYTES,
        body=BodyLimits(
            max_bytes=settings.MAX_BODY_BYTES,
            silence_seconds=settings.BODY_SILENCE_SECONDS,
            grace_seconds=settings.BODY_GRACE_SECONDS,
            min_bytes_per_second=settings.BODY_MIN_BYTES_PER_SECOND,
        ),
        cors=CorsPolicy(settings.OPENSVM_CORS_ORIGINS),
    )
