"""What can answer a request: accounts, OpenRouter keys, their cooldowns, and the round robin's counter.

Money is integer nano-USD (1e-9 USD). Rows are never deleted: a key is retired, a cooldown is cleared.
"""

from __future__ import annotations

import uuid

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils import timezone

from keys.causes import Cause


class KeyState(models.TextChoices):
    PENDING = "pending", "pending"  # a rotation's successor that is not checked yet
    ACTIVE = "active", "active"
    DISABLED = "disabled", "disabled"  # by an operator
    DRAINING = "draining", "draining"  # no new requests; the open ones finish
    INVALID = "invalid", "invalid"  # OpenRouter refuses it
    RETIRED = "retired", "retired"  # secret erased, fingerprint kept


class Account(models.Model):
    """An OpenRouter account that keys bill to. Rate limits and credits are per account."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    organization = models.CharField(
        max_length=200, blank=True, help_text="OpenRouter's id of the organization or creator; a check fills it in."
    )
    created_at = models.DateTimeField(default=timezone.now, editable=False)

    class Meta:
        ordering = ("name",)

    def __str__(self) -> str:
        return self.name


class OpenRouterKey(models.Model):
    """One upstream secret. Its plaintext exists only in the call that stores it and in the request that uses it."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    name = models.CharField(max_length=100, unique=True)
    account = models.ForeignKey(Account, null=True, blank=True, on_delete=models.PROTECT, related_name="keys")
    secret = models.BinaryField(editable=False)  # sealed; empty once the key is retired
    tail = models.CharField(max_length=12, editable=False)  # "...abc1", all that is ever shown of it
    fingerprint = models.CharField(max_length=64, unique=True, editable=False)  # HMAC-SHA256, hex
    state = models.CharField(max_length=10, choices=KeyState.choices, default=KeyState.ACTIVE, editable=False)
    tier = models.PositiveSmallIntegerField(default=1, help_text="Keys of the lowest tier are used first.")
    note = models.TextField(blank=True)
    from_environment = models.BooleanField(default=False, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False)
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.SET_NULL, related_name="+", editable=False
    )
    rotates_at = models.DateTimeField(null=True, blank=True, editable=False)
    replaced_by = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="replaces", editable=False
    )

    # The round robin. `turn` is the Pool's counter when the key was last selected.
    turn = models.BigIntegerField(default=0, editable=False)
    selections = models.BigIntegerField(default=0, editable=False)
    last_selected_at = models.DateTimeField(null=True, blank=True, editable=False)

    # Facts read from GET /key by the last check that reached OpenRouter.
    label = models.CharField(max_length=200, blank=True, editable=False)
    owner = models.CharField(max_length=200, blank=True, db_default="", editable=False)  # whom it bills to
    limit_nano = models.BigIntegerField(null=True, blank=True, editable=False)  # null: unlimited
    limit_remaining_nano = models.BigIntegerField(null=True, blank=True, editable=False)
    limit_reset = models.CharField(max_length=20, blank=True, editable=False)  # daily, weekly, monthly or empty
    usage_nano = models.BigIntegerField(null=True, blank=True, editable=False)
    usage_daily_nano = models.BigIntegerField(null=True, blank=True, editable=False)
    usage_weekly_nano = models.BigIntegerField(null=True, blank=True, editable=False)
    usage_monthly_nano = models.BigIntegerField(null=True, blank=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True, editable=False)
    checked_at = models.DateTimeField(null=True, blank=True, editable=False)  # last try, whatever came of it
    check_error = models.CharField(max_length=300, blank=True, editable=False)  # empty: the last check succeeded
    invalid_since = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        verbose_name = "OpenRouter key"
        ordering = ("created_at", "id")
        indexes = [models.Index(fields=["state", "tier", "turn", "created_at", "id"], name="key_round_robin")]
        constraints = [
            models.CheckConstraint(condition=Q(state__in=KeyState.values), name="key_state_known"),
            models.CheckConstraint(
                condition=~Q(state=KeyState.RETIRED) | Q(secret=b""), name="key_retired_has_no_secret"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.name} ({self.tail})"

    @property
    def elsewhere(self) -> str:
        """Where it bills to, in words, if that is not the account that it stands under here; else empty."""
        filed = self.account.organization if self.account else ""
        if not filed or not self.owner or filed == self.owner:
            return ""
        return f"It bills to {self.owner}, but stands under the account {self.account}, which is {filed}."


class Pool(models.Model):
    """One row: the counter of the round robin, and the lock of admission. Created by migration."""

    id = models.PositiveSmallIntegerField(primary_key=True, default=1)
    turn = models.BigIntegerField(default=0)

    class Meta:
        constraints = [models.CheckConstraint(condition=Q(id=1), name="pool_is_one_row")]


class Cooldown(models.Model):
    """A period in which a key, or all keys of an account, are not selected. Kept as history.

    Open while `cleared_at` is null, also after `until`: then one request, the trial, may find out
    whether the cause is gone. `turn` is the Pool's counter when it opened: the failure of a try that
    was selected at or before it says nothing new.
    """

    key = models.ForeignKey(OpenRouterKey, null=True, blank=True, on_delete=models.PROTECT, related_name="cooldowns")
    account = models.ForeignKey(Account, null=True, blank=True, on_delete=models.PROTECT, related_name="cooldowns")
    pattern = models.CharField(max_length=100, blank=True)  # end of the model's name, as ":free"; empty: every model
    cause = models.CharField(max_length=24, choices=Cause.choices)
    detail = models.CharField(max_length=300, blank=True)
    turn = models.BigIntegerField(default=0)
    started_at = models.DateTimeField()
    until = models.DateTimeField()
    repeat = models.PositiveIntegerField(default=0)  # how many trials in a row failed before this one
    trial = models.UUIDField(null=True, blank=True)  # InFlight id
    trial_at = models.DateTimeField(null=True, blank=True)
    cleared_at = models.DateTimeField(null=True, blank=True)
    cleared_by = models.CharField(max_length=150, blank=True)  # "trial", "failed trial", "check" or a user name

    class Meta:
        ordering = ("-started_at", "-id")
        constraints = [
            models.CheckConstraint(
                condition=Q(key__isnull=False, account__isnull=True) | Q(key__isnull=True, account__isnull=False),
                name="cooldown_has_one_target",
            ),
            models.CheckConstraint(condition=Q(until__gte=F("started_at")), name="cooldown_ends_after_it_starts"),
            models.UniqueConstraint(
                fields=["key", "cause", "pattern"],
                condition=Q(cleared_at__isnull=True, key__isnull=False),
                name="cooldown_one_open_per_key",
            ),
            models.UniqueConstraint(
                fields=["account", "cause", "pattern"],
                condition=Q(cleared_at__isnull=True, account__isnull=False),
                name="cooldown_one_open_per_account",
            ),
        ]
        indexes = [
            models.Index(fields=["trial"], condition=Q(trial__isnull=False), name="cooldown_trial"),
        ]

    def __str__(self) -> str:
        return f"{self.get_cause_display()} until {timezone.localtime(self.until):%Y-%m-%d %H:%M:%S %Z}"


class ModelAlias(models.Model):
    """A model name that clients may ask for, and the upstream model it means. Effective on the next request."""

    name = models.CharField(max_length=200, unique=True)
    target = models.CharField(max_length=200)

    class Meta:
        verbose_name_plural = "model aliases"
        ordering = ("name",)

    def __str__(self) -> str:
        return f"{self.name} → {self.target}"
