"""Review: two operators open a merchant or decline it; and what opening makes, once.

The merchant's id follows from the application's, and the application's row is locked and moved in
the commit that makes the merchant, its prices and its key: whoever dies or repeats opens one.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.db_failures import UniqueKeyTaken
from tongbao.infra.failpoints import failpoint
from tongbao.infra.settings import Secret
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import derived_id, parse, show
from tongbao.kernel.licence import Licence
from tongbao.parties.agents.agents import agent_of_merchant, assign_merchant
from tongbao.parties.identity.keys import create_key
from tongbao.parties.identity.model import Permission, scopes_under
from tongbao.parties.merchants.merchants import BankAccount, open_merchant
from tongbao.parties.onboarding.applications import (
    locked_as_seen,
    move,
    submit_application,
    submittable,
)
from tongbao.parties.onboarding.model import (
    PREFIX,
    Application,
    ApplicationState,
    Finding,
    FirmTakenOn,
    check_in_force,
)
from tongbao.parties.onboarding.queries import personal_of
from tongbao.parties.onboarding.terms import check_signed
from tongbao.parties.price_plans.model import PriceLine
from tongbao.parties.price_plans.plans import set_price_plan

_NOT_FOR_MERCHANTS: Final = frozenset({"test_helpers:write", "applications:write"})


class OpeningTerms(Struct, frozen=True):
    """What two people agree to when they open a merchant."""

    application: str
    version: int
    firm: str
    credit_code: str
    mode: str
    channels: list[str]
    prices: list[PriceLine]
    settlement_delay_days: int


class DecliningTerms(Struct, frozen=True):
    """What two people agree to when they decline an application for good."""

    application: str
    version: int
    firm: str


OPEN: Final = Act(
    "application.open",
    "Open a merchant",
    "商户进件审批开通",
    OpeningTerms,
    maker=Permission.ONBOARDING_ACT,
    checker=Permission.ONBOARDING_ACT,
)
DECLINE: Final = Act(
    "application.decline",
    "Decline an application",
    "拒绝商户进件",
    DecliningTerms,
    maker=Permission.ONBOARDING_ACT,
    checker=Permission.ONBOARDING_ACT,
)


async def submit(tx: Tx, keyring: Keyring, licence: Licence, application_id: UUID) -> Application:
    """Hand a draft in: to be reviewed, or by an aggregator straight on to the channels.

    Raises:
        ApplicationNotFound, ApplicationNotOpenForThis, LicenceExpired, IdentityExpired,
        DocumentsMissing, FirmTakenOn, TermsUnsigned
    """
    if licence.may_hold_funds:
        await check_signed(tx, application_id, tx.now)
        return await submit_application(tx, application_id)
    application, findings = await submittable(tx, application_id)
    return await _open(
        tx, keyring, licence, application, ApplicationState.FORWARDED, findings=findings
    )


async def propose_opening(
    tx: Tx, application_id: UUID, *, version: int, reason: str, may: Collection[str]
) -> Approval:
    """Propose to open the merchant, as the proposer saw the application.

    Raises:
        ApplicationNotFound, ApplicationNotOpenForThis, ApplicationChanged, MakerNotAllowed,
        ReasonTooShort, ApprovalWaiting
    """
    application = await locked_as_seen(tx, application_id, version)
    application.check_in(ApplicationState.SUBMITTED)
    form, shown = application.form, show(PREFIX, application.id)
    terms = OpeningTerms(
        application=shown,
        version=application.version,
        firm=form.firm.legal_name,
        credit_code=form.firm.credit_code,
        mode=application.mode.value,
        channels=[each.channel for each in form.channels],
        prices=form.prices,
        settlement_delay_days=form.settlement_delay_days,
    )
    return await propose(
        tx,
        OPEN,
        shown,
        terms,
        reason=reason,
        merchant_id=application.merchant_id,
        mode=application.mode,
        may=may,
    )


async def propose_declining(
    tx: Tx, application_id: UUID, *, version: int, reason: str, may: Collection[str]
) -> Approval:
    """Propose to decline the application for good; to have it corrected, return it instead.

    Raises:
        ApplicationNotFound, ApplicationNotOpenForThis, ApplicationChanged, MakerNotAllowed,
        ReasonTooShort, ApprovalWaiting
    """
    application = await locked_as_seen(tx, application_id, version)
    application.check_in(ApplicationState.SUBMITTED)
    shown = show(PREFIX, application.id)
    terms = DecliningTerms(shown, application.version, application.form.firm.legal_name)
    return await propose(
        tx,
        DECLINE,
        shown,
        terms,
        reason=reason,
        merchant_id=application.merchant_id,
        mode=application.mode,
        may=may,
    )


async def open_approved(
    tx: Tx, keyring: Keyring, licence: Licence, terms: OpeningTerms, application_id: UUID
) -> Application:
    """Open the merchant that two people agreed to, where all is still as they saw it.

    Raises:
        ApplicationNotFound, ApplicationChanged, ApplicationNotOpenForThis, LicenceExpired,
        IdentityExpired, TermsUnsigned, FirmTakenOn
    """
    application = await locked_as_seen(tx, application_id, terms.version)
    application.check_in(ApplicationState.SUBMITTED)
    check_in_force(application.form, business_date(tx.now))
    await check_signed(tx, application.id, tx.now)
    return await _open(tx, keyring, licence, application, ApplicationState.OPENED)


async def decline_approved(
    tx: Tx, terms: DecliningTerms, application_id: UUID, reason: str
) -> Application:
    """Decline the application that two people looked at.

    Raises:
        ApplicationNotFound, ApplicationChanged, ApplicationNotOpenForThis
    """
    application = await locked_as_seen(tx, application_id, terms.version)
    application.check_in(ApplicationState.SUBMITTED)
    return await move(tx, application, ApplicationState.DECLINED, note=reason)


async def _open(
    tx: Tx,
    keyring: Keyring,
    licence: Licence,
    application: Application,
    to: ApplicationState,
    *,
    findings: list[Finding] | None = None,
) -> Application:
    """Make the merchant, its prices and its first key, and say where the application stands.

    Raises:
        FirmTakenOn: another application of the firm was opened at the same moment.
    """
    form, personal = application.form, personal_of(keyring, application)
    merchant = await open_merchant(
        tx,
        keyring,
        name=form.firm.short_name,
        bank_account=BankAccount(personal.holder, Secret(personal.number)),
        settlement_delay_days=form.settlement_delay_days,
        merchant_id=derived_id(application.id, "merchant"),
    )
    await set_price_plan(tx, merchant.id, application.mode, form.prices)
    new = await create_key(
        tx,
        keyring,
        merchant.id,
        application.mode,
        licence=licence,
        name="first key",
        scopes=sorted(scopes_under(licence).keys() - _NOT_FOR_MERCHANTS),
    )
    agent = await agent_of_merchant(tx, application.merchant_id, application.mode)
    if agent is not None:
        await assign_merchant(tx, merchant.id, application.mode, agent)
    failpoint("onboarding.before_opening_commit")
    try:
        async with tx.savepoint():
            opened = await move(
                tx,
                application,
                to,
                note=None,
                findings=findings,
                opened_merchant_id=merchant.id,
                key_id=new.key.id,
                submitted=application.submitted_at is None,
            )
    except UniqueKeyTaken:
        raise FirmTakenOn from None
    facts = {"merchant": show("mch", merchant.id), "mode": application.mode.value}
    await audit.record(tx, "merchant.opened_from", show(PREFIX, application.id), facts)
    return opened


def bound_acts(db: Db, keyring: Keyring, licence: Licence) -> tuple[Bound, ...]:
    """Return what two operators do about applications; an aggregator decides about none."""

    async def open_it(tx: Tx, _approval: Approval, terms: OpeningTerms) -> None:
        await open_approved(tx, keyring, licence, terms, parse(PREFIX, terms.application))

    async def decline_it(tx: Tx, approval: Approval, terms: DecliningTerms) -> None:
        await decline_approved(tx, terms, parse(PREFIX, terms.application), approval.reason)

    return (
        Bound(OPEN, in_transaction(db, open_it), link=_page),
        Bound(DECLINE, in_transaction(db, decline_it), link=_page),
    )


def _page(approval: Approval) -> str:
    return f"/applications/{approval.subject}"
