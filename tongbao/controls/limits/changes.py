"""Change a limit of the law: a new dated row, with its instrument, agreed to by two people.

A row is never changed or taken away, so what counted on a day can be told for ever.
"""

from __future__ import annotations

from collections.abc import Collection
from datetime import date
from typing import Final

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.controls.limits import _store as store
from tongbao.controls.limits.model import LimitRule, Period, in_force
from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Conflict, Invalid

_INSTRUMENT_MAX: Final = 300


class LimitRuleWrong(Invalid):
    """A limit names a kind and a meter that are counted, a day to come, and where it stands."""

    code = "limit.rule_wrong"
    advice = "Name a kind and meter that are listed, today or a later day, and the instrument."
    advice_zh = "请指定已有的账户类别与计量项、今天或以后的生效日，并注明依据文件。"


class LimitRuleThere(Conflict):
    """There is a row of this kind, meter and period that begins on this day."""

    code = "limit.rule_there"
    advice = "Choose another day; a row is never changed."
    advice_zh = "该日期已有同项限额，限额记录不可修改，请选择其他生效日。"


class LimitTerms(Struct, frozen=True):
    """What two people agree to. ``most`` is minor units; None ends the limit from that day on."""

    kind: str
    meter: str
    period: Period
    currency: str
    valid_from: date
    most: int | None
    instrument: str


SET: Final = Act(
    "limits.set_rule",
    "Change a limit of the law",
    "变更监管限额",
    LimitTerms,
    maker="deployment_act",
    checker="deployment_act",
)


async def propose_rule(
    tx: Tx, terms: LimitTerms, *, reason: str, may: Collection[str] | None = None
) -> Approval:
    """Propose a limit from a day on.

    Raises:
        LimitRuleWrong, LimitRuleThere, MakerNotAllowed, ReasonTooShort, ApprovalWaiting
    """
    await _check(tx, terms)
    subject = f"{terms.kind}/{terms.meter}/{terms.period}/{terms.currency} {terms.valid_from}"
    return await propose(tx, SET, subject, terms, reason=reason, may=may)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act with what does it."""
    return (Bound(SET, in_transaction(db, _add), show=_show),)


async def _add(tx: Tx, _approval: Approval, terms: LimitTerms) -> None:
    await _check(tx, terms)
    args = (terms.kind, terms.meter, terms.period, terms.currency)
    if not await store.INSERT_RULE.run(tx, *args, terms.valid_from, terms.most, terms.instrument):
        raise LimitRuleThere
    facts = {"valid_from": terms.valid_from.isoformat(), "most": terms.most}
    subject = f"{terms.kind}/{terms.meter}/{terms.period}/{terms.currency}"
    await audit.record(tx, "limit.rule_set", subject, facts)
    failpoint("limits.before_rule_commit")


async def _check(tx: Tx, terms: LimitTerms) -> None:
    """Raise unless this may become a row: nobody can mean a meter that nothing counts on."""
    if terms.valid_from < business_date(tx.now) or (terms.most is not None and terms.most < 0):
        raise LimitRuleWrong(param="valid_from")
    if not 0 < len(terms.instrument.strip()) <= _INSTRUMENT_MAX:
        raise LimitRuleWrong(param="instrument")
    rules = await store.ALL_RULES.all(tx)
    kinds, meters = {each.kind for each in rules}, {each.meter for each in rules}
    currencies = {each.currency for each in rules}
    if terms.kind not in kinds or terms.meter not in meters or terms.currency not in currencies:
        raise LimitRuleWrong(param="kind")
    if any(_key(each) == _key(terms) for each in rules):
        raise LimitRuleThere


async def _show(db: Db, _approval: Approval, terms: LimitTerms) -> list[Change]:
    rules = await store.RULES.all(db, terms.kind, terms.currency)
    counts = in_force(rules, terms.valid_from)
    now_is = next(
        (r.most for r in counts if (r.meter, r.period) == (terms.meter, terms.period)), None
    )
    what = f"{terms.kind}, {terms.meter}, {terms.period}, {terms.currency}"
    return [
        Change(
            en=f"at most (minor units): {what}",
            zh=f"上限（最小单位）：{what}",
            before="–" if now_is is None else str(now_is),
            after="–" if terms.most is None else str(terms.most),
        ),
        Change("from the day", "生效日", None, terms.valid_from.isoformat()),
        Change("instrument", "依据", None, terms.instrument),
    ]


def _key(rule: LimitRule | LimitTerms) -> tuple[object, ...]:
    return (rule.kind, rule.meter, rule.period, rule.currency, rule.valid_from)
