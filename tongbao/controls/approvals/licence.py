"""The licence of the deployment, which two people may change as far as its tables allow.

A payment institution that becomes a bank, or the other way round, keeps everything it has. An
aggregator has no tables for other people's money, and a licensed firm that becomes one would keep
money it may not have: both begin anew, with a deployment of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from tongbao.controls.approvals.model import Act, Approval, Bound, Change, Effect
from tongbao.infra.db import Db
from tongbao.infra.migrate import change_licence
from tongbao.kernel.errors import Rejected
from tongbao.kernel.licence import Licence

SUBJECT: Final = "deployment"


class LicenceNeedsNewDeployment(Rejected):
    """Between an aggregator and a licensed firm nothing can be carried over."""

    code = "licence.needs_new_deployment"
    advice = "Make a new deployment under the other licence, and take the merchants on there."
    advice_zh = "聚合服务商与持牌机构之间不能直接变更，请以新许可新建部署并重新接入商户。"


class LicenceUnchanged(Rejected):
    """The deployment has this licence already."""

    code = "licence.unchanged"
    advice = "Nothing needs to be done."
    advice_zh = "许可类型未变化，无需操作。"


class NewLicence(Struct, frozen=True):
    """Another licence, and the document that grants it."""

    before: Licence
    after: Licence
    document: str  # its number, as the regulator gave it


CHANGE: Final = Act(
    name="licence.change",
    en="Change the deployment's licence",
    zh="变更部署许可类型",
    terms=NewLicence,
    maker="deployment_act",
    checker="deployment_act",
)


def check_change(wanted: NewLicence) -> None:
    """Raise unless a deployment may go on under the other licence.

    Raises:
        LicenceUnchanged, LicenceNeedsNewDeployment
    """
    if wanted.before is wanted.after:
        raise LicenceUnchanged(licence=wanted.after.value)
    if not (wanted.before.may_hold_funds and wanted.after.may_hold_funds):
        raise LicenceNeedsNewDeployment(before=wanted.before.value, after=wanted.after.value)


def bound_acts(db: Db) -> tuple[Bound, ...]:
    """Return the act of this module with what does it."""

    async def apply(effect: Effect) -> None:
        wanted: NewLicence = effect.terms
        check_change(wanted)
        async with db.begin(effect.actor) as tx:
            await effect.close(tx)
            facts = {"document": wanted.document, "approval": effect.approval.shown_id}
            await change_licence(tx, wanted.before, wanted.after, facts)

    return (Bound(CHANGE, apply, show=_show),)


async def _show(_db: Db, _approval: Approval, wanted: NewLicence) -> Sequence[Change]:
    return [
        Change(en="licence", zh="许可类型", before=wanted.before.value, after=wanted.after.value),
        Change(en="granted by document", zh="批准文件编号", before=None, after=wanted.document),
    ]
