"""Propose layouts and rules from a day on, and say which count on a day."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Collection, Sequence
from contextlib import suppress
from datetime import date
from functools import cache
from importlib import resources

import msgspec
from msgspec import Struct

from tongbao.clearing.matching.model import Pass, Rule, load_rule, parts_of, problem_of
from tongbao.clearing.recon_rules import _store as store
from tongbao.clearing.recon_rules.model import (
    SET_LAYOUT,
    SET_RULE,
    DatedRule,
    LayoutTerms,
    RuleMoved,
    RuleTerms,
    RuleUnchanged,
    RuleUnknown,
    digest_of,
)
from tongbao.clearing.sources.ingest import (
    add_source,
    layout_on,
    set_layout,
    source_named,
)
from tongbao.clearing.sources.layouts import decode_layout, load_layout
from tongbao.clearing.sources.model import NAME, Layout, LayoutWrong, SourceUnknown
from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Approval, Bound, Change
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.kernel.licence import Mode


class Asked(Struct, frozen=True):
    """What somebody wants from a day on, and why; ``may`` are their permissions."""

    written: str
    valid_from: date
    reason: str
    may: Collection[str] | None = None


async def propose_layout(
    tx: Tx, source: str, asked: Asked, *, layout: Layout | None = None, mode: Mode = Mode.LIVE
) -> Approval:
    """Propose how a source's files are read from a day on; a source that is new begins with it.

    ``layout`` is one that came with the program, instead of what is written.

    Raises:
        LayoutWrong, RuleUnchanged, MakerNotAllowed, ReasonTooShort, TermsTooLarge, ApprovalWaiting
    """
    if not re.fullmatch(NAME, source):
        raise LayoutWrong(problem="the source's name")
    found = layout or load_layout(asked.written.encode())
    with suppress(SourceUnknown):
        mode = (await source_named(tx, source)).mode
    text = msgspec.json.encode(found, order="sorted").decode()
    now = await _layout_text(tx, source, asked.valid_from)
    if text == now:
        raise RuleUnchanged(source=source)
    terms = LayoutTerms(source, mode, asked.valid_from, text, asked.written, digest_of(now))
    return await propose(
        tx, SET_LAYOUT, source, terms, reason=asked.reason, may=asked.may, mode=mode
    )


async def propose_rule(tx: Tx, asked: Asked, *, ends: str = "") -> Approval:
    """Propose a rule from a day on; ``ends`` names one that is to match nothing any more.

    Raises:
        RuleWrong, RuleUnknown, RuleUnchanged, MakerNotAllowed, ReasonTooShort, TermsTooLarge,
        ApprovalWaiting
    """
    name, text = ends, ""
    if not ends:
        rule = load_rule(asked.written.encode())
        name, text = rule.name, msgspec.json.encode(rule, order="sorted").decode()
    dated = await store.RULE_ON.first(tx, name, asked.valid_from)
    now = "" if dated is None else dated.rule
    if ends and not now:
        raise RuleUnknown(name=name[:64])
    if text == now:
        raise RuleUnchanged(name=name)
    terms = RuleTerms(name, asked.valid_from, text, asked.written, digest_of(now))
    return await propose(tx, SET_RULE, name, terms, reason=asked.reason, may=asked.may)


async def begin_built_in(
    tx: Tx, bill: str, source: str, account: str, day: date, *, may_hold_funds: bool = True
) -> None:
    """Begin the rule that comes with the program for an account's bills, if there is one.

    A name that was ever a rule's is left alone: what people made of it counts. What is compared by
    default needs no two people; to compare otherwise, or no more, does. Who may not hold funds has
    no transfers that could be compared.
    """
    rule = _built_in(bill, source, account, may_hold_funds=may_hold_funds)
    if rule is None or await store.RULE_ON.first(tx, rule.name, date.max) is not None:
        return
    text = msgspec.json.encode(rule, order="sorted").decode()
    if await store.ADD_BUILT_IN.run(tx, rule.name, day, tx.now, text, _written(rule)):
        facts = {"from": day.isoformat(), "digest": digest_of(text)}
        await audit.record(tx, "matching.rule_begun", rule.name, {**facts})


def _built_in(bill: str, source: str, account: str, *, may_hold_funds: bool) -> Rule | None:
    form = _forms().get(bill)
    parts = [] if form is None else parts_of(form.left)
    sides = [part for part in parts if may_hold_funds or not part.startswith("transfers")]
    if form is None or not sides:
        return None
    rule = Rule(
        name=f"{bill.replace('.', '_')}_{account}",
        en=form.en,
        zh=form.zh,
        left=" + ".join(sides).replace("{account}", account),
        right=f"source:{source}",
        passes=form.passes,
        ignores=form.ignores,
    )
    if problem := problem_of(rule):
        raise ValueError(f"{bill}: {problem}")
    return rule


def _written(rule: Rule) -> str:
    """Return a rule as somebody might have written it, for those who want another."""
    named = ("name", "en", "zh", "left", "right", *(("ignores",) if rule.ignores else ()))
    lines = [f"{name} = {_toml(getattr(rule, name))}" for name in named]
    for each in rule.passes:
        lines += ["", "[[passes]]", f"left = {_toml(each.left)}", f"right = {_toml(each.right)}"]
        lines += ["many = true"] if each.many else []
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    return msgspec.json.encode(value).decode()  # strings and lists of them are alike in both


class _Form(Struct, frozen=True, forbid_unknown_fields=True):
    """A rule as it comes with the program, before it is an account's."""

    bill: str
    en: str
    zh: str
    left: str
    passes: tuple[Pass, ...]
    ignores: tuple[str, ...] = ()


