"""Last of all: what the tests of this run have covered is in the README's table of clients."""

from __future__ import annotations

import pytest

from tests.acceptance.clients.record import Record, in_readme, words_of


def test_the_readme_names_all_that_was_covered(record: Record) -> None:
    """`python -m tests.acceptance.clients.record` writes the table anew after a run."""
    if not record.covered:
        pytest.skip("no client was asked in this run")
    for client, versions in record.covered.items():
        ran = {words_of(scenario) for scenarios in versions.values() for scenario in scenarios}
        assert not ran - in_readme(client), client
