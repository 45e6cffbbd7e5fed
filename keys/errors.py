"""What a service of `keys` refuses to do. Every message is a sentence for an operator and holds no secret.

KeysError
├── InvalidField            a value that can't be stored; `field` names it
│   └── InvalidKeyText      not an OpenRouter key
├── Duplicate
│   ├── DuplicateKey        the same OpenRouter key is in the pool already, or was
│   └── DuplicateName       the name is taken
├── IllegalStateChange      the object's state doesn't allow it
├── RotationRefused         this step of a rotation is not possible now
├── ImportGone              a prepared import was used, is too old, or is someone else's
├── AppendOnly              somebody tried to change the audit trail
├── NotFound
└── MasterKeyMismatch       keyring and database don't belong together
"""

from __future__ import annotations

from typing import Any


class KeysError(Exception):
    """Root of this app's errors."""


class InvalidField(KeysError):
    """A value that can't be stored. `field` is the name of the form field or argument."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class InvalidKeyText(InvalidField):
    """Text that is no OpenRouter key. The text itself is never part of the message."""

    def __init__(self) -> None:
        super().__init__(
            "secret", "This is not an OpenRouter key: one is sk-or-v1- and 1 to 200 letters, digits, - or _."
        )


class Duplicate(KeysError):
    """Something with the same identity exists."""


class DuplicateKey(Duplicate):
    """The same OpenRouter key is known already, perhaps as a retired one."""

    def __init__(self, name: str, key_id: Any, state: str) -> None:
        hint = " A retired key can't come back: create a new one at OpenRouter." if state == "retired" else ""
        super().__init__(f"This key is in the pool already, as {name} ({state}).{hint}")
        self.name = name
        self.key_id = key_id
        self.state = state


class DuplicateName(Duplicate):
    """The name is taken; names are never given twice, not even when their holder is retired or revoked."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"There is {kind} named {name} already: choose another name.")
        self.field = "name"
        self.name = name


class IllegalStateChange(KeysError):
    """The state of `obj` doesn't allow `wanted`."""

    def __init__(self, obj: object, old: str, wanted: str) -> None:
        super().__init__(f"{obj} is {old}: it can't be {wanted}.")
        self.old = old
        self.wanted = wanted


class RotationRefused(KeysError):
    """This step of a rotation is not possible now; the message says what has to come first."""


class ImportGone(KeysError):
    """A prepared import is not there any more."""

    def __init__(self) -> None:
        super().__init__("This import was carried out, was given up or is too old: paste the keys again.")


class AppendOnly(KeysError):
    """The audit trail only grows."""

    def __init__(self) -> None:
        super().__init__("Audit events are neither changed nor deleted.")


class NotFound(KeysError):
    """There is no such row."""

    def __init__(self, kind: str, identity: object) -> None:
        super().__init__(f"There is no {kind} {identity}.")


class MasterKeyMismatch(KeysError):
    """The keyring and this database don't belong together, or the keyring is not the newest copy."""
