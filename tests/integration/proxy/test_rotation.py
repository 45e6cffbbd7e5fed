"""A key is rotated while requests run: none fails, none is sent with the old key after it drains, none is cut."""

from __future__ import annotations

import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from keys.errors import RotationRefused
from keys.models import InFlight, OpenRouterKey, RequestLog
from keys.sealing import Sealed
from keys.services.audit import Actor
from keys.services.checks import check_key
from keys.services.rotation import Rotation, drain_key, finish_rotation, finish_rotations, start_rotation
from tests.data_plane import DataPlane, Reply

ALICE = Actor("alice")
ACCEPTED = httpx.MockTransport(lambda request: httpx.Response(200, json={"data": {"limit": None}}))


def start(plane: DataPlane, old: OpenRouterKey) -> Rotation:
    text = f"sk-or-v1-test-next-{uuid.uuid4().hex[:8]}"
    plane.sandbox.add_key(text, name="next")
    rotation = start_rotation(old.pk, actor=ALICE, secret=Sealed(text))
    check_key(rotation.new.pk, actor=ALICE, transport=ACCEPTED)
    return rotation


def state_of(key: OpenRouterKey) -> str:
    return OpenRouterKey.objects.get(pk=key.pk).state


def test_a_draining_key_finishes_its_stream_and_gets_nothing_new(plane: DataPlane) -> None:
    old = plane.add_key("prod")
    plane.sandbox.behave(key="prod", delay_headers=1.0)
    open_call = plane.open(stream=True)
    plane.wait_until(lambda: plane.asked_keys() == ["prod"])
    start(plane, old)
    assert drain_key(old.pk, actor=ALICE).in_flight == 1

    later = [plane.post() for _ in range(5)]

    assert [reply.status for reply in later] == [200] * 5
    assert Counter(plane.asked_keys()) == {"prod": 1, "next": 5}
    assert finish_rotations() == 0
    assert open_call.reply().events[-1][0] == "message_stop"
    plane.wait_until(lambda: not InFlight.objects.exists())
    assert finish_rotations() == 1
    assert state_of(old) == "retired"


def test_no_request_fails_while_a_key_is_rotated_under_load(plane: DataPlane) -> None:
    """The pool's only key is rotated three times while eight clients ask without a pause."""
    key = plane.add_key("prod")
    plane.sandbox.behave(delay_headers=0.02)
    stop = threading.Event()

    def ask(number: int) -> list[Reply]:
        replies = []
        while not stop.is_set():
            replies.append(plane.stream() if number % 2 else plane.post())
        return replies

    with ThreadPoolExecutor(8) as clients:
        asked = [clients.submit(ask, number) for number in range(8)]
        try:
            for _ in range(3):
                before = RequestLog.objects.count()
                plane.wait_until(lambda before=before: RequestLog.objects.count() >= before + 20, 20)  # type: ignore[misc]
                rotation = start(plane, key)
                plane.wait_until(lambda rotation=rotation: was_asked(rotation.new), 20)  # type: ignore[misc]
                drain_key(key.pk, actor=ALICE)
                plane.wait_until(lambda key=key: has_finished(key), 20)  # type: ignore[misc]
                key = rotation.new
        finally:
            stop.set()
        replies = [reply for one in asked for reply in one.result(30)]

    plane.wait_until(lambda: not InFlight.objects.exists())
    assert Counter(reply.status for reply in replies) == {200: len(replies)}
    assert len(replies) > 60
    assert all(reply.events[-1][0] == "message_stop" for reply in replies if reply.events)
    assert RequestLog.objects.exclude(status=200).count() == 0
    assert RequestLog.objects.filter(attempts=1).count() == len(replies)
    assert Counter(OpenRouterKey.objects.values_list("state", flat=True)) == {"retired": 3, "active": 1}


def was_asked(key: OpenRouterKey) -> bool:
    return RequestLog.objects.filter(key=key).exists()


def has_finished(key: OpenRouterKey) -> bool:
    try:
        finish_rotation(key.pk, actor=ALICE)
    except RotationRefused:
        return False
    return True
