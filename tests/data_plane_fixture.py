"""The `plane` fixture, imported late: `tests.data_plane` needs the settings that `tests/conftest.py` prepares."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.data_plane import DataPlane
    from tests.sandbox import SandboxFixture


@pytest.fixture
def plane(
    request: pytest.FixtureRequest,
    sandbox: SandboxFixture,
    transactional_db: None,
) -> Iterator[DataPlane]:
    """A running data plane with one client and no keys. `@pytest.mark.plane(name=value)` changes its rules."""
    from django.db import connections

    from tests.data_plane import DataPlane

    marker = request.node.get_closest_marker("plane")
    plane = DataPlane(sandbox, dict(marker.kwargs) if marker else {})
    plane.start()
    yield plane
    plane.stop()
    connections.close_all()
