"""Proposals: a merchant proposes a movement, the person agrees on our page, and it happens once.

    agreed ──one commit: counted, processing, task──► the order on the account ──► done | failed

The order carries the proposal's id as its request, so the page, the task and a task after a crash
make one. What moves the money marks the proposal in the same commit, and what was refused to one of
them fails it only while it bears no mark: another may have had better luck a moment later. What the
bank or the book has not said yet stays ``processing``: nobody guesses.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx, Write
from tongbao.infra.failpoints import failpoint
from tongbao.infra.tasks import Again, Handler, Lease, RetryPolicy, Task, enqueue
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import business_date
from tongbao.kernel.errors import Conflict, Invalid, NotFound, Rejected
from tongbao.kernel.money import Money
from tongbao.parties.authentication.model import Act
from tongbao.parties.bound_cards.queries import card_to_use
from tongbao.parties.e_accounts import orders
from tongbao.parties.e_accounts.bank_orders import order_over_bank
from tongbao.parties.e_accounts.model import (
    CURRENCY,
    EAccount,
    EAccountMoved,
    EAccountOrder,
    NoBankThere,
    OrderState,
)
from tongbao.parties.e_accounts.orders import Confirms, Teller, Wanted
from tongbao.parties.e_accounts.queries import account_of_person
from tongbao.parties.user_wallets import _store as store
from tongbao.parties.user_wallets.applications import (
    EXPIRY_POLICY,
    ExpireApplication,
    lock_own,
    make_link,
    run_expire_application,
    tell_proposal,
)
from tongbao.parties.user_wallets.model import (
    ApplicationStateWrong,
    Proposal,
    ProposalInvalid,
    ProposalKind,
    ProposalNotFound,
    ProposalNumberUsed,
    ProposalOver,
    ProposalState,
    ProposalTooLarge,
    Sitting,
    State,
    WalletApplication,
    told_code,
)
from tongbao.parties.user_wallets.programmes import active_programme, check_return
from tongbao.parties.user_wallets.sittings import end

_LOOK_AGAIN: Final = timedelta(seconds=30)
CARRY_POLICY: Final = RetryPolicy(
    attempts_max=1_000_000, delays=tuple(timedelta(seconds=s) for s in (5, 30, 120, 600, 3600))
)
"""Nobody gives up on what a person has agreed to while it is not known what became of it."""


PayCode = Callable[[EAccount, str, int, Confirms], Awaitable[None]]
"""Pays a merchant's code out of an account, confirmed at a level; again changes nothing."""


class Carrier(Struct, frozen=True):
    """What carries out what people agree to: orders on accounts, and merchants' codes paid."""

    teller: Teller
    pay: PayCode


class Agreed(Struct, frozen=True):
    """What lets a proposal's movement happen: it was agreed to, and no twin has failed or done it.

    The person's confirmation was used up with the agreement.
    """

    proposal_id: UUID
    now: datetime

    def writes(self) -> tuple[Write, ...]:
        """Return the write that marks the proposal in the movement's own commit."""
        return (Write(store.CARRY, (self.proposal_id, self.now), EAccountMoved.code),)

    async def take(self, tx: Tx) -> None:
        """Mark the proposal in the caller's transaction.

        Raises:
            EAccountMoved: a twin has failed it, or done it.
        """
        for write in self.writes():
            if not await write.run(tx):
                raise EAccountMoved


class CarryOut(Task, frozen=True, tag="user_wallets.carry_out"):
    """Do what a person has agreed to, or look what became of it."""

    proposal_id: UUID


class ExpireProposal(Task, frozen=True, tag="user_wallets.expire_proposal"):
    """Let a proposal that nobody decided expire."""

    proposal_id: UUID


class WantedProposal(Struct, frozen=True):
    """What a merchant proposes.

    Only a transfer has a ``payee``, an electronic account, and only a payment a ``payment_code``,
    which the caller has found to be the merchant's own, of this amount.
    """

    proposal_no: str
    kind: ProposalKind
    money: Money
    purpose: str
    payee: UUID | None
    payment_code: str | None
    life: timedelta


