"""Terminals in the console: the list, one of them, and what may be done to it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.approvals import propose
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid
from tongbao.kernel.ids import parse, show
from tongbao.kernel.money import from_decimal_text, positive
from tongbao.parties.identity.model import Permission
from tongbao.parties.merchants.queries import merchant_with_id, merchants_with_ids
from tongbao.parties.terminals import inventory
from tongbao.parties.terminals.inventory import TerminalFilter
from tongbao.parties.terminals.limits import CAPS, CapsTerms, meter_of
from tongbao.parties.terminals.model import (
    MOVES,
    PREFIX,
    Meter,
    Terminal,
    TerminalNotFound,
    TerminalState,
)
from tongbao.parties.terminals.parameters import roll_back, versions_of
from tongbao.payments.terminal_notices.notices import latest_notices
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import PREFIX as CONSOLE
from tongbao.surfaces.operator_console.visit import Route, Visit, mode_of
from tongbao.surfaces.page_kit.replies import Reply, redirect

_ROWS: Final = 50
_COUNT_MAX: Final = 1_000_000


class TerminalFormWrong(Invalid):
    """A field of the form, or of the address, says nothing that can be done."""

    code = "console.terminal_form_wrong"
    advice = "Choose one of the values offered; amounts are like 500.00."
    advice_zh = "请选择页面提供的选项；金额格式如 500.00。"


class Chosen(Struct, frozen=True):
    """What the visitor asked the list for, as it stands in the form again."""

    q: str = ""
    status: str = ""
    mode: str = ""
    merchant: str = ""
    offline: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether everything is shown."""
        return self == Chosen()

    def wanted(self) -> TerminalFilter:
        """Return it as a filter.

        Raises:
            TerminalFormWrong, UnknownId
        """
        if self.status and self.status not in set(TerminalState):
            raise TerminalFormWrong(param="status")
        return TerminalFilter(
            merchant_id=parse("mch", self.merchant) if self.merchant else None,
            mode=mode_of(self.mode),
            state=TerminalState(self.status) if self.status else None,
            serial=self.q.upper() or None,
            only_offline=bool(self.offline),
        )


async def show_terminals(visit: Visit) -> Reply:
    """Return the list, filtered, the newest first.

    Raises:
        TerminalFormWrong, UnknownId, CursorInvalid
    """
    query, db = visit.request.query, visit.desk.db
    given = {name: query.get(name, "").strip()[:64] for name in Chosen.__struct_fields__}
    chosen, now, cursor = Chosen(**given), db.clock.now(), query.get("cursor")
    page = await inventory.list_terminals(db, chosen.wanted(), now=now, cursor=cursor, limit=_ROWS)
    beats = await inventory.heartbeats_of(db, page.items)
    owners = [each.merchant_id for each in page.items if each.merchant_id is not None]
    names = {each.id: each.name for each in (await merchants_with_ids(db, owners)).values()}
    facts = {
        "chosen": chosen,
        "states": list(TerminalState),
        "rows": [
            (show(PREFIX, each.id), each, _name(names, each), beats.get(each.id))
            for each in page.items
        ],
        "cursor": cursor,
        "next_cursor": page.next_cursor,
    }
    return await visit.page("terminals.html", facts)


async def show_terminal(visit: Visit) -> Reply:
    """Return one terminal: where it is, how it fares, what it is to do and may take.

    Raises:
        UnknownId, TerminalNotFound
    """
    db, terminal = visit.desk.db, await _terminal(visit)
    beats = await inventory.heartbeats_of(db, [terminal])
    owner, meter = None, None
    if terminal.merchant_id is not None and terminal.mode is not None:
        owner = await merchant_with_id(db, terminal.merchant_id)
        meter = await meter_of(db, owner.book(terminal.mode), terminal.id)
    now = db.clock.now()
    facts = {
        "id": show(PREFIX, terminal.id),
        "terminal": terminal,
        "owner": owner,
        "beat": beats.get(terminal.id),
        "bindings": await inventory.bindings_of(db, terminal.id),
        "versions": await versions_of(db, terminal.id),
        "meter": meter,
        "used": _used(meter, visit),
        "notices": await latest_notices(db, terminal),
        "moves": [] if terminal.state is TerminalState.STOCK else _moves(terminal),
        "now_at": now,
        "done": visit.request.query.get("done"),
    }
    return await visit.page("terminal.html", facts)


