"""What stops the benchmark."""

from __future__ import annotations


class BenchError(Exception):
    """It can't go on, or its figures would mean nothing; the message is one sentence that says why."""


class Missing(Exception):
    """A peer can't be had on this machine; the text says why, in one line."""
