"""Rules of opening accounts and binding cards: read, and as dated rows that two people add."""

from __future__ import annotations

from datetime import date
from typing import Final

from tongbao.controls.approvals.model import Act
from tongbao.controls.dated_rows.rows import DatedRows
from tongbao.controls.opening import _store as store
from tongbao.controls.opening.model import OpeningRule, figures_of
from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import Conflict, Invalid


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


SET: Final = Act(
    "opening.set_rule",
    "Change a rule of opening accounts or binding cards",
    "变更开户或绑卡规则",
    OpeningRule,
    maker="deployment_act",
    checker="deployment_act",
)
OPENING: Final = DatedRows(
    act=SET,
    about=("kind", "name"),
    known=(("kind", "name"),),
    sets={"figure": ("figure", "数值")},
    bounds={"figure": (0, 1_000_000)},
    because="instrument",
    rows=store.RULES,
    insert=store.INSERT_RULE,
    done="opening.rule_set",
    wrong=OpeningRuleWrong,
    there=OpeningRuleThere,
)


async def rules_in_force(on: Db | Tx, kind: str, today: date) -> dict[str, OpeningRule]:
    """Return the rules that count for a kind on a day, by name."""
    return figures_of(await store.RULES.all(on), kind, today)


async def every_rule(on: Db | Tx) -> list[OpeningRule]:
    """Return every rule, past and future ones too."""
    return await store.RULES.all(on)
