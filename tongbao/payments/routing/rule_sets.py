"""Versions of a mode's rules: drawn up by one person, put in force by another.

    draft ──another person──► active, from a moment on until the next one's
      └──────────────────────► withdrawn

Of the drafts of a mode one may stand in the shadow: it is asked beside the rules in force, and its
answers are only counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.changes import ALL, mark
from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import Busy, Conflict, Forbidden, NotFound, Rejected
from tongbao.kernel.ids import new_id, show
from tongbao.payments.routing import _store as store
from tongbao.payments.routing.model import RoutingRuleSet, RuleSetState
from tongbao.payments.routing.rules import check_targets, read_rules
from tongbao.rails.channels.accounts import list_accounts

RULE_SET_PREFIX: Final = "rrs"
RULES: Final = "routing_rules"
"""The kind of the mark of all rules together."""
_TRIES_MAX: Final = 5


class RuleSetUnknown(NotFound):
    """There is no such rule set."""

    code = "routing.rule_set_unknown"
    advice = "List them with tongbao routing list."
    advice_zh = "请使用 tongbao routing list 查找规则集标识。"


class RuleSetDecided(Conflict):
    """The rule set is no draft any more; what was decided about it stands."""

    code = "routing.rule_set_decided"
    advice = "Draw up a new draft."
    advice_zh = "该规则集已生效或撤回，请提交新的草案。"


class RuleSetOwnDraft(Forbidden):
    """Whoever drew a rule set up cannot put it in force."""

    code = "routing.own_draft"
    advice = "Have another person activate it."
    advice_zh = "起草人不能启用自己的规则集，请由另一名人员启用。"


class StartInThePast(Rejected):
    """Rules begin now or later: what was decided stays as it was."""

    code = "routing.start_in_the_past"
    advice = "Leave --from out to begin at once, or name a later moment."
    advice_zh = "生效时间不得早于当前时间；省略 --from 即立即生效。"


class StartTaken(Conflict):
    """Another rule set of the mode begins at the same moment."""

    code = "routing.start_taken"
    advice = "Choose another moment."
    advice_zh = "该时刻已有其他规则集生效，请另选时间。"


class DraftContended(Busy):
    """Others kept drawing up drafts of the mode at the same moment."""

    code = "routing.draft_contended"
    advice = "Repeat the command."
    advice_zh = "请重试该命令。"


async def draw_up(tx: Tx, source: str, channels: Iterable[str]) -> RoutingRuleSet:
    """Keep a checked rule set as a draft.

    Raises:
        RuleFileUnreadable and the other refusals of `rules.read_rules`, TargetUnknown,
        DraftContended
    """
    said = read_rules(source)
    accounts = [each.id for each in await list_accounts(tx) if each.mode is said.mode]
    check_targets(said, channels, accounts)
    for _ in range(_TRIES_MAX):
        number = await store.LAST_NUMBER.one(tx, said.mode) + 1
        draft = await store.INSERT_DRAFT.first(
            tx, new_id(), said.mode, number, said.name, source, tx.actor, tx.now
        )
        if draft is not None:
            await _note(tx, "drawn_up", draft)
            return draft
    raise DraftContended


async def activate(
    tx: Tx, rule_set_id: UUID, *, valid_from: datetime | None = None
) -> RoutingRuleSet:
    """Put somebody else's draft in force, at once or from a moment on.

    Raises:
        RuleSetUnknown, RuleSetDecided, RuleSetOwnDraft, StartInThePast, StartTaken
    """
    draft = await _locked_draft(tx, rule_set_id)
    if draft.maker == tx.actor:
        raise RuleSetOwnDraft
    begins = valid_from or tx.now
    if begins < tx.now:
        raise StartInThePast
    others = await store.IN_USE.all(tx, tx.now)
    if any(each.mode is draft.mode and each.valid_from == begins for each in others):
        raise StartTaken
    active = await store.ACTIVATE.one(tx, draft.id, tx.actor, tx.now, begins)
    await _note(tx, "activated", active)
    return active


async def withdraw(tx: Tx, rule_set_id: UUID) -> RoutingRuleSet:
    """Give a draft up; anybody may.

    Raises:
        RuleSetUnknown, RuleSetDecided
    """
    draft = await _locked_draft(tx, rule_set_id)
    withdrawn = await store.WITHDRAW.one(tx, draft.id, tx.actor, tx.now)
    await _note(tx, "withdrawn", withdrawn)
    return withdrawn


async def stand_in_shadow(tx: Tx, rule_set_id: UUID) -> RoutingRuleSet:
    """Ask a draft beside the rules in force from now on, in the place of any other of its mode.

    Raises:
        RuleSetUnknown, RuleSetDecided
    """
    draft = await _locked_draft(tx, rule_set_id)
    await store.LEAVE_SHADOW.run(tx, draft.mode)
    shadow = await store.ENTER_SHADOW.one(tx, draft.id)
    await _note(tx, "shadowed", shadow)
    return shadow


async def rule_set(on: Db | Tx, rule_set_id: UUID) -> RoutingRuleSet:
    """Return a rule set.

    Raises:
        RuleSetUnknown
    """
    found = await store.GET_RULE_SET.first(on, rule_set_id)
    if found is None:
        raise RuleSetUnknown(rule_set=show(RULE_SET_PREFIX, rule_set_id))
    return found


async def rule_sets(on: Db | Tx, limit: int = 50) -> list[RoutingRuleSet]:
    """Return the newest rule sets, mode by mode."""
    return await store.LIST_RULE_SETS.all(on, limit)


def as_shown(each: RoutingRuleSet) -> dict[str, object]:
    """Return a rule set as people see it in a list."""
    return {
        "rule_set": show(RULE_SET_PREFIX, each.id),
        "mode": each.mode.value,
        "number": each.number,
        "name": each.name,
        "state": "shadow" if each.is_shadow else each.state.value,
        "maker": each.maker,
        "checker": each.checker or "",
        "valid_from": each.valid_from.isoformat() if each.valid_from is not None else "",
    }


async def _locked_draft(tx: Tx, rule_set_id: UUID) -> RoutingRuleSet:
    found = await store.LOCK_RULE_SET.first(tx, rule_set_id)
    if found is None:
        raise RuleSetUnknown(rule_set=show(RULE_SET_PREFIX, rule_set_id))
    if found.state is not RuleSetState.DRAFT:
        raise RuleSetDecided(state=found.state.value)
    return found


async def _note(tx: Tx, what: str, each: RoutingRuleSet) -> None:
    await mark(tx, RULES, ALL)
    facts = {
        "mode": each.mode.value,
        "number": each.number,
        "name": each.name,
        "maker": each.maker,
        "valid_from": each.valid_from.isoformat() if each.valid_from is not None else None,
    }
    await audit.record(tx, f"routing.{what}", show(RULE_SET_PREFIX, each.id), facts)
