"""The journal of a web process: what is in it after a kill, a torn line, a full disk, and who may read it when."""

from __future__ import annotations

import asyncio
import datetime as dt
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keys import journal as journal_module
from keys.causes import Cause, Failure
from keys.journal import Journal, JournalFull, OrphanJournal, from_document, take_orphans, to_document
from keys.ledger_items import Caller, FailedTry, Selection, Settlement, Tokens

ROOT = Path(__file__).parents[3]
AT = dt.datetime(2026, 5, 4, 12, tzinfo=dt.UTC)
MEGABYTE = 1024 * 1024


def settlement(**changes: Any) -> Settlement:
    request = uuid.uuid4()
    plain = Settlement(
        id=request,
        request_id=f"req_{request.hex}",
        client_id=uuid.uuid4(),
        key_id=uuid.uuid4(),
        model_asked="claude",
        model_sent="anthropic/claude",
        status=200,
        error_type="",
        cause="",
        attempts=1,
        stream=True,
        tokens=Tokens(1, 2, 3, 4),
        cost_nano=5,
        cost_source="reported",
        latency_ms=6,
        first_token_ms=7,
        generation_id="gen-1",
        created_at=AT,
        caller=Caller("192.0.2.1", "curl", "session"),
    )
    return msgspec.structs.replace(plain, **changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal(folder: Path) -> Iterator[Journal]:
    opened = Journal(folder, uuid.uuid4(), max_bytes=MEGABYTE)
    yield opened
    opened.close()


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def read(path: Path) -> tuple[dict[uuid.UUID, str], dict[uuid.UUID, Settlement]]:
    content = OrphanJournal(uuid.uuid4(), path).read()
    return content.generations, content.settlements


def orphans(folder: Path) -> list[uuid.UUID]:
    return [orphan.worker for orphan in take_orphans(folder)]


# -- what is written -------------------------------------------------------------------------------------------------
def test_it_holds_generations_and_settlements(journal: Journal, folder: Path) -> None:
    request, item = uuid.uuid4(), settlement()

    journal.note_generation(request, "gen-2")
    journal.record(item)

    assert read(only_file(folder)) == ({request: "gen-2"}, {item.id: item})
    assert journal.unsettled == 1
    assert only_file(folder).stat().st_mode & 0o777 == 0o600


def test_what_one_turn_of_a_loop_notes_is_one_write_at_its_end(folder: Path) -> None:
    journal = Journal(folder, uuid.uuid4(), max_bytes=MEGABYTE)
    requests = [uuid.uuid4() for _ in range(3)]
    seen = []

    async def note() -> None:
        for request in requests:
            journal.note_generation(request, 'gen-"1"')
            seen.append(journal._size)
        await asyncio.sleep(0)
        seen.append(journal._size)

    asyncio.run(note())
    journal.close()
    assert seen[:3] == [0, 0, 0] != seen[3:]
    (orphan,) = take_orphans(folder)
    assert orphan.read().generations == dict.fromkeys(requests, 'gen-"1"')


def test_what_the_ledger_has_is_forgotten_and_generations_under_way_stay(journal: Journal, folder: Path) -> None:
    item, under_way = settlement(), uuid.uuid4()
    journal.note_generation(item.id, "gen-1")
    journal.note_generation(under_way, "gen-2")
    journal.record(item)

    journal.forget([item.id])

    assert read(only_file(folder)) == ({under_way: "gen-2"}, {})
    assert journal.unsettled == 0


def test_nothing_is_rewritten_while_a_settlement_waits(journal: Journal, folder: Path) -> None:
    first, second = settlement(), settlement()
    journal.record(first)
    journal.record(second)

    journal.forget([first.id])

    assert read(only_file(folder))[1] == {first.id: first, second.id: second}


def test_a_rewritten_journal_goes_on(journal: Journal, folder: Path) -> None:
    first, second = settlement(), settlement()
    journal.record(first)
    journal.forget([first.id])

    journal.record(second)

    assert read(only_file(folder))[1] == {second.id: second}
    assert orphans(folder) == []  # it is still locked


def test_a_slow_disk_keeps_nobody_from_noting_a_generation(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`record` waits in a thread; generation ids are noted by the event loop, which must not."""
    reached, goes_on, fsync = threading.Event(), threading.Event(), os.fsync

    def slow_fsync(fd: int) -> None:
        reached.set()
        assert goes_on.wait(10)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    item, request = settlement(), uuid.uuid4()
    recorder = threading.Thread(target=journal.record, args=[item])
    recorder.start()
    assert reached.wait(10)
    noter = threading.Thread(target=journal.note_generation, args=[request, "gen-1"])
    noter.start()
    noter.join(2)
    has_waited = noter.is_alive()
    goes_on.set()
    recorder.join(10)
    noter.join(10)
    assert not has_waited
    assert read(only_file(folder)) == ({request: "gen-1"}, {item.id: item})


def test_a_settlement_may_be_forgotten_while_it_is_synced(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ledger took it after all: the file is rewritten under the one who waits for the disk."""
    item, fsync = settlement(), os.fsync

    def forget_first(fd: int) -> None:
        journal.forget([item.id])
        fsync(fd)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", forget_first)
        journal.record(item)
    assert journal.unsettled == 0
    assert read(only_file(folder)) == ({}, {})
    journal.record(item)
    assert read(only_file(folder))[1] == {item.id: item}


def test_generation_ids_do_not_let_it_grow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "_COMPACT_AT_BYTES", 2000)
    journal = Journal(folder, uuid.uuid4(), max_bytes=MEGABYTE)
    under_way = uuid.uuid4()
    journal.note_generation(under_way, "gen-long")
    for n in range(200):
        request = uuid.uuid4()
        journal.note_generation(request, f"gen-{n}")
        journal.forget([request])

    assert only_file(folder).stat().st_size < 2500
    assert read(only_file(folder))[0][under_way] == "gen-long"


def test_a_full_disk_at_a_rewrite_still_makes_room(
    journal: Journal, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    item, under_way = settlement(), uuid.uuid4()
    journal.note_generation(under_way, "gen-1")
    journal.record(item)
    taken = folder / (only_file(folder).name + ".new")
    taken.mkdir()  # no new file can be made

    journal.forget([item.id])

    taken.rmdir()
    assert read(only_file(folder)) == ({under_way: "gen-1"}, {})


# -- how much --------------------------------------------------------------------------------------------------------
def test_it_is_full_at_its_limit_and_takes_again_what_was_made_room_for(folder: Path) -> None:
    journal = Journal(folder, uuid.uuid4(), max_bytes=3000)
    taken = []
    while journal_has_room(journal, item := settlement()):
        taken.append(item.id)

    assert taken
    assert only_file(folder).stat().st_size <= 3000
    assert read(only_file(folder))[1].keys() == set(taken)
    journal.forget(taken)
    journal.record(settlement())


def journal_has_room(journal: Journal, item: Settlement) -> bool:
    try:
        journal.record(item)
    except JournalFull:
        return False
    return True


def test_is_full_says_when_new_work_is_to_be_refused(folder: Path) -> None:
    journal = Journal(folder, uuid.uuid4(), max_bytes=100)
    assert not journal.is_full

    journal.note_generation(uuid.uuid4(), "gen-" + "1" * 90)

    assert journal.is_full


FULL_DISK = """
import json, resource, signal, sys, uuid
from pathlib import Path
from keys.journal import Journal, from_document
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
folder, item = Path(sys.argv[1]), json.loads(sys.argv[2])
journal = Journal(folder, uuid.uuid4(), max_bytes=10**6)
def record():
    request = uuid.uuid4()
    journal.record(from_document({**item, "id": request.hex}))
    print(request.hex)
    return request
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
try:
    while True:
        record()
except OSError:
    journal.note_generation(uuid.uuid4(), "gen-lost")
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
record()
"""


@pytest.mark.parametrize("room", [10, 700, 1500, 2000])
def test_on_a_full_disk_what_was_promised_is_there_and_nothing_is_torn(folder: Path, room: int) -> None:
    arguments = [str(folder), json.dumps(to_document(settlement())), str(room)]
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=30
    )

    assert done.returncode == 0, done.stderr
    promised = {uuid.UUID(hex=line) for line in done.stdout.split()}
    assert read(only_file(folder))[1].keys() == promised
    lines = only_file(folder).read_bytes().split()
    assert all(json.loads(line) for line in lines)


# -- what is read ----------------------------------------------------------------------------------------------------
def test_torn_at_any_byte_all_lines_before_are_read(journal: Journal, folder: Path, tmp_path: Path) -> None:
    first, last = settlement(), from_document(to_document(settlement(failures=(failed_try(),))))
    journal.record(first)
    size = only_file(folder).stat().st_size
    journal.record(last)
    whole, torn = only_file(folder).read_bytes(), tmp_path / "torn"

    for cut in range(size, len(whole)):
        torn.write_bytes(whole[:cut])
        found = read(torn)[1]
        assert found[first.id] == first, cut
        assert found.get(last.id, last) == last, cut


def test_a_torn_line_does_not_spoil_the_next(journal: Journal, folder: Path) -> None:
    item = settlement()
    with only_file(folder).open("ab") as file:
        file.write(b'{"settle":{"id":"12')

    journal.record(item)

    assert read(only_file(folder))[1] == {item.id: item}


@pytest.mark.parametrize(
    "garbage",
    [
        pytest.param(b"\x00\xff\xfe", id="bytes"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b"null", id="nothing"),
        pytest.param(b"7", id="a number"),
        pytest.param(b'"settle"', id="a text"),
        pytest.param(b'["settle"]', id="a list"),
        pytest.param(b'{"settle": null}', id="no settlement"),
        pytest.param(b'{"request": 5, "generation": "gen"}', id="a request that is a number"),
        pytest.param(b'{"request": "zz", "generation": "gen"}', id="a request that is no id"),
        pytest.param(b'{"request": "00000000000000000000000000000001", "generation": 5}', id="a generation's number"),
        pytest.param(b"{}", id="empty"),
    ],
)
def test_garbage_is_passed_over(journal: Journal, folder: Path, garbage: bytes) -> None:
    first, last = settlement(), settlement()
    journal.record(first)
    with only_file(folder).open("ab") as file:
        file.write(garbage + b"\n")
    journal.record(last)

    assert read(only_file(folder)) == ({}, {first.id: first, last.id: last})


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("status", "200"),
        ("cost_nano", "5"),
        ("cost_nano", 1.5),
        ("model_sent", None),
        ("stream", "yes"),
        ("tokens", [1, 2, "3", 4]),
        ("tokens", [1, 2, 3, 4, 5]),
        ("caller", ["a", 1, "c"]),
        ("created_at", "2026-05-04T12:00:00"),
        ("created_at", 5),
        ("client_id", 5),
        ("failures", [{}]),
        ("failures", None),
    ],
)
def test_what_to_document_did_not_write_is_refused(field: str, value: Any) -> None:
    document = to_document(settlement()) | {field: value}

    with pytest.raises((AttributeError, KeyError, TypeError, ValueError)):
        from_document(document)