async def make_proposal(
    tx: Tx, caller: Caller, application_id: UUID, wanted: WantedProposal, *, proposal_id: UUID
) -> Proposal:
    """Propose a movement to a user of the merchant's, who lets it and within their limits.

    Raises:
        ProgrammeNotActive, ApplicationNotFound, ApplicationStateWrong, NotGranted,
        ProposalInvalid, ProposalTooLarge, ProposalNumberUsed
    """
    found = await lock_own(tx, caller, application_id)
    await active_programme(tx, caller.merchant_id, caller.mode)
    found.check_grants("propose")
    purpose = wanted.purpose.strip()
    is_right = purpose and purpose.isprintable() and wanted.money.currency == CURRENCY
    names_payee, names_code = wanted.payee is not None, wanted.payment_code is not None
    if not is_right or (wanted.kind == "transfer") != names_payee:
        raise ProposalInvalid
    if (wanted.kind == "payment") != names_code:
        raise ProposalInvalid
    if wanted.money.amount > found.each_max:
        raise _too_large(found)
    made = await store.INSERT_PROPOSAL.first(
        tx,
        proposal_id,
        caller.merchant_id,
        caller.mode,
        found.id,
        wanted.proposal_no,
        wanted.kind,
        wanted.money.amount,
        wanted.money.currency,
        wanted.payee,
        wanted.payment_code,
        purpose,
        found.person_id,
        found.account_id,
        tx.now,
        tx.now + wanted.life,
    )
    if made is None:
        raise ProposalNumberUsed(merchant_proposal_no=wanted.proposal_no)
    await enqueue(tx, ExpireProposal(made.id), run_at=made.expires_at, key=str(made.id))
    await audit.record(tx, "wallet_proposal.made", made.shown_id, {"kind": made.kind})
    failpoint("user_wallets.before_propose_commit")
    return made


async def link_to_proposal(
    tx: Tx, caller: Caller, proposal_id: UUID, *, return_url: str
) -> tuple[str, Sitting]:
    """Return the secret of a link to agree to a proposal by; earlier ones end.

    Raises:
        ProgrammeNotActive, ReturnUnknown, ProposalNotFound, ProposalOver, LinksTooMany
    """
    found = await store.GET_PROPOSAL.first(tx, proposal_id)
    if found is None or (found.merchant_id, found.mode) != (caller.merchant_id, caller.mode):
        raise ProposalNotFound
    check_return(await active_programme(tx, caller.merchant_id, caller.mode), return_url)
    application = await lock_own(tx, caller, found.application_id)
    if found.state is not ProposalState.AWAITING or tx.now >= found.expires_at:
        raise ProposalOver(status=found.state.value)
    return await make_link(tx, application, "confirm", return_url, found)


async def act_of(db: Db, account: EAccount, proposal: Proposal, payee: str) -> Act:
    """Return what a person agrees to: this much, this way, to this payee, for this proposal."""
    return Act(
        "payment" if proposal.kind == "payment" else "transfer",
        f"{proposal.kind} {account.shown_id} {proposal.shown_id}",
        proposal.amount,
        proposal.currency,
        payee,
        await orders.weak_total(db, account, proposal.amount),
    )


async def agree(
    db: Db, sitting: Sitting, proposal: Proposal, *, level: int, card_id: UUID | None
) -> Proposal:
    """Write down that the person has agreed, within what they allow the merchant; once.

    Raises:
        ProgrammeNotActive, ApplicationStateWrong, ProposalTooLarge, ProposalOver
    """
    async with db.begin("user_wallets") as tx:
        await active_programme(tx, proposal.merchant_id, proposal.mode)
        today = business_date(tx.now)
        found = await store.LOCK_APPLICATION.one(tx, proposal.application_id)
        if found.state is not State.OPENED or found.person_id != proposal.person_id:
            raise ApplicationStateWrong(status=found.state.value)
        if await store.COUNT_USE.first(tx, found.id, today, proposal.amount) is None:
            raise _too_large(found)
        agreed = await store.AGREE.first(tx, proposal.id, level, card_id, today, tx.now)
        if agreed is None:
            raise ProposalOver
        await end(tx, sitting)
        await enqueue(tx, CarryOut(agreed.id), key=str(agreed.id))
        await audit.record(tx, "wallet_proposal.agreed", agreed.shown_id, {"level": level})
        await tell_proposal(tx, agreed)
        failpoint("user_wallets.before_agree_commit")
    failpoint("user_wallets.after_agree")
    return agreed


async def decline(tx: Tx, sitting: Sitting, proposal: Proposal) -> Proposal:
    """Write down that the person does not want it.

    Raises:
        ProposalOver
    """
    row = (ProposalState.AWAITING, ProposalState.DECLINED, None, None, tx.now)
    declined = await store.CLOSE_PROPOSAL.first(tx, proposal.id, *row)
    if declined is None:
        raise ProposalOver
    await end(tx, sitting)
    await audit.record(tx, "wallet_proposal.declined", declined.shown_id, {})
    await tell_proposal(tx, declined)
    return declined


