"""The panel's pages as HTML: forms and nothing that runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from html import escape
from typing import Final

from msgspec import Struct

from tongbao.kernel.money import Money
from tongbao_sandbox.clock import plain
from tongbao_sandbox.magic import Magic
from tongbao_sandbox.model import Callback, Fault, PaymentCode, Trade
from tongbao_sandbox.panel import texts
from tongbao_sandbox.panel.matters import Matter
from tongbao_sandbox.panel.texts import Language, say

CODE_LIVES: Final = timedelta(seconds=60)
_GOOD: Final = frozenset({"paid", "done", "delivered", "SUCCESS", "SIGNED", "NORMAL", "ACSC"})
_BAD: Final = frozenset({"failed", "abnormal", "lost", "gave_up", "FAIL", "RJCT"})
_OPEN: Final = frozenset({"offered", "waiting", "asking", "processing", "queued"})


class Party(Struct, frozen=True):
    """One institution, as the overview shows it."""

    channel: str
    all_trades: int
    open_trades: int | None  # None: its transactions wait for no customer
    faults: int


class Look(Struct, frozen=True, kw_only=True):
    """What every page says besides its own."""

    language: Language
    parties: Sequence[str]
    now: datetime
    ahead_s: float
    at: str = ""  # the party whose page it is
    done: str = ""  # what was just done
    refusal: str | None = None  # why it was not

    def say(self, key: str, **facts: object) -> str:
        """Return a text, fit to stand in a page."""
        return escape(say(self.language, key, **facts))


class Desk(Struct, frozen=True, kw_only=True):
    """Everything about one institution that its page shows; None: it has no such thing."""

    trades: Sequence[Trade] | None
    counts: tuple[int, int]
    number: str  # how the listed trades' numbers begin
    most: int
    codes: Sequence[PaymentCode] | None
    callbacks: Sequence[Callback] | None
    is_holding: bool
    faults: Sequence[Fault]
    names: Mapping[str, Sequence[str]]  # of faults, by point
    day: str | None
    matters: Sequence[Matter]
    amounts: Sequence[Magic]
    tools: Sequence[str]


def overview(look: Look, parties: Sequence[Party]) -> str:
    """Return the first page: the parties and the clock."""
    items = "".join(
        f'<li><span class="what"><a href="/panel/{one.channel}">'
        f"{look.say(f'party.{one.channel}')}</a>"
        f'<span class="soft">'
        f"{_count(look, one)}</span></span>"
        + (_state(look, f"{look.say('faults')} {one.faults}", "bad") if one.faults else "")
        + "</li>"
        for one in parties
    )
    return _page(look, _section(look, "parties", f"<ul>{items}</ul>") + _clock(look))


def _count(look: Look, one: Party) -> str:
    if one.open_trades is None:
        return look.say("entries_count", all=one.all_trades)
    return look.say("trades_count", all=one.all_trades, open=one.open_trades)


def party(look: Look, desk: Desk) -> str:
    """Return an institution's page."""
    parts = [] if desk.trades is None else [_trades(look, desk.trades, desk)]
    if desk.codes is not None:
        parts.append(_codes(look, desk.codes))
    parts.append(_matters(look, "entries" if desk.trades is None else "matters", desk.matters))
    if desk.callbacks is not None:
        parts.append(_callbacks(look, desk.callbacks, is_holding=desk.is_holding))
    parts += [_faults(look, desk.faults, desk.names), _amounts(look, desk.amounts)]
    parts += [_bill(look, desk.day), _clock(look)]
    if desk.tools:
        forms = "".join(
            _form(look, "tool", _button(f"tool.{tool}", look, value=tool, name="tool"))
            for tool in desk.tools
        )
        parts.append(_section(look, "tools", forms))
    return _page(look, "".join(parts))


def bare(look: Look, key: str) -> str:
    """Return a page that says one thing."""
    return _page(look, f'<p role="alert">{look.say(key)}</p>')


# Sections -----------------------------------------------------------------------------------


def _trades(look: Look, trades: Sequence[Trade], desk: Desk) -> str:
    every, open_ = desk.counts
    listed = "".join(_trade(look, one) for one in trades)
    if not listed:
        listed = f"<p>{look.say('no_match' if desk.number else 'no_trades')}</p>"
    else:
        listed = f"<ul>{listed}</ul>"
    hint = look.say("trades_count", all=every, open=open_)
    if every > desk.most:
        hint = f"{hint} {look.say('newest', most=desk.most)}"
    find = (
        f'<form method="get" action="/panel/{look.at}"><label>{look.say("find")}'
        f'<input name="number" value="{escape(desk.number)}" maxlength="64"></label>'
        f"<button>{look.say('search')}</button></form>"
        if every
        else ""
    )
    return _section(look, "trades", f"<p>{hint}</p>{find}{listed}")