any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates too: headers are strangers' bytes
any_count = st.integers(0, 2**63 - 1)
any_moment = st.datetimes(min_value=dt.datetime(2000, 1, 1), timezones=st.just(dt.UTC))  # noqa: DTZ001  # made aware
any_failure = st.builds(
    FailedTry,
    n=any_count,
    selection=st.builds(
        Selection,
        key_id=st.uuids(),
        account_id=st.none(),
        name=st.just(""),
        tail=any_text,
        secret=st.just(b""),
        turn=st.just(0),
        is_trial=st.just(False),
    ),
    failure=st.builds(
        Failure,
        cause=st.sampled_from(Cause),
        status=st.just(0),
        error_type=st.just(""),
        message=st.just(""),
        detail=any_text,
        upstream_status=st.none() | any_count,
    ),
    duration_ms=any_count,
    at=any_moment,
)
any_settlement = st.builds(
    Settlement,
    **dict.fromkeys(("request_id", "model_asked", "model_sent", "error_type", "cause", "cost_source"), any_text),
    **dict.fromkeys(("status", "attempts", "latency_ms"), any_count),
    id=st.uuids(),
    client_id=st.uuids(),
    key_id=st.none() | st.uuids(),
    stream=st.booleans(),
    tokens=st.builds(Tokens, any_count, any_count, any_count, any_count),
    cost_nano=st.none() | any_count,
    first_token_ms=st.none() | any_count,
    generation_id=any_text,
    created_at=any_moment,
    caller=st.builds(Caller, any_text, any_text, any_text),
    failures=st.lists(any_failure, max_size=2).map(tuple),
    holds_trial=st.booleans(),
    trial_passed=st.booleans(),
)


