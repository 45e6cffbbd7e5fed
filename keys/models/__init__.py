"""All tables of the service. Only services and the lane write them; see `keys.services` and `keys.steps`."""

from keys.models.audit import AuditEvent
from keys.models.clients import Client
from keys.models.imports import KeyImport
from keys.models.inquiries import CostInquiry
from keys.models.ledger import Attempt, CostSource, InFlight, RequestLog, Watermark, Worker
from keys.models.pool import Account, Cooldown, KeyState, ModelAlias, OpenRouterKey, Pool
from keys.models.prices import ModelPrice, PriceSource
from keys.models.rollups import TrafficHour, UsageDay, UsageHour
from keys.models.vault import MasterKey

__all__ = [
    "Account",
    "Attempt",
    "AuditEvent",
    "Client",
    "Cooldown",
    "CostInquiry",
    "CostSource",
    "InFlight",
    "KeyImport",
    "KeyState",
    "MasterKey",
    "ModelAlias",
    "ModelPrice",
    "OpenRouterKey",
    "Pool",
    "PriceSource",
    "RequestLog",
    "TrafficHour",
    "UsageDay",
    "UsageHour",
    "Watermark",
    "Worker",
]
