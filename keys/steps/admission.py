"""ADMIT and SWITCH: is the client known, which key is next. Part of a batch, under the Pool's lock."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

from keys.causes import Cause
from keys.ledger_items import Admit, Admitted, Denied, NoKey, Selection, Switch
from keys.model_names import alias_candidates, held, upstream_model, variant_of
from keys.models import Cooldown, KeyState, OpenRouterKey
from keys.selection import Candidate, Rotation
from keys.steps.clean import clean_text
from keys.steps.statements import CandidateQuery, Row, Selections, Statements

MESSAGES_SCOPE = "messages"
MAX_RETRY_AFTER_SECONDS = 60
MAX_MODEL_CHARS = 200  # of the columns that hold a model's name
LAST_USED_STEP = dt.timedelta(minutes=1)
_MARGIN = 2  # keys that may be taken out of the pool while they are read, with the others' turns still right
_RATE_CAUSES = frozenset({Cause.KEY_RATE_LIMITED})


@dataclass(slots=True)
class KnownClient:
    """denial: why it may not send messages now; empty if it may."""

    id: UUID
    name: str
    denial: str
    last_used_at: dt.datetime | None


def read_clients(sql: Statements, digests: Collection[str], now: dt.datetime) -> dict[str, KnownClient]:
    """By digest; one statement, at every call: what an operator revokes is refused by the next request."""
    return _known_clients(sql, sql.read_clients(sorted(digests)), now)


def _known_clients(sql: Statements, rows: Iterable[Row], now: dt.datetime) -> dict[str, KnownClient]:
    return {
        digest: KnownClient(
            id=sql.read_uuid(client_id) or UUID(int=0),
            name=name,
            denial=_denial(scopes, sql.read_stamp(expires_at), revoked_at is not None, now),
            last_used_at=sql.read_stamp(last_used_at),
        )
        for digest, client_id, name, scopes, expires_at, revoked_at, last_used_at in rows
    }


def _denial(scopes: str, expires_at: dt.datetime | None, is_revoked: bool, now: dt.datetime) -> str:
    if is_revoked:
        return "revoked"
    if expires_at is not None and expires_at <= now:
        return "expired"
    return "" if MESSAGES_SCOPE in scopes.split() else "scope"


def candidate_query(variant: str, now: dt.datetime, trial_seconds: float, *, wanted: int) -> CandidateQuery:
    return CandidateQuery(variant, now, now - dt.timedelta(seconds=trial_seconds), wanted + _MARGIN)


@dataclass(slots=True)
class Admission:
    """The selections of one batch. `turn` is the Pool's counter, which the batch saves when it is through."""

    sql: Statements
    now: dt.datetime
    trial_seconds: float
    worker: UUID
    turn: int
    wanted: int  # how many selections the batch may make, and keys that one of them may have to avoid
    _rotations: dict[str, Rotation] = field(default_factory=dict)
    _selected: list[Candidate] = field(default_factory=list)  # each once
    _shortages: dict[str, NoKey] = field(default_factory=dict)

    def select(self, request_id: UUID, variant: str, tried: Collection[UUID]) -> Selection | NoKey:
        """The next key for a request, or why there is none. variant: of the model that is sent."""
        rotation, turn = self._rotation(variant), self.turn + 1
        candidate = rotation.take(tried, turn)
        if candidate is None and (rotation.is_partial or variant not in self._shortages):
            self._read_again(variant, len(tried))
            candidate = self._rotation(variant).take(tried, turn)
        if candidate is None:
            return self._no_key(variant)
        self.turn = turn
        if candidate.times_selected == 1:
            self._selected.append(candidate)
        if candidate.is_due:
            self._begin_trial(candidate, request_id, variant)
        key = candidate  # positions: this runs once for each request
        return Selection(key.key_id, key.account_id, key.name, key.tail, key.secret, turn, key.is_due)

    def _read_again(self, variant: str, tried: int) -> None:
        """There may be more than was read: by the limit, or since a change was committed while we waited for it."""
        self.flush()
        self.wanted = max(self.wanted * 4, tried + 1000)
        self._rotations[variant] = self._read_rotation(variant, again=True)

    def flush(self, admitted: Sequence[Row] = ()) -> None:
        """Write what was selected, and who is in flight with it; the next selection reads the keys anew."""
        if self._selected or admitted:
            selected = sorted(self._selected, key=lambda candidate: candidate.key_id.int)
            selections = Selections(self.turn, [(c.key_id, c.turn, c.times_selected) for c in selected])
            self.sql.save_selections(selections, admitted, worker=self.worker, now=self.now)
        self._selected.clear()
        self._rotations.clear()

    def _rotation(self, variant: str) -> Rotation:
        rotation = self._rotations.get(variant)
        if rotation is None:
            if self._rotations:
                self.flush()  # one list at a time: two would not see each other's turns
            rotation = self._rotations[variant] = self._read_rotation(variant)
        return rotation

    def _read_rotation(self, variant: str, *, again: bool = False) -> Rotation:
        asked = candidate_query(variant, self.now, self.trial_seconds, wanted=self.wanted)
        return self._rotation_of(asked, self.sql.read_candidates(asked, again=again))

    def begin_with(self, asked: CandidateQuery, rows: Sequence[Row]) -> None:
        """What was read with the Pool."""
        self._rotations[asked.variant] = self._rotation_of(asked, rows)

    def _rotation_of(self, asked: CandidateQuery, rows: Sequence[Row]) -> Rotation:
        return Rotation([self._candidate(row) for row in rows], is_partial=len(rows) == asked.limit)

    def _candidate(self, row: Row) -> Candidate:
        key_id, account_id, name, tail, secret, tier, turn, is_due = row[:8]
        read_uuid = self.sql.read_uuid
        return Candidate(
            read_uuid(key_id) or UUID(int=0), read_uuid(account_id), name, tail, bytes(secret), tier, turn, bool(is_due)
        )

    def _begin_trial(self, candidate: Candidate, request_id: UUID, variant: str) -> None:
        """Give the trial to this request: nobody else gets this key, or its account, until it is over."""
        cooldowns = self.sql.read_due_cooldowns(candidate.key_id, candidate.account_id, variant)
        self.sql.begin_trial([row[0] for row in cooldowns], request_id, self.now)
        accounts = {self.sql.read_uuid(row[1]) for row in cooldowns} - {None}
        rotation = self._rotations[variant]
        rotation.drop(lambda other: other.key_id == candidate.key_id or other.account_id in accounts)
        if rotation.is_partial:
            self.flush()  # too few may be left of what was read

    def _no_key(self, variant: str) -> NoKey:
        if variant not in self._shortages:
            self._shortages[variant] = find_shortage(variant, self.now)
        return self._shortages[variant]