def _trade(look: Look, trade: Trade) -> str:
    is_open = trade.state in {"offered", "waiting", "asking"} and (
        trade.expires_at > look.now or bool(trade.extra.get("held"))
    )
    number = f'<input type="hidden" name="number" value="{escape(trade.number)}">'
    buttons = "".join(
        _button(action, look, value=action, is_main=action == "pay")
        for action in ("pay", "decline", "abandon")
    )
    form = _form(look, "trade", number + buttons) if is_open else ""
    money = Money(trade.amount, trade.currency).decimal_text()
    about = f"{plain(trade.created_at)} · {say(look.language, f'mode.{trade.mode}')}"
    about = f"{about} · {trade.subject}"
    return _item(look, trade.number, about, f"{trade.currency} {money}", trade.state, form=form)


def _codes(look: Look, codes: Sequence[PaymentCode]) -> str:
    behaviours = ("pay", "ask", "ask_then_pay", "ask_forever", "decline", "cancel")
    options = "".join(
        f'<option value="{one}">{look.say(f"behaviour.{one}")}</option>' for one in behaviours
    )
    form = _form(
        look,
        "code",
        f'<label>{look.say("behaviour")}<select name="behaviour">{options}</select></label>'
        f"<button>{look.say('make_code')}</button>",
    )
    items = "".join(
        _item(look, one.code, say(look.language, f"behaviour.{one.behaviour}"), "", _age(look, one))
        for one in codes
    )
    listed = f"<ul>{items}</ul>" if items else f"<p>{look.say('no_codes')}</p>"
    return _section(look, "codes", f"<p>{look.say('codes_hint')}</p>{form}{listed}")


def _age(look: Look, code: PaymentCode) -> str:
    if code.used_for:
        return say(look.language, "code_used", number=code.used_for)
    is_old = code.made_at + CODE_LIVES <= look.now
    return say(look.language, "code_old" if is_old else "code_fresh")


def _callbacks(look: Look, callbacks: Sequence[Callback], *, is_holding: bool) -> str:
    switch = _form(
        look,
        "hold",
        _button("release" if is_holding else "hold", look, value=str(int(not is_holding))),
    )
    hint = look.say("is_holding" if is_holding else "is_not_holding")
    items = "".join(_callback(look, one) for one in callbacks)
    listed = f"<ul>{items}</ul>" if items else f"<p>{look.say('no_callbacks')}</p>"
    return _section(look, "callbacks", f"<p>{hint}</p>{switch}{listed}")


def _callback(look: Look, one: Callback) -> str:
    waits = one.state == "waiting"
    kind = say(look.language, f"about.{one.kind}")
    words = [kind, plain(one.made_at), say(look.language, "tries", tries=one.tries)]
    if one.next_at is not None:
        words.append(say(look.language, "next_try", at=plain(one.next_at)))
    elif waits:
        words.append(say(look.language, "held"))
    if one.variant != "genuine":
        words.append(say(look.language, f"variant.{one.variant}"))
    changes = ("send", "double", "late", "lose") if waits else ("again", "double")
    ways = {"send": "resend", "again": "resend"}
    buttons = "".join(
        _button(change, look, value=ways.get(change, change), name="change") for change in changes
    )
    form = _form(look, "callback", f'<input type="hidden" name="id" value="{one.id}">{buttons}')
    state = "queued" if waits else one.state
    return _item(look, one.number or kind, " · ".join(words), "", state, form=form)


def _faults(look: Look, faults: Sequence[Fault], names: Mapping[str, Sequence[str]]) -> str:
    items = "".join(_fault(look, one) for one in faults)
    listed = f"<ul>{items}</ul>" if items else f"<p>{look.say('no_faults')}</p>"
    groups = "".join(
        f'<optgroup label="{escape(texts.point(look.language, on))}">'
        + "".join(
            f'<option value="{on}:{name}">{escape(texts.fault(look.language, name))}</option>'
            for name in those
        )
        + "</optgroup>"
        for on, those in names.items()
    )
    form = _form(
        look,
        "fault",
        f'<label>{look.say("what_fails")}<select name="what">{groups}</select></label>'
        f'<label>{look.say("argument")}<input name="argument" maxlength="32"></label>'
        f'<label>{look.say("for_number")}<input name="number" maxlength="64"></label>'
        f'<label>{look.say("times")}<input type="number" name="times" value="1" min="-1"></label>'
        f"<button>{look.say('arm')}</button>",
    )
    return _section(look, "faults", listed + form)


def _fault(look: Look, one: Fault) -> str:
    words = f"{texts.point(look.language, one.on)}: {texts.fault(look.language, one.name)}"
    if one.argument:
        words = f"{words} ({one.argument})"
    left = "always" if one.left < 0 else "left"
    state = say(look.language, left, left=one.left)
    hidden = f'<input type="hidden" name="id" value="{one.id}">'
    form = _form(look, "disarm", hidden + f"<button>{look.say('disarm')}</button>")
    about = one.number or say(look.language, "any_number")
    return _item(look, words, about, "", state, form=form)


def _amounts(look: Look, amounts: Sequence[Magic]) -> str:
    items = "".join(_amount(look, one) for one in amounts)
    return _section(look, "amounts", f"<p>{look.say('amounts_hint')}</p><ul>{items}</ul>")


