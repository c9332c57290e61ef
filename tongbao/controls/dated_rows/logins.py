"""How many logins may fail from one place on the network, as dated rows that two people add."""

from __future__ import annotations

from typing import Final

from tongbao.controls.approvals.model import Act
from tongbao.controls.dated_rows.rows import DatedRows
from tongbao.infra.admission import login_sources
from tongbao.infra.admission.rate_limits import LoginSourceRule
from tongbao.kernel.errors import Conflict, Invalid


class LoginRuleWrong(Invalid):
    """A rule names a door, a prefix that is counted, 60 s to a day, a day to come, and why."""

    code = "login_rule.wrong"
    advice = "Name a door and prefix that are listed, 60 to 86400 s, today or later, and why."
    advice_zh = "请指定已有的入口与网段长度、60 至 86400 秒、今天或以后的生效日，并注明依据。"


class LoginRuleThere(Conflict):
    """There is a row of this door, prefix and period that begins on this day."""

    code = "login_rule.there"
    advice = "Choose another day; a row is never changed."
    advice_zh = "该日期已有同项规则，规则记录不可修改，请选择其他生效日。"


LOGINS: Final = DatedRows(
    act=Act(
        "logins.set_source_rule",
        "Change how many logins may fail from one place",
        "变更同一网络来源的登录失败上限",
        LoginSourceRule,
        maker="deployment_act",
        checker="deployment_act",
    ),
    about=("entrance", "family", "prefix_bits", "period_s"),
    known=(("entrance",), ("family", "prefix_bits")),
    sets={"most": ("failures at most", "失败次数上限")},
    bounds={"most": (1, 1_000_000), "period_s": (60, 86_400)},
    because="because",
    rows=login_sources.EVERY_RULE,
    insert=login_sources.ADD_RULE,
    done="login.source_rule_set",
    wrong=LoginRuleWrong,
    there=LoginRuleThere,
)
"""``most`` None ends a limit from that day on."""
