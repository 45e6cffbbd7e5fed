"""What the home page says above its sections: how the pool is, and what to do next."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest

from keys.admin.display import cost
from keys.admin.pool import one_account_warning, view_keys
from keys.admin.rows import page_of
from keys.models import Client, KeyState, OpenRouterKey

MOST_KEYS = 24  # on the strip; the list has all


def home_context(request: HttpRequest) -> dict[str, Any]:
    """For who may view keys; a fixed number of queries."""
    if not request.user.has_perm("keys.view_openrouterkey"):
        return {}
    in_pool = OpenRouterKey.objects.exclude(state=KeyState.RETIRED).select_related("account").defer("secret")
    keys = list(in_pool.order_by("created_at", "pk")[: MOST_KEYS + 1])
    views = view_keys(keys)
    return {
        "pool": [
            {
                "key": key,
                "page": page_of(key),
                "standing": views[key.pk].standing,
                "requests": f"{views[key.pk].today.requests:,}",
                "cost": cost(views[key.pk].today.cost_nano, views[key.pk].today.unknown_costs),
            }
            for key in keys[:MOST_KEYS]
        ],
        "has_more_keys": len(keys) > MOST_KEYS,
        "has_no_key": not keys,
        "has_no_client": not Client.objects.filter(revoked_at__isnull=True).exists(),
        "one_account_warning": one_account_warning,
    }
