"""Estimates how many input tokens a request has, without a tokenizer: Claude's newer ones are not published.

Bytes are sorted into runs (lower-case letters, capitals, digits, punctuation, line ends) and into the blocks that
UTF-8's lead bytes name; each has a weight. The weights were fitted to Anthropic's last published tokenizer over code,
JSON, prose and sixteen languages. Pure; about 1 ms for 50 kB.
"""

from __future__ import annotations

import base64
import binascii
import re
import string
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from proxy.json_text import dump, with_room

_PER_REQUEST: Final = 2
_PER_MESSAGE: Final = 3
_PER_TOOL_USE: Final = 346  # the system prompt that tools add, by Anthropic's documentation
_PER_IMAGE: Final = 1600  # the most that one costs: Anthropic scales larger ones down
_PER_PDF_PAGE: Final = 2500
_PDF_PAGE: Final = re.compile(rb"/Type\s*/Page\b")

# Claude 4.7 and later take about 30 % more tokens for the same text, says Anthropic.
_NEWER_TOKENIZER: Final = 1.3
_VERSION: Final = re.compile(r"claude-(?:[a-z]+-)?(\d+)(?:[.-](\d{1,2})(?!\d))?")
_NEWER_FROM: Final = (4, 7)

_SLICE_BYTES: Final = 64 * 1024  # at a time: each run is an object, and none of this lets other threads run
_WORD_BYTES: Final = 7  # longer runs of letters cost by their length


def estimate_input_tokens(document: dict[str, Any]) -> float:
    """Of a request to the Messages API whose fields may be anything, for the older tokenizer."""
    return with_room(lambda: _count(document))


def scale_to_tokenizer(tokens: float, *, model: str) -> int:
    """For the tokenizer of `model`, an upstream name."""
    return round(tokens * (_NEWER_TOKENIZER if has_newer_tokenizer(model) else 1.0))


def _count(document: dict[str, Any]) -> float:
    texts = list(_system_texts(document.get("system")))
    tokens = _PER_REQUEST
    for message in document["messages"]:
        tokens += _PER_MESSAGE
        if isinstance(message, dict):
            texts += _content_texts(message.get("content"))
            tokens += _media_tokens(message.get("content"))
    tools = document.get("tools")
    if isinstance(tools, list) and tools:
        tokens += _PER_TOOL_USE
        texts += [_as_json(tool) for tool in tools]
    return tokens + estimate_text_tokens("\n".join(texts))


def estimate_text_tokens(text: str) -> float:
    """Of a plain text, for the older tokenizer."""
    raw = text.encode("utf-8", "replace")
    return sum(_slice_tokens(raw[at : at + _SLICE_BYTES]) for at in range(0, len(raw), _SLICE_BYTES))


def _slice_tokens(raw: bytes) -> float:
    words = _runs(raw, _LOWER)
    tokens = _letters(words) + _capitals(raw) + _digits(raw) + _punctuation(raw) + 0.48 * raw.count(b"\n")
    return tokens if raw.isascii() else tokens + _beyond_ascii(raw, words)


def has_newer_tokenizer(model: str) -> bool:
    if model.startswith("~anthropic/"):  # the newest of a family
        return True
    found = _VERSION.search(model)
    return found is not None and (int(found[1]), int(found[2] or 0)) >= _NEWER_FROM


# -- Weights ---------------------------------------------------------------------------------------------------------
def _only(characters: str) -> bytes:
    """For `bytes.translate`: everything else becomes a space."""
    kept = characters.encode()
    return bytes(byte if byte in kept else 32 for byte in range(256))


_LOWER: Final = _only(string.ascii_lowercase)
_UPPER: Final = _only(string.ascii_uppercase)
_DIGIT: Final = _only(string.digits)
_PUNCTUATION: Final = _only(string.punctuation)
_NOT_LEAD_BYTES: Final = bytes(range(0xC2))
_SCRIPTS: Final = (  # up to which lead byte, tokens per character
    (0xCF, 1.26),  # Greek
    (0xD4, 0.63),  # Cyrillic
    (0xDF, 1.10),  # Hebrew, Arabic
    (0xE1, 1.43),  # Indic scripts, Thai, and others that the tokenizer knows little of
    (0xE2, 1.0),  # typographic signs and symbols
    (0xE3, 1.0),  # Kana, CJK punctuation
    (0xE9, 1.06),  # Han
    (0xED, 1.37),  # Hangul
    (0xEF, 1.0),  # full-width forms
    (0xFF, 3.0),  # emoji
)
# A text with diacritics is in a language that the tokenizer knows less well than English: so many of its letters for
# each letter with a diacritic take more tokens.
_LAST_LATIN: Final = 0xCD
_LETTERS_PER_DIACRITIC: Final = 12
_MORE_PER_LETTER: Final = 0.29


