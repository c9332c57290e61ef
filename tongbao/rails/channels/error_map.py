"""What a channel's error code means for the money: data in each channel's ``errors.toml``.

A code nobody has mapped is `Unknown`, is counted and is logged: never a guess.
"""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

import msgspec
import structlog
from msgspec import Struct
from prometheus_client import Counter

Call = Literal[
    "pay",
    "query",
    "close",
    "refund",
    "query_refund",
    "bill",
    "keys",
    "split",
    "query_split",
    "transfer",
    "query_transfer",
    "agreement",
    "registration",
    "query_registration",
]
Meaning = Literal[
    "declined", "unknown", "pending", "not_sent", "absent", "closed", "empty", "not_ready"
]

UNMAPPED: Final = Counter(
    "tongbao_channel_unmapped_codes_total",
    "Answers of a channel with a code that its error map does not know",
    ["channel", "call"],
)

_log = structlog.get_logger()
_CODE_SHOWN: Final = 64


class Entry(Struct, frozen=True, forbid_unknown_fields=True):
    """What one code means. Without ``on`` it means so for every call.

    ``ask``: believed only when a query right after does not say otherwise, because the code also
    appears when an earlier call of the same number went through.
    """

    code: str
    meaning: Meaning
    en: str
    zh: str
    on: frozenset[Call] = frozenset()
    retry_elsewhere: bool = False
    ask: bool = False


class CustomerText(Struct, frozen=True):
    """What to tell the person who pays."""

    en: str
    zh: str


class ErrorMap:
    """The codes of one channel."""

    def __init__(self, channel: str, entries: list[Entry]) -> None:
        self.channel = channel
        self.entries = tuple(entries)
        self._by_call: dict[tuple[str, str], Entry] = {}
        for entry in entries:
            for call in entry.on or {""}:
                if self._by_call.setdefault((call, entry.code), entry) is not entry:
                    raise ValueError(f"{channel}: {entry.code} is mapped twice for {call or 'all'}")

    def find(self, call: Call, *codes: str) -> Entry:
        """Return the meaning of the first of these codes that has one, most specific code first.

        Unmapped codes are counted and mean `Unknown`.
        """
        for code in codes:
            entry = self._by_call.get((call, code)) or self._by_call.get(("", code))
            if entry is not None:
                return entry
        shown = "/".join(code[:_CODE_SHOWN] for code in codes if code)
        UNMAPPED.labels(self.channel, call).inc()
        _log.warning("channel_code_unmapped", channel=self.channel, call=call, code=shown)
        return Entry(shown, "unknown", _NO_TEXT.en, _NO_TEXT.zh)

    def customer_text(self, code: str) -> CustomerText:
        """Return what to tell the customer about a code, in both languages."""
        for call in ("pay", "", "refund"):
            if entry := self._by_call.get((call, code)):
                return CustomerText(entry.en, entry.zh)
        return _NO_TEXT


_NO_TEXT: Final = CustomerText(
    "The payment could not be completed. Please use another way to pay.",
    "支付未完成，请更换支付方式。",
)


class _Table(Struct, forbid_unknown_fields=True):
    entry: list[Entry]


@lru_cache
def error_map(channel: str) -> ErrorMap:
    """Return the map in the channel's folder; a malformed one stops the program at its start."""
    table = tomllib.loads((Path(__file__).parent / channel / "errors.toml").read_text("utf-8"))
    return ErrorMap(channel, msgspec.convert(table, _Table).entry)
