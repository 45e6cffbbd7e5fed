"""What an error of the database means for the lane: a conflict, an outage, or the fault of what was written. Pure."""

from __future__ import annotations

from django.db import InterfaceError, OperationalError

_CONFLICT_STATES = frozenset({"40001", "40P01"})  # PostgreSQL: serialization failure, deadlock
_UNPREPARED_STATES = frozenset({"26000", "42P05"})  # not there, or there already: the session is not ours alone
_OUTAGE_STATES = frozenset({"25006"}) | _UNPREPARED_STATES  # read-only: after a failover to a standby
_CHANGED_STATE = "0A000"  # a column that a prepared statement reads has another type now
_SAID = {  # what SQLite and PostgreSQL say -> what it means, in words that may be shown to everybody
    "locked": "the database is locked by another process",
    "busy": "the database is locked by another process",
    "full": "the database's disk is full",
    "no space left": "the database's disk is full",
    "disk i/o": "the database's disk does not take what is written",
    "readonly": "the database is read-only",
    "read-only": "the database is read-only",
    "no such table": "the database lacks its tables: run manage.py migrate",
    "malformed": "the database file is damaged",
    "not a database": "the database file is damaged",
    "starting up": "the database is starting",
    "shutting down": "the database is shutting down",
    "too many": "the database takes no more connections",
    "prepared statement": "the database forgets prepared statements: PgBouncer needs pool_mode = session",
}
HANGS = "the database does not answer"
UNREACHABLE = "the database can't be reached"


def is_conflict(exc: BaseException) -> bool:
    """Another transaction was in the way: the database is well, the batch runs again."""
    return sqlstate(exc) in _CONFLICT_STATES


def is_outage(exc: BaseException) -> bool:
    """The database is not at its best, whatever is written; else the fault may be in the rows."""
    return isinstance(exc, OperationalError | InterfaceError) or sqlstate(exc) in _OUTAGE_STATES


def is_stale(exc: BaseException) -> bool:
    """What the connection has prepared is not so any more: a new one may do what this one can't."""
    return sqlstate(exc) == _CHANGED_STATE or sqlstate(exc) in _UNPREPARED_STATES


def sqlstate(exc: BaseException) -> str:
    """PostgreSQL's code of the error, or empty."""
    return getattr(exc.__cause__, "sqlstate", None) or ""


def words_for(exc: BaseException) -> str:
    """What is wrong, without anything that the database says of itself: no host, user or file name."""
    said = str(exc).lower()
    return next((words for token, words in _SAID.items() if token in said), UNREACHABLE)


def one_line(exc: BaseException) -> str:
    """For the log."""
    return " ".join(str(exc).split()) or type(exc).__name__