async def carry_out(carrier: Carrier, proposal_id: UUID) -> Proposal:
    """Do what was agreed to, or see what became of it; what is not known yet stays processing.

    Raises:
        EAccountMoved, GroupInFlight, LedgerUnanswered: whoever comes next tries again.
    """
    teller = carrier.teller
    proposal = await store.GET_PROPOSAL.one(teller.db, proposal_id)
    if proposal.state is not ProposalState.PROCESSING:
        return proposal
    try:
        made = await _done(carrier, proposal)
    except EAccountMoved:
        raise
    except (Conflict, Rejected, Invalid, NotFound) as refusal:
        return await _settle(teller.db, proposal, ProposalState.FAILED, refusal.code, None)
    failpoint("user_wallets.after_order")
    if made is None:
        return await _settle(teller.db, proposal, ProposalState.DONE, None, None)
    if made.state is OrderState.WAITING:
        return proposal
    if made.state is OrderState.DONE:
        return await _settle(teller.db, proposal, ProposalState.DONE, None, made.id)
    why = made.code or made.state.value
    return await _settle(teller.db, proposal, ProposalState.FAILED, why, made.id)


async def run_carry_out(carrier: Carrier, task: CarryOut, _lease: Lease) -> Again | None:
    """Carry a proposal out and come back until it is known what became of it."""
    found = await carry_out(carrier, task.proposal_id)
    return Again(_LOOK_AGAIN) if found.state is ProposalState.PROCESSING else None


async def run_expire_proposal(db: Db, task: ExpireProposal, _lease: Lease) -> None:
    """Let a proposal expire, unless it was decided."""
    async with db.begin("user_wallets") as tx:
        expired = await store.EXPIRE_PROPOSAL.first(tx, task.proposal_id, tx.now)
        if expired is not None:
            await tell_proposal(tx, expired)
            failpoint("user_wallets.before_proposal_expiry_commit")


POLICIES: Final[Mapping[type[Task], RetryPolicy]] = {
    CarryOut: CARRY_POLICY,
    ExpireProposal: EXPIRY_POLICY,
    ExpireApplication: EXPIRY_POLICY,
}
"""How often each task of this domain is tried."""


def handlers(carrier: Carrier) -> Mapping[type[Task], Handler]:
    """Return who does each task of this domain."""
    db = carrier.teller.db
    return {
        CarryOut: partial(run_carry_out, carrier),
        ExpireProposal: partial(run_expire_proposal, db),
        ExpireApplication: partial(run_expire_application, db),
    }


async def _done(carrier: Carrier, proposal: Proposal) -> EAccountOrder | None:
    """Make the order of a proposal, or return the one that it has made; None: a code is paid."""
    teller, db = carrier.teller, carrier.teller.db
    agreed = Agreed(proposal.id, db.clock.now())
    person_id, level = proposal.person_id, proposal.level or 0
    account = await account_of_person(db, proposal.mode, person_id, proposal.account_id)
    failpoint("user_wallets.before_order")
    if proposal.kind == "payment":
        await carrier.pay(account, proposal.payment_code or "", level, agreed)
        return None
    wanted = Wanted(
        proposal.kind,
        proposal.money,
        proposal.shown_id,
        payee=proposal.payee_id,
        card=proposal.card_id,
    )
    known = await orders.known_order(db, account, wanted)
    if known is not None:
        return known
    if proposal.card_id is None:
        return await orders.order(teller, account, wanted, level=level, confirmed=agreed)
    card = await card_to_use(db, person_id, proposal.mode, proposal.card_id)
    if card is None:
        raise NoBankThere
    return await order_over_bank(teller, account, card, wanted, level=level, confirmed=agreed)


async def _settle(
    db: Db, proposal: Proposal, state: ProposalState, code: str | None, order_id: UUID | None
) -> Proposal:
    """Write a proposal's end down, once; what failed no longer counts against the day."""
    async with db.begin("user_wallets") as tx:
        told = None if code is None else told_code(code)
        row = (ProposalState.PROCESSING, state, told, order_id, tx.now)
        settled = await store.CLOSE_PROPOSAL.first(tx, proposal.id, *row)
        if settled is None:
            return await store.GET_PROPOSAL.one(tx, proposal.id)
        if state is ProposalState.FAILED:
            use = (proposal.application_id, proposal.counted_day, proposal.amount)
            await store.GIVE_USE_BACK.run(tx, *use)
        facts = {"state": state.value, "code": code}
        await audit.record(tx, "wallet_proposal.ended", settled.shown_id, facts)
        await tell_proposal(tx, settled)
        failpoint("user_wallets.before_settle_commit")
    return settled


def _too_large(found: WalletApplication) -> ProposalTooLarge:
    return ProposalTooLarge(each_max=found.each_max, day_max=found.day_max, used=found.used)
