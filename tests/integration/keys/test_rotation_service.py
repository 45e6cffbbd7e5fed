"""A rotation from its start to the retired key, what each step asks for, and how it is given up."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import httpx
import pytest
from django.utils import timezone

from keys.errors import DuplicateKey, IllegalStateChange, KeysError, NotFound, RotationRefused
from keys.models import Account, AuditEvent, InFlight, KeyState, OpenRouterKey
from keys.sealing import Sealed
from keys.services import keys, rotation
from keys.services.audit import Actor
from keys.services.checks import check_key
from keys.services.rotation import RotationPhase

pytestmark = pytest.mark.django_db

ALICE = Actor("alice", "192.0.2.7")
SUCCESSOR = "sk-or-v1-test-successor-0001"
ACCEPTED = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": {"limit": None}}))
REFUSED = httpx.MockTransport(lambda request: httpx.Response(401, json={"error": {"message": "no"}}))
USED_UP = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": {"limit": 1, "limit_remaining": 0}}))
MANAGEMENT = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": {"is_management_key": True}}))


def add(name: str, state: KeyState = KeyState.ACTIVE, **values: object) -> OpenRouterKey:
    text = f"sk-or-v1-test-{uuid.uuid4().hex}"
    key = keys.add_key(actor=ALICE, secret=Sealed(text), name=name, **values)  # type: ignore[arg-type]
    OpenRouterKey.objects.filter(pk=key.pk).update(state=state)
    key.refresh_from_db()
    return key


def start(old: OpenRouterKey, text: str = SUCCESSOR, name: str = "") -> OpenRouterKey:
    return rotation.start_rotation(old.pk, actor=ALICE, secret=Sealed(text), name=name).new


def start_and_check(old: OpenRouterKey) -> OpenRouterKey:
    new = start(old)
    check_key(new.pk, actor=ALICE, transport=ACCEPTED)
    new.refresh_from_db()
    return new


def fly(key: OpenRouterKey) -> InFlight:
    return InFlight.objects.create(id=uuid.uuid4(), client_id=uuid.uuid4(), key=key, started_at=timezone.now())


def state_of(key: OpenRouterKey) -> str:
    return OpenRouterKey.objects.get(pk=key.pk).state


# -- the way through -------------------------------------------------------------------------------------------------
def test_the_successor_waits_for_its_check_and_carries_account_tier_and_note_on() -> None:
    account = Account.objects.create(name="acme")
    old = add("prod", account=account, tier=3, note="from Bob")
    new = start(old)
    assert (new.state, new.account, new.tier, new.note) == ("pending", account, 3, "from Bob")
    assert (new.name, state_of(old)) == ("prod.2", "active")
    found = rotation.find_rotation(old.pk)
    assert found is not None
    assert (found.new, found.phase, found.in_flight) == (new, RotationPhase.CHECKING, 0)
    assert rotation.find_rotation(new.pk) == found


def test_both_serve_once_openrouter_accepts_the_successor() -> None:
    old = add("prod")
    new = start_and_check(old)
    assert (state_of(old), state_of(new)) == ("active", "active")
    found = rotation.find_rotation(old.pk)
    assert found is not None
    assert found.phase is RotationPhase.OVERLAP


@pytest.mark.parametrize("transport", [REFUSED, USED_UP, MANAGEMENT], ids=["refused", "no room", "management key"])
def test_a_successor_whose_check_is_not_good_does_not_serve(transport: httpx.MockTransport) -> None:
    old = add("prod")
    new = start(old)
    check_key(new.pk, actor=ALICE, transport=transport)
    assert state_of(new) == "pending"
    with pytest.raises(RotationRefused, match="does not serve yet"):
        rotation.drain_key(old.pk, actor=ALICE)


def test_the_old_key_drains_and_is_retired_when_nothing_is_in_flight() -> None:
    old = add("prod")
    start_and_check(old)
    request = fly(old)
    assert rotation.drain_key(old.pk, actor=ALICE).in_flight == 1
    with pytest.raises(RotationRefused, match="still answers 1 requests"):
        rotation.finish_rotation(old.pk, actor=ALICE)
    request.delete()
    rotation.finish_rotation(old.pk, actor=ALICE)
    old.refresh_from_db()
    assert (old.state, bytes(old.secret)) == ("retired", b"")
    assert rotation.find_rotation(old.pk) is None


def test_the_task_retires_only_what_has_drained() -> None:
    drained, busy = add("drained"), add("busy")
    for number, old in enumerate((drained, busy)):
        new = start(old, f"sk-or-v1-test-next-{number:04}")
        check_key(new.pk, actor=ALICE, transport=ACCEPTED)
        rotation.drain_key(old.pk, actor=ALICE)
    fly(busy)
    assert rotation.finish_rotations() == 1
    assert (state_of(drained), state_of(busy)) == ("retired", "draining")
    assert AuditEvent.objects.get(action="key.retired").actor == "task"


def test_the_task_keeps_an_old_key_whose_successor_has_stopped_serving() -> None:
    old = add("prod")
    new = start_and_check(old)
    rotation.drain_key(old.pk, actor=ALICE)
    check_key(new.pk, actor=ALICE, transport=REFUSED)
    assert rotation.finish_rotations() == 0
    assert state_of(old) == "draining"
    with pytest.raises(RotationRefused, match="does not serve, it is invalid"):
        rotation.finish_rotation(old.pk, actor=ALICE)


@pytest.mark.parametrize("state", [KeyState.DISABLED, KeyState.INVALID])
def test_a_key_that_does_not_serve_is_replaced_without_a_drain(state: KeyState) -> None:
    old = add("prod", state)
    start_and_check(old)
    rotation.finish_rotation(old.pk, actor=ALICE)
    assert state_of(old) == "retired"


# -- what is refused -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("state", [KeyState.PENDING, KeyState.DRAINING, KeyState.RETIRED])
def test_a_key_in_this_state_can_not_be_rotated(state: KeyState) -> None:
    old = add("prod")
    OpenRouterKey.objects.filter(pk=old.pk).update(state=state, secret=b"")
    with pytest.raises(RotationRefused, match=f"already {state}"):
        start(old)


def test_one_key_takes_part_in_one_rotation_at_a_time() -> None:
    old = add("prod")
    new = start_and_check(old)
    for key in (old, new):
        with pytest.raises(RotationRefused, match="already part of a rotation"):
            start(key, "sk-or-v1-test-another-0001")
    assert OpenRouterKey.objects.count() == 2


def test_a_successor_that_is_in_the_pool_already_starts_nothing() -> None:
    old = add("prod")
    keys.add_key(actor=ALICE, secret=Sealed(SUCCESSOR), name="other")
    with pytest.raises(DuplicateKey):
        start(old)
    assert OpenRouterKey.objects.get(pk=old.pk).replaced_by is None


def test_a_key_that_gets_new_requests_is_not_retired_by_its_rotation() -> None:
    old = add("prod")
    start_and_check(old)
    with pytest.raises(RotationRefused, match="drain it first"):
        rotation.finish_rotation(old.pk, actor=ALICE)


@pytest.mark.parametrize("step", [rotation.drain_key, rotation.finish_rotation, rotation.cancel_rotation])
def test_without_an_open_rotation_no_step_is_possible(step: Callable[..., object]) -> None:
    key = add("prod")
    with pytest.raises(RotationRefused, match="no open rotation"):
        step(key.pk, actor=ALICE)
    with pytest.raises(NotFound):
        step(uuid.uuid4(), actor=ALICE)


def test_a_key_drains_once() -> None:
    old = add("prod")
    start_and_check(old)
    rotation.drain_key(old.pk, actor=ALICE)
    with pytest.raises(IllegalStateChange):
        rotation.drain_key(old.pk, actor=ALICE)


# -- giving up -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("step", ["pending", "active", "draining"])
def test_a_cancelled_rotation_leaves_the_old_key_serving_and_the_successor_disabled(step: str) -> None:
    old = add("prod")
    new = start(old) if step == "pending" else start_and_check(old)
    if step == "draining":
        rotation.drain_key(old.pk, actor=ALICE)
    rotation.cancel_rotation(old.pk, actor=ALICE)
    assert (state_of(old), state_of(new)) == ("active", "disabled")
    assert rotation.find_rotation(old.pk) is None
    assert rotation.lineage_of([new.pk]) == {new.pk: new.pk}


def test_a_disabled_key_stays_disabled_when_its_rotation_is_cancelled() -> None:
    old = add("prod", KeyState.DISABLED)
    start_and_check(old)
    rotation.cancel_rotation(old.pk, actor=ALICE)
    assert state_of(old) == "disabled"


def test_a_retired_key_does_not_come_back() -> None:
    old = add("prod")
    start_and_check(old)
    rotation.drain_key(old.pk, actor=ALICE)
    rotation.finish_rotation(old.pk, actor=ALICE)
    with pytest.raises(RotationRefused, match="no open rotation"):
        rotation.cancel_rotation(old.pk, actor=ALICE)


def test_retiring_the_successor_ends_the_rotation_and_the_old_key_serves_again() -> None:
    old = add("prod")
    new = start_and_check(old)
    rotation.drain_key(old.pk, actor=ALICE)
    keys.retire_key(new.pk, actor=ALICE)
    old.refresh_from_db()
    assert (old.state, old.replaced_by) == ("active", None)
    assert start(old, "sk-or-v1-test-another-0001").state == "pending"


# -- what is kept ----------------------------------------------------------------------------------------------------
def test_every_step_is_in_the_audit_and_none_holds_a_secret() -> None:
    old = add("prod")
    start_and_check(old)
    rotation.drain_key(old.pk, actor=ALICE)
    rotation.finish_rotation(old.pk, actor=ALICE)
    events = AuditEvent.objects.filter(object_id=str(old.pk)).order_by("id")
    assert list(events.values_list("action", flat=True)) == [
        "key.added",
        "key.rotation_started",
        "key.drained",
        "key.retired",
    ]
    assert SUCCESSOR not in str(list(AuditEvent.objects.values()))


def test_a_line_of_keys_has_one_first_key_and_numbers_its_names() -> None:
    first = add("prod")
    second = start_and_check(first)
    rotation.drain_key(first.pk, actor=ALICE)
    rotation.finish_rotation(first.pk, actor=ALICE)
    third = start(second, "sk-or-v1-test-third-0001")
    other = add("other")
    assert third.name == "prod.3"
    assert rotation.lineage_of([first.pk, second.pk, third.pk, other.pk]) == {
        first.pk: first.pk,
        second.pk: first.pk,
        third.pk: first.pk,
        other.pk: other.pk,
    }


def test_the_name_of_a_successor_skips_what_is_taken_and_fits() -> None:
    long = add("x" * 100)
    add("prod.2")
    assert start(add("prod")).name == "prod.3"
    assert len(rotation.successor_name(long)) <= 100


def test_a_refused_step_changes_nothing() -> None:
    old = add("prod")
    new = start(old)
    before = list(OpenRouterKey.objects.order_by("pk").values("pk", "state", "replaced_by_id"))
    events = AuditEvent.objects.count()
    for step in (rotation.drain_key, rotation.finish_rotation):
        with pytest.raises(KeysError):
            step(old.pk, actor=ALICE)
    assert list(OpenRouterKey.objects.order_by("pk").values("pk", "state", "replaced_by_id")) == before
    assert (AuditEvent.objects.count(), state_of(new)) == (events, "pending")