@given(any_settlement)
def test_a_settlement_comes_back_as_it_went(item: Settlement) -> None:
    line = json.dumps(to_document(item)).encode()

    assert b"\n" not in line
    assert from_document(json.loads(line)) == item


def failed_try() -> FailedTry:
    selection = Selection(uuid.uuid4(), uuid.uuid4(), "prod-1", "...abc1", b"sealed-secret", 5, is_trial=True)
    failure = Failure(Cause.KEY_RATE_LIMITED, 429, "rate_limit_error", "slow down", upstream_status=429)
    return FailedTry(1, selection, failure, 12, AT)


def test_no_secret_is_written(journal: Journal, folder: Path) -> None:
    journal.record(settlement(failures=(failed_try(),)))

    assert b"sealed-secret" not in only_file(folder).read_bytes()
    (item,) = read(only_file(folder))[1].values()
    assert item.failures[0].failure.detail == "slow down"


# -- whose it is -----------------------------------------------------------------------------------------------------
OWNER = """
import json, sys, time, uuid
from pathlib import Path
from keys.journal import Journal, from_document
journal = Journal(Path(sys.argv[1]), uuid.UUID(sys.argv[2]), max_bytes=10**6)
journal.note_generation(uuid.UUID(int=1), "gen-1")
journal.record(from_document(json.loads(sys.argv[3])))
print("recorded", flush=True)
time.sleep(60)
"""


