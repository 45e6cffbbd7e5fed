"""The operators' desk in Django admin. Importing this package registers its pages."""

from keys.admin.accounts import AccountAdmin
from keys.admin.aliases import ModelAliasAdmin
from keys.admin.audit import AuditAdmin
from keys.admin.clients import ClientAdmin
from keys.admin.cooldowns import CooldownAdmin
from keys.admin.keys import KeyAdmin
from keys.admin.requests import RequestAdmin
from keys.admin.usage import UsageAdmin
from keys.admin.users import AuditedGroupAdmin, AuditedUserAdmin

__all__ = [
    "AccountAdmin",
    "AuditAdmin",
    "AuditedGroupAdmin",
    "AuditedUserAdmin",
    "ClientAdmin",
    "CooldownAdmin",
    "KeyAdmin",
    "ModelAliasAdmin",
    "RequestAdmin",
    "UsageAdmin",
]
