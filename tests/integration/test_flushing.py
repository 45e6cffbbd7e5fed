"""Tests that commit leave nothing behind: neither rows nor holes."""

from __future__ import annotations

import pytest
from django.contrib.auth.models import Group, Permission
from django.test import TransactionTestCase

from keys.models import AuditEvent, ModelAlias, OpenRouterKey
from keys.sealing import Sealed
from keys.services.audit import Actor
from keys.services.keys import add_key


@pytest.mark.django_db(transaction=True)
def test_after_a_test_the_database_is_as_migrations_left_it() -> None:
    def rows() -> list[object]:
        members = Group.permissions.through.objects.order_by("id").values_list()
        return [list(ModelAlias.objects.order_by("id").values_list()), list(members), Permission.objects.count()]

    before = rows()
    add_key(actor=Actor("alice"), secret=Sealed("sk-or-v1-test-left-behind"), name="left behind")
    ModelAlias.objects.all().delete()
    Group.objects.all().delete()

    TransactionTestCase("run")._fixture_teardown()  # what ends such a test

    assert all(before)
    assert rows() == before
    assert not OpenRouterKey.objects.exists()
    assert not AuditEvent.objects.exists()
