"""Limits of the law as dated rows: what two people agree to when one changes."""

from __future__ import annotations

from typing import Final

from tongbao.controls.approvals.model import Act
from tongbao.controls.dated_rows.rows import DatedRows
from tongbao.controls.limits import _store as store
from tongbao.controls.limits.model import NO_LIMIT, LimitRule
from tongbao.kernel.errors import Conflict, Invalid


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


SET: Final = Act(
    "limits.set_rule",
    "Change a limit of the law",
    "变更监管限额",
    LimitRule,
    maker="deployment_act",
    checker="deployment_act",
)
LIMITS: Final = DatedRows(
    act=SET,
    about=("kind", "meter", "period", "currency"),
    known=(("kind",), ("meter",), ("currency",)),
    sets={"most": ("at most (minor units)", "上限（最小单位）")},
    bounds={"most": (0, NO_LIMIT)},
    because="instrument",
    rows=store.ALL_RULES,
    insert=store.INSERT_RULE,
    done="limit.rule_set",
    wrong=LimitRuleWrong,
    there=LimitRuleThere,
)
"""``most`` is minor units; None ends the limit from that day on."""
