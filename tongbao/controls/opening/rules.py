"""Read the rules of opening, and change one: a new dated row, agreed to by two people.

A row is never changed or taken away, so what counted on a day can be told for ever.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Final

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.controls.opening import _store as store
from tongbao.controls.opening.model import OpeningRule, figures_of
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Conflict, Fact, Invalid

_INSTRUMENT_MAX: Final = 300
_FIGURE_MAX: Final = 1_000_000


class OpeningRuleWrong(Invalid):
    """A rule names a kind and a name that are looked at, a day to come, and where it stands."""

    code = "opening_rule.wrong"
    advice = "Name a kind and a name that are listed, today or a later day, and the instrument."
    advice_zh = "请指定已有的类别与规则名、今天或以后的生效日，并注明依据文件。"


class OpeningRuleThere(Conflict):
    """There is a row of this kind and name that begins on this day."""

    code = "opening_rule.there"
    advice = "Choose another day; a row is never changed."
    advice_zh = "该日期已有同项规则，规则记录不可修改，请选择其他生效日。"


class OpeningTerms(Struct, frozen=True):
    """What two people agree to: a figure from a day on, and the instrument that says so."""

    kind: str
    name: str
    valid_from: date
    figure: int
    instrument: str


SET: Final = Act(
    "opening.set_rule",
    "Change a rule of opening accounts or binding cards",
    "变更开户或绑卡规则",
    OpeningTerms,
    maker="deployment_act",
    checker="deployment_act",
)


async def rules_in_force(on: Db | Tx, kind: str, today: date) -> dict[str, OpeningRule]:
    """Return the rules that count for a kind on a day, by name."""
    return figures_of(await store.RULES.all(on), kind, today)


async def every_rule(on: Db | Tx) -> list[OpeningRule]:
    """Return every rule, past and future ones too."""
    return await store.RULES.all(on)


async def propose_rule(
    tx: Tx, terms: OpeningTerms, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose a figure from a day on.

    Raises:
        OpeningRuleWrong, OpeningRuleThere, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    await _check(tx, terms)
    subject = f"{terms.kind}/{terms.name} {terms.valid_from}"
    return await propose(tx, SET, subject, terms, reason=reason, may=may)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act with what does it."""
    return (Bound(SET, in_transaction(db, _add), show=_show),)


async def _add(tx: Tx, _approval: Approval, terms: OpeningTerms) -> None:
    await _check(tx, terms)
    row = (terms.kind, terms.name, terms.valid_from, terms.figure, terms.instrument)
    if not await store.INSERT_RULE.run(tx, *row):
        raise OpeningRuleThere
    facts: dict[str, Fact] = {"valid_from": terms.valid_from.isoformat(), "figure": terms.figure}
    await audit.record(tx, "opening.rule_set", f"{terms.kind}/{terms.name}", facts)
    failpoint("opening.before_rule_commit")


async def _check(tx: Tx, terms: OpeningTerms) -> None:
    """Raise unless this may become a row: nobody can mean a rule that nothing looks at."""
    if terms.valid_from < business_date(tx.now):
        raise OpeningRuleWrong(param="valid_from")
    if not 0 <= terms.figure <= _FIGURE_MAX:
        raise OpeningRuleWrong(param="figure")
    if not 0 < len(terms.instrument.strip()) <= _INSTRUMENT_MAX:
        raise OpeningRuleWrong(param="instrument")
    rules = await store.RULES.all(tx)
    if not any((each.kind, each.name) == (terms.kind, terms.name) for each in rules):
        raise OpeningRuleWrong(param="kind")
    if any(_key(each) == _key(terms) for each in rules):
        raise OpeningRuleThere


async def _show(db: Db, _approval: Approval, terms: OpeningTerms) -> list[Change]:
    rules = figures_of(await store.RULES.all(db), terms.kind, terms.valid_from)
    now_is = rules.get(terms.name)
    what = f"{terms.kind}, {terms.name}"
    return [
        Change(
            en=f"figure: {what}",
            zh=f"数值：{what}",
            before="–" if now_is is None else str(now_is.figure),
            after=str(terms.figure),
        ),
        Change("from the day", "生效日", None, terms.valid_from.isoformat()),
        Change("instrument", "依据", None, terms.instrument),
    ]


def _key(rule: OpeningRule | OpeningTerms) -> tuple[object, ...]:
    return (rule.kind, rule.name, rule.valid_from)