def test_a_killed_owner_leaves_its_journal_and_a_living_one_does_not(folder: Path) -> None:
    worker, item = uuid.uuid4(), settlement()
    arguments = [str(folder), str(worker), json.dumps(to_document(item))]
    owner = subprocess.Popen([sys.executable, "-c", OWNER, *arguments], cwd=ROOT, stdout=subprocess.PIPE)
    try:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"recorded\n"
        assert orphans(folder) == []
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.communicate(timeout=10)

    (orphan,) = take_orphans(folder)
    assert orphan.worker == worker
    assert read(orphan.path) == ({uuid.UUID(int=1): "gen-1"}, {item.id: item})


def test_only_one_process_works_on_an_orphan(folder: Path) -> None:
    journal = Journal(folder, uuid.uuid4(), max_bytes=MEGABYTE)
    journal.record(settlement())
    journal.close()

    for _ in take_orphans(folder):
        assert orphans(folder) == []
    assert len(orphans(folder)) == 1


def test_a_journal_that_was_replayed_in_this_moment_is_left_alone(folder: Path) -> None:
    for _ in range(2):
        journal = Journal(folder, uuid.uuid4(), max_bytes=MEGABYTE)
        journal.record(settlement())
        journal.close()

    found = []
    for orphan in take_orphans(folder):
        found.append(orphan.worker)
        for path in folder.iterdir():
            path.unlink()

    assert len(found) == 1


def test_a_file_that_was_rewritten_under_another_name_is_not_taken(journal: Journal, folder: Path) -> None:
    path = only_file(folder)
    old = os.open(path, os.O_RDWR)
    item = settlement()
    journal.record(item)
    journal.forget([item.id])  # the journal is another file now, the old one is unlocked
    fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)

    assert orphans(folder) == []
    os.close(old)


@pytest.mark.parametrize("name", ["notes.txt", "notes.journal", "6f9619ff-8b86-4d01-b42d-00cf4fc964ff.journal.new"])
def test_other_files_are_left_alone(folder: Path, name: str) -> None:
    folder.mkdir()
    (folder / name).write_text("{}")

    assert orphans(folder) == []
    assert only_file(folder).name == name


def test_there_may_be_no_folder_yet(folder: Path) -> None:
    assert orphans(folder) == []


def test_it_ends_with_its_process_when_nothing_is_unsettled(folder: Path) -> None:
    journal = Journal(folder, uuid.uuid4(), max_bytes=MEGABYTE)
    item = settlement()
    journal.note_generation(item.id, "gen-1")
    journal.record(item)
    journal.forget([item.id])

    journal.close()

    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("leave", ["settlement", "generation"])
def test_it_stays_for_the_next_process_when_something_is_unsettled(folder: Path, leave: str) -> None:
    journal = Journal(folder, uuid.uuid4(), max_bytes=MEGABYTE)
    if leave == "settlement":
        journal.record(settlement())
    else:
        journal.note_generation(uuid.uuid4(), "gen-1")

    journal.close()

    assert len(orphans(folder)) == 1


def test_a_journal_set_aside_is_kept_and_not_taken_again(folder: Path) -> None:
    journal = Journal(folder, uuid.uuid4(), max_bytes=MEGABYTE)
    journal.record(settlement())
    journal.close()

    (kept,) = [orphan.set_aside() for orphan in take_orphans(folder)]

    assert only_file(folder) == kept
    assert orphans(folder) == []
