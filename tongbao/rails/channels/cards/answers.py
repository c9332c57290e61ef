"""What a card host's answer means for the money; it has a good MAC when it comes here."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.codecs.iso8583 import FieldMalformed, Message
from tongbao.kernel.codecs.iso8583_parts import read_balances
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.payers import BalanceKnown
from tongbao.rails.channels.cards.messages import Trace
from tongbao.rails.channels.cards.totals import read_totals
from tongbao.rails.channels.contract.bills import BatchTotals, TotalsAgree, TotalsDiffer
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Authorised,
    Closed,
    Declined,
    NotSent,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.error_map import Call, error_map

APPROVED: Final = frozenset({"00", "11", "16"})
"""Done, done for a customer of rank, done with news for track 3. 10, done in part, is not asked
for and not taken: its amount differs, so it is reversed."""
ORIGINAL_NOT_FOUND: Final = "25"
CARD_NUMBER: Final = "card"
_ECHOED: Final = (3, 7, 25, 32, 33, 90)
"""Compared where the host repeats them; trace, terminal, merchant and reference have been."""

_ERRORS: Final = error_map("cards")


def taken(
    asked: Message, answer: Message, trace: Trace, money: Money, call: Call = "pay"
) -> Succeeded | Declined | Unknown:
    """Return whether the money moved."""
    code = answer.text(39)
    if difference := _differs(asked, answer, is_approved=code in APPROVED):
        return Unknown(f"contradiction: {difference}")
    if code in APPROVED:
        return Succeeded(trace.reference, money, _moment(answer, trace))
    return _refused(code, call)


def set_aside(
    asked: Message, answer: Message, trace: Trace, money: Money
) -> Authorised | Declined | Unknown:
    """Return whether the money was set aside."""
    outcome = taken(asked, answer, trace, money)
    if not isinstance(outcome, Succeeded):
        return outcome
    code = answer.text(38).strip()
    if not code:
        return Unknown("approved without an authorisation code, which a capture must name")
    return Authorised(trace.reference, money, outcome.at, code=code)


def reversed_by(asked: Message, answer: Message) -> Closed | Absent | Unknown:
    """Return whether what was to be undone is undone, or was never known there."""
    code = answer.text(39)
    if difference := _differs(asked, answer, is_approved=code in APPROVED):
        return Unknown(f"contradiction: {difference}")
    if code in APPROVED:
        return Closed(code)
    if code == ORIGINAL_NOT_FOUND:
        # True at this moment; the original may still be on its way. The caller waits it out.
        return Absent(code)
    return Unknown(f"not reversed: {code}")


def cancelled(asked: Message, answer: Message) -> Closed | Declined | Unknown:
    """Return whether a cancellation was accepted."""
    code = answer.text(39)
    if difference := _differs(asked, answer, is_approved=code in APPROVED):
        return Unknown(f"contradiction: {difference}")
    return Closed(code) if code in APPROVED else _refused(code, "refund")


def balance(asked: Message, answer: Message) -> BalanceKnown | Declined | Unknown:
    """Return what the card has."""
    code = answer.text(39)
    if code not in APPROVED:
        return _refused(code, "pay")
    if difference := _differs(asked, answer, is_approved=False):
        return Unknown(f"contradiction: {difference}")
    try:
        return BalanceKnown(tuple(read_balances(answer.text(54))))
    except FieldMalformed:
        return Unknown("the balances cannot be read")


def compared(answer: Message, ours: BatchTotals) -> TotalsAgree | TotalsDiffer | Unknown:
    """Return whether the host has our figures; its word alone is not enough for a yes."""
    code = answer.text(39)
    read = read_totals(answer.text(48))
    if code not in APPROVED or read is None:
        return Unknown(f"no totals: {code}")
    theirs, verdict = read
    if verdict == "agree" and theirs == ours:
        return TotalsAgree()
    if verdict == "differ" or (verdict == "agree" and theirs != ours):
        return TotalsDiffer(theirs if theirs != ours else None)
    return Unknown(f"no totals: {verdict}")


def refused_at_the_door(answer: NotSent | Unknown) -> Unknown:
    """Return what a question means that never left: nothing is known."""
    return Unknown(answer.reason)


def _refused(code: str, call: Call) -> Declined | Unknown:
    entry = _ERRORS.find(call, code)
    if entry.meaning == "declined":
        return Declined(code, entry.en, retry_elsewhere=entry.retry_elsewhere)
    return Unknown(f"response {code}")


def _differs(asked: Message, answer: Message, *, is_approved: bool) -> str | None:
    """Return the first field in which the answer contradicts what was asked."""
    for number in _ECHOED:
        if answer.text(number) and asked.text(number) != answer.text(number):
            return f"field {number}"
    if answer.text(2) and asked.text(2) and asked.text(2) != answer.text(2):
        return CARD_NUMBER
    for number, name in ((4, "amount"), (49, "currency")):
        given = answer.text(number)
        if given != asked.text(number) and (given or is_approved):
            return name
    return None


def _moment(answer: Message, trace: Trace) -> datetime:
    """Return the host's time of the transaction; it has no year, so the nearest to ours is meant.

    A host that gives none leaves the time we gave it.
    """
    day, hour = answer.text(13), answer.text(12)
    ours = trace.at.astimezone(BUSINESS_ZONE)
    found = [
        moment
        for year in (ours.year - 1, ours.year, ours.year + 1)
        if (moment := _read_moment(f"{year:04d}{day}{hour}")) is not None
    ]
    if not found:
        return trace.at
    nearest = min(found, key=lambda moment: abs(moment - ours))
    return nearest.astimezone(trace.at.tzinfo) if abs(nearest - ours) < _NEAR else trace.at


_NEAR: Final = timedelta(days=7)


def _read_moment(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y%m%d%H%M%S").replace(tzinfo=BUSINESS_ZONE)
    except ValueError:
        return None
