"""What the service answers by itself: token counts and the list of models. No upstream is asked, no row is written.

The client key is looked up in the database at each call all the same, by the lane and together with the others'.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from django.http import HttpRequest, QueryDict

from keys.ledger_items import Denied, Identify, Known
from keys.uuid7 import new_request_uuid
from proxy.call_log import log_denial
from proxy.data_plane_request import DataPlaneRequest
from proxy.errors import bad_credential
from proxy.messages_body import read_countable
from proxy.model_pages import DEFAULT_LIMIT, MAX_LIMIT, describe, find_model, page_of
from proxy.token_estimate import estimate_input_tokens, scale_to_tokenizer
from proxy.views import DataPlaneView, PlainResponse, get_credential


async def identify(request: DataPlaneRequest, *, model_asked: str = "", wants_models: bool = False) -> Known:
    """The client of a request. Raises a `Refusal`: 401, or 529 without a database."""
    exchange, service = request.exchange, request.service
    credential = get_credential(request)
    match await service.submit_new(Identify(new_request_uuid(), credential.digest, model_asked, wants_models)):
        case Known() as known:
            return known
        case Denied(reason):
            log_denial(reason, credential.prefix, exchange.client_ip, exchange.request_id)
            raise bad_credential()
        case other:
            raise TypeError(f"the lane answered {other!r} to an identification")


class CountTokensView(DataPlaneView):
    """POST /v1/messages/count_tokens."""

    async def post(self, request: DataPlaneRequest) -> PlainResponse:
        get_credential(request)  # before the body is read
        raw = await request.exchange.read_body()
        try:
            if len(raw) > request.service.rules.parse_in_thread_bytes:
                model, tokens = await asyncio.to_thread(_count, raw)
            else:
                model, tokens = _count(raw)
        finally:
            request.exchange.release_body()
        known = await identify(request, model_asked=model)
        return _json({"input_tokens": scale_to_tokenizer(tokens, model=known.model_sent)})


class ModelsView(DataPlaneView):
    """GET /v1/models. OpenAI's clients send no `anthropic-version`, and ask for no second page."""

    methods = ("GET", "HEAD")

    async def get(self, request: DataPlaneRequest) -> PlainResponse:
        known = await identify(request, wants_models=True)
        is_anthropic = bool(request.exchange.header(b"anthropic-version"))
        query = {name: value for name, value in _query(request).items() if isinstance(value, str)}
        return _json(page_of(known.models, query, default_limit=DEFAULT_LIMIT if is_anthropic else MAX_LIMIT))


class ModelView(DataPlaneView):
    """GET /v1/models/{id}; ids may have slashes."""

    methods = ("GET", "HEAD")

    async def get(self, request: DataPlaneRequest, model_id: str) -> PlainResponse:
        known = await identify(request, wants_models=True)
        return _json(describe(find_model(known.models, model_id)))


def _count(raw: bytes) -> tuple[str, float]:
    """The model that is asked for, and the tokens that the older tokenizer would find."""
    document = read_countable(raw)
    model: str = document["model"]
    return model, estimate_input_tokens(document)


def _query(request: HttpRequest) -> QueryDict:
    return request.GET


def _json(document: dict[str, Any]) -> PlainResponse:
    return PlainResponse(json.dumps(document, ensure_ascii=False).encode("utf-8", "replace"))
