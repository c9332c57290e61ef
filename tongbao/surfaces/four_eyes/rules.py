"""Dated rows of every kind, for people: listed and proposed in the console, and as text elsewhere.

What a kind of row looks like comes from its own description, so one page and one command serve all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import fields

from tongbao.controls.approvals.model import Approvals
from tongbao.controls.dated_rows.logins import LOGINS
from tongbao.controls.dated_rows.rows import BECAUSE_MAX, DatedRows, propose_row
from tongbao.controls.limits.changes import LIMITS
from tongbao.controls.opening.rules import OPENING
from tongbao.controls.retention.terms import TERMS
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Invalid, NotFound
from tongbao.parties.step_up_risk.rules import BY_AMOUNT, BY_SIGNAL
from tongbao.surfaces.four_eyes.inbox import permissions_of, proposed
from tongbao.surfaces.operator_console.visit import Visit
from tongbao.surfaces.page_kit.replies import Reply

KINDS: Final[Mapping[str, DatedRows]] = {
    "step_up": BY_AMOUNT,
    "step_up_signals": BY_SIGNAL,
    "logins": LOGINS,
    "limits": LIMITS,
    "opening": OPENING,
    "retention": TERMS,
}
"""Every kind of dated row, by the name people give it."""


class RuleKindUnknown(NotFound):
    """There are no rules of this name, or not under this licence."""

    code = "rules.kind_unknown"
    advice = "Choose one of those that tongbao rules kinds lists."
    advice_zh = "请从 tongbao rules kinds 列出的类别中选择。"


class RuleUnreadable(Invalid):
    """What was given is no row of this kind: a field is missing or of another type."""

    code = "rules.unreadable"
    advice = "Give every field that the list shows; leave out only a figure that is to end."
    advice_zh = "请给出列表中的每个字段；仅当要终止某项数值时可留空。"


def kinds_of(approvals: Approvals) -> dict[str, DatedRows]:
    """Return the kinds that a deployment has."""
    return {name: kind for name, kind in KINDS.items() if kind.act.name in approvals.acts}


def kind_named(approvals: Approvals, name: str) -> DatedRows:
    """Return a kind by its name.

    Raises:
        RuleKindUnknown
    """
    kind = kinds_of(approvals).get(name)
    if kind is None:
        raise RuleKindUnknown
    return kind


def row_of(kind: DatedRows, said: Mapping[str, str]) -> Any:
    """Return the row that fields of text describe; a figure that is left out is none.

    Raises:
        RuleUnreadable
    """
    names = {each.name for each in fields(kind.act.terms)}
    if unknown := sorted(said.keys() - names):
        raise RuleUnreadable(param=unknown[0])
    given: dict[str, str | None] = dict.fromkeys(kind.sets)
    given |= {name: text for name, text in said.items() if text or name not in kind.sets}
    try:
        return msgspec.convert(given, kind.act.terms, strict=False)
    except msgspec.ValidationError:
        raise RuleUnreadable from None


async def show_rules(visit: Visit) -> Reply:
    """Show the rows of one kind: those in force and those to come, or all that there ever were.

    Raises:
        RuleKindUnknown
    """
    kinds, query = kinds_of(visit.desk.approvals), visit.request.query
    name = query.get("kind", "") or next(iter(kinds))
    kind, today = kind_named(visit.desk.approvals, name), business_date(visit.desk.db.clock.now())
    rows = await kind.rows.all(visit.desk.db)
    in_force = kind.in_force(rows, today)
    is_past_too = query.get("past") == "1"
    shown = [row for row in rows if is_past_too or row.valid_from > today or row in in_force]
    facts = {
        "kinds": list(kinds),
        "kind": name,
        "act": kind.act,
        "maker": kind.act.maker,
        "columns": [each.name for each in fields(kind.act.terms)],
        "asked": [*kind.about, *kind.sets],
        "because": kind.because,
        "because_max": BECAUSE_MAX,
        "rows": [(msgspec.to_builtins(row), row in in_force) for row in shown],
        "is_past_too": is_past_too,
        "today": today,
    }
    return await visit.page("rules.html", facts)


async def propose_one(visit: Visit) -> Reply:
    """Propose a row from a form; it counts once somebody else has approved it.

    Raises:
        RuleKindUnknown, RuleUnreadable, and what `propose_row` raises
    """
    form = visit.request.form
    kind = kind_named(visit.desk.approvals, visit.params["kind"])
    named = {each.name for each in fields(kind.act.terms)}
    row = row_of(kind, {field: text.strip() for field, text in form.items() if field in named})
    async with visit.desk.db.begin(visit.operator.actor) as tx:
        made = await propose_row(
            tx, kind, row, reason=form.get("reason", ""), may=sorted(permissions_of(visit))
        )
    return proposed(made)
