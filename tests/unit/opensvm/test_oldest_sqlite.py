from __future__ import annotations

import pytest

from opensvm.environment import SettingError, check_sqlite


@pytest.mark.parametrize("version", [(3, 35, 0), (3, 40, 1), (4, 0, 0)])
def test_a_sqlite_that_knows_the_statements_is_taken(version: tuple[int, ...]) -> None:
    check_sqlite(version)


def test_an_older_one_stops_the_start_with_the_way_out() -> None:
    with pytest.raises(SettingError, match=r"SQLite 3\.31\.1; 3\.35 is needed.*DATABASE_URL"):
        check_sqlite((3, 31, 1))
