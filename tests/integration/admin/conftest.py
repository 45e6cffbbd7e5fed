"""An operator who is logged in, and an OpenRouter to check keys with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from pytest_django import Settings

from tests.sandbox import SandboxFixture, sandbox, sandbox_server

if TYPE_CHECKING:
    from django.contrib.auth.models import User
    from django.test import Client

__all__ = ["sandbox", "sandbox_server"]


@pytest.fixture
def new_user(django_user_model: type[User]) -> Callable[..., User]:
    """A member of the staff with these permissions of `keys`, as `view_client`."""

    def make(name: str, *permissions: str, **values: Any) -> User:
        from django.contrib.auth.models import Permission

        user = django_user_model.objects.create_user(name, password="not used here", is_staff=True, **values)
        user.user_permissions.set(Permission.objects.filter(content_type__app_label="keys", codename__in=permissions))
        return user

    return make


@pytest.fixture
def operator(new_user: Callable[..., User], db: None) -> User:
    return new_user("olivia", is_superuser=True)


@pytest.fixture
def desk(operator: User) -> Client:
    """A browser in which the operator is logged in."""
    from django.test import Client

    browser = Client()
    browser.force_login(operator)
    return browser


@pytest.fixture
def openrouter(sandbox: SandboxFixture, settings: Settings) -> SandboxFixture:
    settings.OPENROUTER_BASE_URL = sandbox.base_url
    return sandbox


@pytest.fixture
def no_openrouter(openrouter: SandboxFixture) -> SandboxFixture:
    """OpenRouter can't be reached."""
    openrouter.refuse_connections()
    return openrouter
