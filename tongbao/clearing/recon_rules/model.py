"""What a dated layout and a dated rule are, and the acts that set them. No I/O."""

from __future__ import annotations

from datetime import date, datetime
from hashlib import sha256
from typing import Final

from msgspec import Struct

from tongbao.controls.approvals.model import Act
from tongbao.kernel.errors import Conflict, Invalid, NotFound
from tongbao.kernel.licence import Mode


class DatedRule(Struct, frozen=True):
    """One row of match_rule. ``rule`` is JSON, or empty where there is none from that day on."""

    name: str
    valid_from: date
    set_at: datetime
    rule: str
    written: str
    approved_as: str


class LayoutTerms(Struct, frozen=True):
    """From which day on a source's files are read by which layout (JSON, and as it was written).

    ``replaces`` is the digest of the layout that counted on that day when this was proposed; empty
    for a source that is new, which begins with it.
    """

    source: str
    mode: Mode
    valid_from: date
    layout: str
    written: str
    replaces: str


class RuleTerms(Struct, frozen=True):
    """From which day on a rule matches how; ``rule`` empty: not at all."""

    name: str
    valid_from: date
    rule: str
    written: str
    replaces: str


SET_LAYOUT: Final = Act(
    "reconciliation.layout",
    "Change how a source's files are read",
    "变更对账文件版式",
    LayoutTerms,
    maker="breaks_act",
    checker="breaks_act",
)
SET_RULE: Final = Act(
    "reconciliation.rule",
    "Change how statements are matched",
    "变更勾对规则",
    RuleTerms,
    maker="breaks_act",
    checker="breaks_act",
)


class RuleUnknown(NotFound):
    """There is no such rule on this day."""

    code = "matching.rule_unknown"
    advice = "List the rules, or propose this one."
    advice_zh = "该日没有此勾对规则，请查看规则列表或提交新规则。"


class RuleMoved(Conflict):
    """What is to be replaced is not what it was when this was proposed."""

    code = "reconciliation.rule_moved"
    advice = "Look at what counts now and propose it anew, if it is still wanted."
    advice_zh = "现行内容已变化，请核对后重新提交。"


class RuleUnchanged(Invalid):
    """The proposal is what counts on that day already."""

    code = "reconciliation.rule_unchanged"
    advice = "Nothing to do."
    advice_zh = "与现行内容一致，无需变更。"


def digest_of(text: str) -> str:
    """Return what stands for a layout or rule in a proposal; of none, nothing."""
    return sha256(text.encode()).hexdigest() if text else ""
