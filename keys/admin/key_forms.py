"""The forms of the key pages. A secret goes in and never comes out again."""

from __future__ import annotations

from typing import Any

from django import forms

from keys.admin.base import RefusableForm
from keys.models import OpenRouterKey
from keys.sealing import Sealed


class SecretField(forms.CharField):
    """Takes a secret and hands it on sealed. The page never gets it back, also not after an error."""

    def __init__(self, **options: Any) -> None:
        attributes = {"autocomplete": "off", "spellcheck": "false", "class": "vTextField"}
        widget = forms.PasswordInput(render_value=False, attrs=attributes)
        super().__init__(**{"widget": widget} | options)

    def clean(self, value: Any) -> Any:
        return Sealed(super().clean(value))


class AddKeyForm(RefusableForm):
    """`key_text` and not `secret`: that is the column, which no form may touch."""

    key_text = SecretField(
        label="OpenRouter key",
        max_length=1000,
        help_text="Starts with sk-or-v1-. It is stored encrypted and never shown again.",
    )

    class Meta:
        model = OpenRouterKey
        fields = ("name", "account", "tier", "note")


class ChangeKeyForm(RefusableForm):
    class Meta:
        model = OpenRouterKey
        fields = ("name", "account", "tier", "note")