def find_shortage(variant: str, now: dt.datetime) -> NoKey:
    """Why no key is free for a model of `variant`: two queries over the active keys and their open cooldowns."""
    keys = list(OpenRouterKey.objects.filter(state=KeyState.ACTIVE).values_list("id", "account_id"))
    by_target: dict[UUID, list[tuple[str, dt.datetime]]] = {}
    for cooldown in Cooldown.objects.filter(cleared_at__isnull=True, pattern__in=["", variant]):
        target = cooldown.key_id or cooldown.account_id
        assert target is not None
        by_target.setdefault(target, []).append((cooldown.cause, cooldown.until))
    benches = [by_target.get(key, []) + (by_target.get(account, []) if account else []) for key, account in keys]
    waits = [max(until for _, until in bench) - now for bench in benches if bench]
    seconds = min((wait.total_seconds() for wait in waits), default=1.0)
    return NoKey(
        client_id=None,
        pool_size=len(keys),
        benched=dict(Counter(max(bench, key=lambda item: item[1])[0] for bench in benches if bench)),
        is_rate_limited=any(bench and {cause for cause, _ in bench} <= _RATE_CAUSES for bench in benches),
        retry_after_seconds=min(max(int(seconds + 0.999), 1), MAX_RETRY_AFTER_SECONDS),
    )


@held
def _storable_names(asked: str) -> tuple[str, ...]:
    return tuple(name for name in alias_candidates(asked) if name == clean_text(name, MAX_MODEL_CHARS))


@dataclass(slots=True)
class Doorman:
    """The Pool's counter, and clients and aliases of the requests that ask for admission, read once for the batch.

    `candidates`: those of the likely variant, read with them.
    """

    turn: int
    clients: dict[str, KnownClient]
    aliases: dict[str, str]
    candidates: tuple[CandidateQuery, Sequence[Row]] | None
    _models: dict[str, tuple[str, str]] = field(default_factory=dict)

    def model_sent(self, asked: str) -> tuple[str, str]:
        """And its variant."""
        found = self._models.get(asked)
        if found is None:
            model = upstream_model(asked, self.aliases)
            found = self._models[asked] = model, variant_of(model)
        return found

    @classmethod
    def read(
        cls, sql: Statements, asked: Collection[Admit], likely: CandidateQuery | None, now: dt.datetime
    ) -> Doorman:
        """Locks the Pool."""
        names = {name for model in {item.model_asked for item in asked} for name in _storable_names(model)}
        view = sql.open_pool(sorted({item.client_digest for item in asked}), sorted(names), likely)
        candidates = (likely, view.candidates) if likely is not None else None
        return cls(view.turn, _known_clients(sql, view.clients, now), view.aliases, candidates)

    def touch(self, sql: Statements, used: Iterable[str], now: dt.datetime) -> None:
        """`last_used_at`, at most once a minute for each client. used: their digests."""
        clients, latest = [self.clients[digest] for digest in used], now - LAST_USED_STEP
        due = {client.id for client in clients if client.last_used_at is None or client.last_used_at <= latest}
        if due:
            sql.touch_clients(sorted(due), now)


def admit(item: Admit, *, doorman: Doorman, admission: Admission) -> Admitted | Denied | NoKey:
    """One request's admission. The caller writes the InFlight row, or the ledger row when there is no key."""
    client = doorman.clients.get(item.client_digest)
    if client is None:
        return Denied("unknown")
    if client.denial:
        return Denied(client.denial)
    model_sent, variant = doorman.model_sent(item.model_asked)
    selection = admission.select(item.id, variant, ())
    if isinstance(selection, NoKey):
        return NoKey(
            client_id=client.id,
            pool_size=selection.pool_size,
            benched=selection.benched,
            is_rate_limited=selection.is_rate_limited,
            retry_after_seconds=selection.retry_after_seconds,
        )
    return Admitted(client.id, client.name, model_sent, selection)


def switch(item: Switch, *, admission: Admission) -> Selection | NoKey:
    """The next key for a request whose last try failed."""
    return admission.select(item.id, variant_of(item.model_sent), item.tried)


def most_tried(switches: Iterable[Switch]) -> int:
    return max((len(item.tried) for item in switches), default=0)
