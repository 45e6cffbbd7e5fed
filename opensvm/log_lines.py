"""A log record as one line of JSON: bounded, UTF-8, without control characters and without keys. Pure."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import re
import time

import msgspec

MAX_LINE_BYTES = 16 * 1024
MAX_TRACEBACK_CHARACTERS = 6000
MAX_MESSAGE_CHARACTERS = 2000
CUT_FIELD_CHARACTERS = 200

_FIXED = frozenset({"ts", "level", "event", "msg", "environment", "pid"})
_NO_EXTRAS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"} | _FIXED
_OPENROUTER_KEY = re.compile(r"sk-or-v1-([A-Za-z0-9_-]+)")
_CLIENT_KEY = re.compile(r"(sk-ant-api03-[A-Za-z0-9_-]{4})[A-Za-z0-9_-]+")
_UNPRINTABLE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff]")  # what json.dumps leaves as it is
_QUICK = msgspec.json.Encoder(enc_hook=str)
# For what that refuses.
_ENCODER = json.JSONEncoder(ensure_ascii=False, allow_nan=False, default=str, separators=(",", ":"))
_formatter = logging.Formatter()


def to_line(record: logging.LogRecord, *, environment: str, max_bytes: int = MAX_LINE_BYTES) -> bytes:
    """The whole line, newline included, at most `max_bytes` (1024 or more) long. Never raises for a record."""
    fields = _fields(record, environment)
    line = _encode(fields)
    if len(line) > max_bytes:
        line = _encode({name: _cut(value, CUT_FIELD_CHARACTERS) for name, value in fields.items()} | {"cut": True})
    if len(line) > max_bytes:
        basic = {name: _cut(fields[name], 100) for name in ("ts", "level", "event", "msg", "pid")}
        line = _encode(basic | {"cut": True})
    return line


def to_quick_line(
    said: msgspec.Struct, *, created: float, level: int, environment: str, max_bytes: int = MAX_LINE_BYTES
) -> bytes:
    """The line of what is said at each request: an `event`, a `msg` and what else there is, without a record."""
    try:
        members, end = _QUICK.encode(said)[1:-1], _quick_end(environment)
    except Exception:
        members = end = b""  # of what JSON can't hold: the long way
    if members:
        second, milliseconds = divmod(int(created * 1000), 1000)
        line = b"%b%03d%b%b%b" % (
            _quick_start(second),
            milliseconds,
            _quick_level(level),
            members,
            end,
        )
        if len(line) <= max_bytes and _is_clean(line):
            return line
    known = {"created": created, "levelname": logging.getLevelName(level), "process": os.getpid()}
    record = logging.makeLogRecord({**known, **msgspec.structs.asdict(said)})
    return to_line(record, environment=environment, max_bytes=max_bytes)


@functools.lru_cache(maxsize=4)
def _quick_start(second: int) -> bytes:
    return b'{"ts":"%b.' % _second(second).encode()


@functools.lru_cache
def _quick_level(level: int) -> bytes:
    return b'Z","level":"%b",' % logging.getLevelName(level).lower().encode()


@functools.lru_cache(maxsize=4)
def _quick_end(environment: str) -> bytes:
    return b',"environment":%b,"pid":%d}\n' % (_QUICK.encode(environment), os.getpid())


os.register_at_fork(after_in_child=_quick_end.cache_clear)


def _is_clean(line: bytes) -> bool:
    """Nothing in it can be a key, or a character that JSON leaves as it is and a terminal does not."""
    return line.isascii() and line.find(b"sk-") < 0 and line.find(b"\x7f") < 0  # `in` would try an integer first


def redact(text: str) -> str:
    """`text` with upstream keys shown as their tail and client keys as their beginning."""
    if "sk-" not in text:
        return text
    return _CLIENT_KEY.sub(r"\1…", _OPENROUTER_KEY.sub(_tail, text))


def _tail(match: re.Match[str]) -> str:
    secret = match.group(1)
    return f"...{secret[-4:]}" if len(secret) >= 8 else "..."


def _fields(record: logging.LogRecord, environment: str) -> dict[str, object]:
    values = vars(record)
    extras = {name: value for name, value in values.items() if name not in _NO_EXTRAS}
    fields: dict[str, object] = {
        "ts": _stamp(record.created),
        "level": record.levelname.lower(),
        "event": str(values.get("event", record.name)),
        "msg": _cut(_message(record), MAX_MESSAGE_CHARACTERS),
        "environment": environment,
        "pid": record.process,
        **extras,
    }
    traceback = _traceback(record)
    return fields | {"traceback": traceback} if traceback else fields


def _stamp(seconds: float) -> str:
    whole, milliseconds = divmod(int(seconds * 1000), 1000)
    return f"{_second(whole)}.{milliseconds:03}Z"


@functools.lru_cache(maxsize=4)
def _second(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage() if record.args or type(record.msg) is not str else record.msg
    except Exception:  # noqa: S110 - said below
        pass
    with contextlib.suppress(Exception):
        return f"{record.msg!s} (its arguments don't fit)"
    return f"<{type(record.msg).__name__} that can't be shown>"


def _traceback(record: logging.LogRecord) -> str:
    """The end of it, where the cause is; redacted before it is cut, so that no half of a key stays."""
    if not record.exc_info and not record.exc_text:
        return ""
    try:
        text = _formatter.formatException(record.exc_info) if record.exc_info else record.exc_text or ""
    except Exception:
        text = "the exception can't be shown"
    text = redact(text)
    return text if len(text) <= MAX_TRACEBACK_CHARACTERS else f"…{text[-MAX_TRACEBACK_CHARACTERS:]}"


def _cut(value: object, characters: int) -> object:
    """Redacted first, so that no half of a key stays."""
    text = redact(value) if isinstance(value, str) else None
    if text is None:
        if isinstance(value, bool | int | float | None):
            return value
        text = redact(_to_json(value))
    return text if len(text) <= characters else f"{text[:characters]}…"


def _encode(fields: dict[str, object]) -> bytes:
    try:
        line: bytes = _QUICK.encode(fields)
    except Exception:
        text = _object(fields)
    else:
        if _is_clean(line):
            return line + b"\n"
        text = line.decode()
    text = redact(f"{text}\n")
    if text.isascii() and "\x7f" not in text:
        return text.encode()
    text = _UNPRINTABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", text)
    return text.encode("utf-8", "backslashreplace")  # a lone surrogate becomes \udcff, which JSON allows


def _object(fields: dict[str, object]) -> str:
    """In one go; when a value can't be written, one by one, so that the others are."""
    try:
        return _ENCODER.encode(fields)
    except Exception:
        members = (f"{json.dumps(str(name), ensure_ascii=False)}:{_to_json(value)}" for name, value in fields.items())
        return f"{{{','.join(members)}}}"


def _to_json(value: object) -> str:
    for attempt in (_strict_json, _repr_json):
        with contextlib.suppress(Exception):
            return attempt(value)
    return json.dumps(f"<{type(value).__name__} that can't be shown>")


def _strict_json(value: object) -> str:
    return _ENCODER.encode(value)


def _repr_json(value: object) -> str:
    return json.dumps(repr(value), ensure_ascii=False)