@cache
def _forms() -> dict[str, _Form]:
    text = resources.files(__package__).joinpath("rules.toml").read_text("utf-8")
    found = msgspec.convert(tomllib.loads(text)["rule"], list[_Form])
    return {each.bill: each for each in found}


async def rules_on(on: Db | Tx, day: date) -> list[Rule]:
    """Return the rules that count on a day, by name."""
    return [decode_rule(each.rule) for each in await store.RULES_ON.all(on, day) if each.rule]


async def rule_on(on: Db | Tx, name: str, day: date) -> Rule:
    """Return a rule as it counts on a day.

    Raises:
        RuleUnknown
    """
    found = await store.RULE_ON.first(on, name, day)
    if found is None or not found.rule:
        raise RuleUnknown(name=name[:64], day=day.isoformat())
    return decode_rule(found.rule)


async def versions_of_rule(on: Db | Tx, name: str) -> list[DatedRule]:
    """Return what was ever said of a rule, the latest day first."""
    return await store.VERSIONS.all(on, name)


def decode_rule(text: str) -> Rule:
    """Return a rule as it is kept."""
    return msgspec.json.decode(text, type=Rule)


def bound(db: Db) -> tuple[Bound, ...]:
    """Return the acts of layouts and rules, for the registry."""
    return (
        Bound(SET_LAYOUT, in_transaction(db, _set_layout), _show_layout,
              link=lambda approval: f"/sources/{approval.subject}"),
        Bound(SET_RULE, in_transaction(db, _set_rule), _show_rule,
              link=lambda approval: f"/matching/{approval.subject}"),
    )  # fmt: skip


async def _layout_text(on: Db | Tx, source: str, day: date) -> str:
    try:
        return await layout_on(on, await source_named(on, source), day)
    except SourceUnknown:
        return ""


async def _set_layout(tx: Tx, approval: Approval, terms: LayoutTerms) -> None:
    """Add the layout.

    Raises:
        RuleMoved, LayoutWrong, SourceTaken
    """
    now = await _layout_text(tx, terms.source, terms.valid_from)
    if digest_of(now) != terms.replaces:
        raise RuleMoved(source=terms.source)
    if not now:
        await add_source(tx, terms.source, decode_layout(terms.layout), terms.mode)
    await set_layout(
        tx,
        terms.source,
        terms.valid_from,
        layout=terms.layout,
        written=terms.written,
        approved_as=approval.shown_id,
    )
    facts = {"from": terms.valid_from.isoformat(), "digest": digest_of(terms.layout)}
    await audit.record(tx, "source.layout_set", terms.source, {**facts})


async def _set_rule(tx: Tx, approval: Approval, terms: RuleTerms) -> None:
    """Add the rule.

    Raises:
        RuleMoved
    """
    found = await store.RULE_ON.first(tx, terms.name, terms.valid_from)
    if digest_of("" if found is None else found.rule) != terms.replaces:
        raise RuleMoved(name=terms.name)
    row = (terms.name, terms.valid_from, tx.now, terms.rule, terms.written, approval.shown_id)
    await store.ADD_RULE.run(tx, *row)
    facts = {"from": terms.valid_from.isoformat(), "digest": digest_of(terms.rule)}
    await audit.record(tx, "matching.rule_set", terms.name, {**facts})


async def _show_layout(db: Db, _approval: Approval, terms: LayoutTerms) -> Sequence[Change]:
    now = await _layout_text(db, terms.source, terms.valid_from)
    return [
        Change("From", "生效日", None, terms.valid_from.isoformat()),
        Change("Source", "来源", None, f"{terms.source} ({terms.mode})"),
        Change("Layout", "版式", now or None, terms.layout),
    ]


async def _show_rule(db: Db, _approval: Approval, terms: RuleTerms) -> Sequence[Change]:
    found = await store.RULE_ON.first(db, terms.name, terms.valid_from)
    now = None if found is None or not found.rule else found.rule
    return [
        Change("From", "生效日", None, terms.valid_from.isoformat()),
        Change("Rule", "规则", now, terms.rule or "—"),
    ]