def _runs(raw: bytes, kept: bytes) -> Counter[int]:
    """How many runs there are of each length."""
    return Counter(map(len, raw.translate(kept).split()))


def _letters(words: Counter[int]) -> float:
    tokens = 0.0
    for length, count in words.items():
        if length == 1:
            tokens += 1.39 * count
        elif length <= _WORD_BYTES:
            tokens += 0.98 * count
        else:
            tokens += (0.72 + 0.27 * (length - _WORD_BYTES)) * count
    return tokens


def _capitals(raw: bytes) -> float:
    """A single one mostly begins a word that is counted already."""
    runs = _runs(raw, _UPPER)
    return 0.23 * runs.pop(1, 0) + 0.57 * _thirds(runs)


def _digits(raw: bytes) -> float:
    return 1.07 * _thirds(_runs(raw, _DIGIT))


def _punctuation(raw: bytes) -> float:
    return sum((1.08 + 0.21 * (length - 1)) * count for length, count in _runs(raw, _PUNCTUATION).items())


def _thirds(runs: Counter[int]) -> int:
    return sum(count * ((length + 2) // 3) for length, count in runs.items())


def _beyond_ascii(raw: bytes, words: Counter[int]) -> float:
    lead_bytes = Counter(raw.translate(None, _NOT_LEAD_BYTES))
    diacritics = sum(count for byte, count in lead_bytes.items() if byte <= _LAST_LATIN)
    letters = sum(length * count for length, count in words.items())
    tokens = _MORE_PER_LETTER * min(_LETTERS_PER_DIACRITIC * diacritics, letters)
    for byte, count in lead_bytes.items():
        if byte > _LAST_LATIN:
            tokens += next(weight for last, weight in _SCRIPTS if byte <= last) * count
    return tokens


# -- What of a request is counted ------------------------------------------------------------------------------------
def _system_texts(system: object) -> Iterator[str]:
    if isinstance(system, str):
        yield system
    elif isinstance(system, list):
        yield from _content_texts(system)


def _content_texts(content: object) -> list[str]:
    """The texts of a message's content; thinking of earlier turns is not counted."""
    if isinstance(content, str):
        return [content]
    blocks = content if isinstance(content, list) else []
    return [text for block in blocks if isinstance(block, dict) for text in _block_texts(block)]


def _block_texts(block: dict[str, Any]) -> list[str]:
    match block.get("type"):
        case "text":
            text = block.get("text")
            return [text] if isinstance(text, str) else []
        case "thinking" | "redacted_thinking" | "image":
            return []
        case "tool_use":
            return [str(block.get("name", "")), _as_json(block.get("input"))]
        case "tool_result":
            return _content_texts(block.get("content"))
        case "document":
            return _document_texts(block)
    return [_as_json(block)]


def _document_texts(block: dict[str, Any]) -> list[str]:
    source = block.get("source")
    titles = [text for name in ("title", "context") if isinstance(text := block.get(name), str)]
    if not isinstance(source, dict):
        return titles
    if source.get("type") == "text" and isinstance(source.get("data"), str):
        return [*titles, source["data"]]
    return [*titles, *_content_texts(source.get("content"))]


def _media_tokens(content: object) -> int:
    """Of images and PDFs, also inside of tool results."""
    tokens = 0
    for block in content if isinstance(content, list) else ():
        if not isinstance(block, dict):
            continue
        if block.get("type") == "image":
            tokens += _PER_IMAGE
        elif block.get("type") == "document":
            tokens += _pdf_pages(block.get("source")) * _PER_PDF_PAGE
        elif block.get("type") == "tool_result":
            tokens += _media_tokens(block.get("content"))
    return tokens


def _pdf_pages(source: object) -> int:
    """One at least; pages that a PDF keeps in compressed objects are not seen. 0 for a document that is text."""
    if not isinstance(source, dict) or source.get("type") in ("text", "content"):
        return 0
    try:
        raw = base64.b64decode(source.get("data") or b"")
    except (binascii.Error, TypeError, ValueError):
        raw = b""
    return max(1, len(_PDF_PAGE.findall(raw)))


def _as_json(value: object) -> str:
    return dump(value).decode()
