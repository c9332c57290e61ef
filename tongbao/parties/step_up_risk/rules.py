"""Which proof an act wants, by amount and by signals, as dated rows that two people add."""

from __future__ import annotations

from typing import Final

from tongbao.controls.approvals.model import Act
from tongbao.controls.dated_rows.rows import DatedRows
from tongbao.kernel.errors import Conflict, Invalid
from tongbao.kernel.money import AMOUNT_MAX
from tongbao.parties.authentication import step_up
from tongbao.parties.authentication.model import Level, StepUpRule
from tongbao.parties.step_up_risk import _store as store
from tongbao.parties.step_up_risk.model import StepUpSignal

_HOURS_MAX: Final = 8_784  # a leap year


class StepUpRuleWrong(Invalid):
    """A rule names an act that people confirm, an amount, a level, a day to come, and why."""

    code = "step_up_rule.wrong"
    advice = "Name a kind and currency that are listed, level 0 to 3, today or later, and why."
    advice_zh = "请指定已有的操作类别与币种、0 至 3 的级别、今天或以后的生效日，并注明依据。"


class StepUpRuleThere(Conflict):
    """There is a row of this act and amount that begins on this day."""

    code = "step_up_rule.there"
    advice = "Choose another day; a row is never changed."
    advice_zh = "该日期已有同项规则，规则记录不可修改，请选择其他生效日。"


BY_AMOUNT: Final = DatedRows(
    act=Act(
        "step_up.set_rule",
        "Change which proof an act wants from an amount on",
        "变更操作按金额所需的验证级别",
        StepUpRule,
        maker="deployment_act",
        checker="deployment_act",
    ),
    about=("kind", "currency", "at_least"),
    known=(("kind", "currency"),),
    sets={"level": ("level", "级别")},
    bounds={"level": (Level.SESSION, Level.SIGNED), "at_least": (0, AMOUNT_MAX)},
    because="instrument",
    rows=step_up.RULES,
    insert=step_up.ADD_RULE,
    done="step_up.rule_set",
    wrong=StepUpRuleWrong,
    there=StepUpRuleThere,
)
BY_SIGNAL: Final = DatedRows(
    act=Act(
        "step_up.set_signal",
        "Change which proof a signal of risk wants",
        "变更风险信号所需的验证级别",
        StepUpSignal,
        maker="deployment_act",
        checker="deployment_act",
    ),
    about=("signal", "kind", "currency", "at_least"),
    known=(("kind", "currency"),),
    sets={
        "within_h": ("hours it counts, 0 for ever", "有效小时数，0 为不限"),
        "level": ("level", "级别"),
    },
    bounds={
        "within_h": (0, _HOURS_MAX),
        "level": (Level.ONE, Level.SIGNED),
        "at_least": (0, AMOUNT_MAX),
    },
    because="because",
    rows=store.EVERY_SIGNAL,
    insert=store.ADD_SIGNAL,
    done="step_up.signal_set",
    wrong=StepUpRuleWrong,
    there=StepUpRuleThere,
)