async def move_one(visit: Visit) -> Reply:
    """Suspend, resume, take back, retire, or write a terminal off as stolen.

    Raises:
        UnknownId, TerminalNotFound, TerminalStateWrong, TerminalFormWrong
    """
    form, terminal = visit.request.form, await _terminal(visit)
    if form.get("to") not in set(TerminalState) or not form.get("because", "").strip():
        raise TerminalFormWrong(param="to")
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        to, because = TerminalState(form["to"]), form["because"].strip()[:200]
        await inventory.move_terminal(tx, terminal.id, to, because=because)
    return _back(terminal, "moved")


async def assign_one(visit: Visit) -> Reply:
    """Give a terminal of the stock to a merchant.

    Raises:
        UnknownId, TerminalNotFound, TerminalStateWrong, MerchantNotFound, TerminalFormWrong
    """
    form, terminal = visit.request.form, await _terminal(visit)
    mode = mode_of(form.get("mode"))
    if mode is None:
        raise TerminalFormWrong(param="mode")
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        merchant = await merchant_with_id(tx, parse("mch", form.get("merchant", "").strip()))
        await inventory.assign_terminal(tx, terminal.id, merchant, mode)
    return _back(terminal, "assigned")


async def roll_back_one(visit: Visit) -> Reply:
    """Give a terminal back what an old version of its parameters said.

    Raises:
        UnknownId, TerminalNotFound, ParametersVersionUnknown, TerminalFormWrong
    """
    terminal, version = await _terminal(visit), visit.request.form.get("version", "")
    if not version.isascii() or not version.isdecimal() or len(version) > 9:
        raise TerminalFormWrong(param="version")
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        await roll_back(tx, terminal.id, int(version))
    return _back(terminal, "rolled_back")


async def propose_caps(visit: Visit) -> Reply:
    """Propose what the platform lets a terminal take at most.

    Raises:
        UnknownId, TerminalNotFound, TerminalFormWrong, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting, AmountOutOfRange, UnknownCurrency
    """
    form, terminal = visit.request.form, await _terminal(visit)
    if terminal.merchant_id is None:
        raise TerminalNotFound
    currency, count = form.get("currency", "CNY"), form.get("count", "").strip()
    if count and not (count.isascii() and count.isdecimal() and 0 < int(count[:9]) <= _COUNT_MAX):
        raise TerminalFormWrong(param="count")

    def amount(name: str) -> int | None:
        text = form.get(name, "").strip()
        if not text:
            return None
        return positive(from_decimal_text(text, currency).amount, currency).amount

    terms = CapsTerms(
        show(PREFIX, terminal.id),
        terminal.serial_number,
        currency,
        amount("each"),
        int(count) if count else None,
        amount("amount"),
    )
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        approval = await propose(
            tx,
            CAPS,
            terms.terminal,
            terms,
            reason=form.get("reason", ""),
            merchant_id=terminal.merchant_id,
            mode=terminal.mode,
            may=permissions_of(visit),
        )
    return proposed(approval)


_VIEW: Final = Permission.VIEW
_ACT: Final = Permission.TERMINALS_ACT
ROUTES: Final = (
    Route("GET", "/terminals", show_terminals, _VIEW),
    Route("GET", "/terminals/{terminal_id}", show_terminal, _VIEW),
    Route("POST", "/terminals/{terminal_id}/move", move_one, _ACT),
    Route("POST", "/terminals/{terminal_id}/assign", assign_one, _ACT),
    Route("POST", "/terminals/{terminal_id}/roll-back", roll_back_one, _ACT),
    Route("POST", "/terminals/{terminal_id}/caps", propose_caps, _ACT),
)


async def _terminal(visit: Visit) -> Terminal:
    wanted = parse(PREFIX, visit.params["terminal_id"])
    return await inventory.terminal_with_id(visit.desk.db, wanted)


def _name(names: Mapping[UUID, str], terminal: Terminal) -> str | None:
    return None if terminal.merchant_id is None else names.get(terminal.merchant_id)


def _moves(terminal: Terminal) -> list[TerminalState]:
    return sorted(MOVES[terminal.state])


def _used(meter: Meter | None, visit: Visit) -> tuple[int, int]:
    today = business_date(visit.desk.db.clock.now())
    return (0, 0) if meter is None else meter.used_at(today)


def _back(terminal: Terminal, done: str) -> Reply:
    return redirect(f"{CONSOLE}/terminals/{show(PREFIX, terminal.id)}?done={done}")