def _amount(look: Look, one: Magic) -> str:
    name, _, argument = one.fault.partition(":")
    words = f"{texts.point(look.language, one.on)}: {texts.fault(look.language, name)}"
    words = f"{words} ({argument})" if argument else words
    money = Money(one.fen, "CNY").decimal_text()
    return (
        f'<li><span class="what">{escape(words)}</span><span class="amount">CNY {money}</span></li>'
    )


def _bill(look: Look, day: str | None) -> str:
    if day is None:
        return _section(look, "bill", f"<p>{look.say('no_bill')}</p>")
    form = _form(
        look,
        "bill",
        f'<label>{look.say("bill_day")}<input type="date" name="day" value="{day}" max="{day}"'
        f" required></label><button>{look.say('make_bill')}</button>",
    )
    return _section(look, "bill", f"<p>{look.say('bill_hint')}</p>{form}")


def _matters(look: Look, title: str, matters: Sequence[Matter]) -> str:
    items = "".join(_matter(look, one) for one in matters)
    listed = f"<ul>{items}</ul>" if items else f"<p>{look.say(f'no_{title}')}</p>"
    return _section(look, title, listed)


def _matter(look: Look, one: Matter) -> str:
    money = "" if one.amount is None else f"CNY {Money(one.amount, 'CNY').decimal_text()}"
    about = say(look.language, f"kind.{one.kind}")
    if one.at is not None:
        about = f"{about} · {plain(one.at)}"
    form = ""
    if one.choices:
        hidden = (
            f'<input type="hidden" name="kind" value="{escape(one.kind)}">'
            f'<input type="hidden" name="number" value="{escape(one.number)}">'
        )
        buttons = "".join(
            _button(f"choice.{choice}", look, value=choice, name="choice") for choice in one.choices
        )
        form = _form(look, "matter", hidden + buttons)
    return _item(look, one.number, about, money, one.state, form=form)


def _clock(look: Look) -> str:
    says = look.say("clock_says", now=plain(look.now), ahead=f"{look.ahead_s:.0f}")
    quick = "".join(
        _button(key, look, value=str(seconds), name="advance_s")
        for key, seconds in (("minute", 60), ("hour", 3600), ("day", 86400))
    )
    own = (
        f'<label>{look.say("seconds")}<input type="number" name="advance_s" min="0" step="any"'
        f' value="10" required></label><button>{look.say("forward")}</button>'
    )
    hint = f"<p>{says} {look.say('clock_hint')}</p>"
    return _section(look, "clock", hint + _form(look, "clock", quick) + _form(look, "clock", own))


# Parts --------------------------------------------------------------------------------------


def _page(look: Look, content: str) -> str:
    title = look.say("title")
    if look.at:
        title = f"{look.say(f'party.{look.at}')} · {title}"
    told = ""
    if look.done:
        told = f'<p role="status">{look.say(f"did.{look.done}")}</p>'
    if look.refusal is not None:
        told = f'<p role="alert">{look.say("refused")} <code>{escape(look.refusal)}</code></p>'
    here = f"/panel/{look.at}" if look.at else "/panel"
    other = "zh" if look.language == "en" else "en"
    links = [("/panel", "all_parties", "")]
    links += [(f"/panel/{one}", f"party.{one}", one) for one in look.parties]
    nav = "".join(
        f'<a href="{href}"{" aria-current=page" if key == look.at else ""}>{look.say(text)}</a>'
        for href, text, key in links
    )
    return (
        f'<!doctype html><html lang="{"zh-CN" if look.language == "zh" else "en"}">'
        '<head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{title}</title><link rel="stylesheet" href="/panel/panel.css"></head>'
        f"<body><header><h1>{title}</h1><p>{look.say('intro')}</p><nav>{nav}"
        f'<a href="{here}">{look.say("refresh")}</a>'
        f'<a href="{here}?lang={other}" lang="{other}">{look.say("other_language")}</a></nav>'
        f"</header><main>{told}{content}</main></body></html>"
    )


def _section(look: Look, key: str, content: str) -> str:
    return f'<section id="{key}"><h2>{look.say(key)}</h2>{content}</section>'


def _form(look: Look, action: str, content: str) -> str:
    where = f"/panel/{look.at}/{action}" if look.at else f"/panel/{action}"
    return f'<form method="post" action="{where}">{content}</form>'


def _button(
    key: str, look: Look, *, value: str, name: str = "action", is_main: bool = False
) -> str:
    shown = ' class="main"' if is_main else ""
    return f'<button name="{name}" value="{escape(value)}"{shown}>{look.say(key)}</button>'


def _item(look: Look, number: str, about: str, money: str, state: str, *, form: str = "") -> str:
    kind = "good" if state in _GOOD else "bad" if state in _BAD else ""
    kind = "open" if state in _OPEN else kind
    amount = f'<span class="amount">{escape(money)}</span>' if money else ""
    return (
        f'<li><span class="what"><span class="number">{escape(number)}</span>'
        f'<span class="soft">{escape(about)}</span></span>{amount}'
        f"{_state(look, state, kind)}{form}</li>"
    )


def _state(look: Look, state: str, kind: str) -> str:
    text = say(look.language, f"state.{state}")
    return f'<span class="state {kind}">{escape(text)}</span>'
