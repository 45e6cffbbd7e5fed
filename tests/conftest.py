"""Before any test: a clean environment, a folder and keyring of this process, the database, no network.

The settings are read here and not through pytest-django's option, which would read them before the environment is
clean. Each xdist worker comes here by itself and so has its own folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from django.conf import settings

from keys.keyring import create_keyring
from tests import hermetic

pytest_plugins = ["tests.sandbox", "tests.data_plane_fixture", "tests.flushing"]  # upstream, our application, flush

VAR_DIR = Path(tempfile.mkdtemp(prefix="opensvm-tests-"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", type=int, default=10, help="how many processes the crash loop kills on each database")
    parser.addoption("--seed", type=int, default=1, help="of the crash loop's choices")


def _load_settings() -> None:
    hermetic.enter(os.environ, VAR_DIR)
    create_keyring(VAR_DIR / "keyring.json")
    os.environ["DJANGO_SETTINGS_MODULE"] = "opensvm.settings"
    database = settings.DATABASES["default"]
    del os.environ["DJANGO_SETTINGS_MODULE"]  # or xdist's workers would read the settings before they come here
    if settings.IS_SQLITE:  # a file, because threads with own connections take part: the lane is one
        database.setdefault("TEST", {})["NAME"] = str(VAR_DIR / "test.sqlite3")
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the slow one takes 0.3 s a user


_load_settings()
hermetic.block_network()


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(VAR_DIR, ignore_errors=True)
