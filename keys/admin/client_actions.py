"""What an operator may do to clients."""

from __future__ import annotations

from keys.admin.row_actions import Outcome, RowAction
from keys.models import Client
from keys.services import clients
from keys.services.audit import Actor

REVOKE_WARNING = (
    "From its next request on, every request with this client key is refused with 401. That can't be undone: to let "
    "its holder in again, create a new client. Its requests and costs stay."
)


def _revoke(client: Client, actor: Actor) -> Outcome:
    clients.revoke_client(client.pk, actor=actor)
    return Outcome()


CLIENT_ACTIONS = (
    RowAction(
        "revoke",
        "Revoke",
        "revoked",
        lambda client: "already revoked" if client.revoked_at else "",
        _revoke,
        warning=REVOKE_WARNING,
        is_danger=True,
    ),
)
