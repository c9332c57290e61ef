"""Applications: one for each user of a merchant's, opened by that person and ended by them.

Whoever opens has proved who they are on our pages; the account is theirs, found or made under a
lock on them, so that two merchants at once open one. A merchant that asks anew for somebody who
left, refused or took too long asks on the same application.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from tongbao.infra import audit
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import publish
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.infra.web.caller import Caller
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id
from tongbao.kernel.licence import Licence
from tongbao.parties.consents.model import hashed, new_secret
from tongbao.parties.e_accounts.model import AccountsTooMany, EAccount, EAccountClassUnknown
from tongbao.parties.e_accounts.opening import account_for
from tongbao.parties.people.model import Person
from tongbao.parties.user_wallets import _store as store
from tongbao.parties.user_wallets.model import (
    APPLICATION_LIFE,
    DECLINED,
    LINK_LIFE,
    LINKS_A_DAY_MAX,
    NOT_ELIGIBLE,
    ApplicationNotFound,
    ApplicationStateWrong,
    ApplicationUpdated,
    LinksTooMany,
    Programme,
    Proposal,
    ProposalState,
    ProposalUpdated,
    Purpose,
    Sitting,
    State,
    UserKnown,
    WalletApplication,
    view_application,
    view_proposal,
)
from tongbao.parties.user_wallets.programmes import active_programme, check_return

EXPIRY_POLICY: Final = RetryPolicy(
    attempts_max=200, delays=tuple(timedelta(seconds=s) for s in (5, 60, 600, 3600))
)


class ExpireApplication(Task, frozen=True, tag="user_wallets.expire_application"):
    """Let an application that nobody came to end expire."""

    application_id: UUID
    expires_at: datetime  # as it was asked for; asked anew it has another task


async def apply(
    tx: Tx, caller: Caller, user_ref: str, *, application_id: UUID
) -> WalletApplication:
    """Begin an application for a user of the merchant's, who has none yet.

    Raises:
        ProgrammeNotActive, UserKnown
    """
    programme = await active_programme(tx, caller.merchant_id, caller.mode)
    made = await store.INSERT_APPLICATION.first(
        tx,
        application_id,
        caller.merchant_id,
        caller.mode,
        user_ref,
        *_asked(programme),
        tx.now,
        tx.now + APPLICATION_LIFE,
    )
    if made is None:
        known = await store.OF_USER.one(tx, caller.merchant_id, caller.mode, user_ref)
        raise UserKnown(application=known.shown_id)
    await _expire_later(tx, made)
    await audit.record(tx, "wallet_application.made", made.shown_id, {})
    failpoint("user_wallets.before_apply_commit")
    return made


async def link_to_application(
    tx: Tx, caller: Caller, application_id: UUID, *, purpose: Purpose, return_url: str
) -> tuple[str, Sitting]:
    """Return the secret of a link to open a wallet by, or to manage one; earlier ones end.

    Raises:
        ProgrammeNotActive, ReturnUnknown, ApplicationNotFound, ApplicationStateWrong, LinksTooMany
    """
    found = await lock_own(tx, caller, application_id)
    programme = await active_programme(tx, caller.merchant_id, caller.mode)
    check_return(programme, return_url)
    if found.is_erased or (found.state is State.OPENED) != (purpose == "manage"):
        raise ApplicationStateWrong(status=found.state.value)
    if purpose == "open":
        row = (*_asked(programme), tx.now + APPLICATION_LIFE)
        found = await store.ASK.one(tx, found.id, *row)
        await _expire_later(tx, found)
    return await make_link(tx, found, purpose, return_url)


async def make_link(
    tx: Tx,
    application: WalletApplication,
    purpose: Purpose,
    return_url: str,
    proposal: Proposal | None = None,
) -> tuple[str, Sitting]:
    """Return the secret of a new link, kept as a digest only; the row of the application is locked.

    Raises:
        LinksTooMany
    """
    now = real_now()
    made = await store.LINKS_SINCE.one(tx, application.id, now - timedelta(days=1))
    if made >= LINKS_A_DAY_MAX:
        raise LinksTooMany(links_a_day_max=LINKS_A_DAY_MAX)
    proposal_id = proposal.id if proposal else None
    await store.END_OTHERS.run(tx, application.id, purpose, proposal_id, now)
    secret, key = new_secret(), new_id()
    await store.INSERT_LINK.run(
        tx,
        key,
        application.merchant_id,
        application.mode,
        application.id,
        proposal_id,
        purpose,
        return_url,
        hashed(secret),
        now,
        now + LINK_LIFE,
    )
    failpoint("user_wallets.before_link_commit")
    return secret, await store.LINKED.one(tx, hashed(secret), now)


async def open_wallet(
    tx: Tx, licence: Licence, sitting: Sitting, person: Person
) -> tuple[WalletApplication, EAccount]:
    """Make somebody's account the merchant's user's wallet: the one they have, or one opened now.

    Raises:
        ApplicationStateWrong, ProgrammeNotActive, EAccountClassUnknown, RealNameTooLow,
        AccountsTooMany, ReverificationNeeded, EAccountStateWrong
    """
    found = await store.LOCK_APPLICATION.one(tx, sitting.application_id)
    await active_programme(tx, found.merchant_id, found.mode)
    account = await account_for(
        tx, licence, person, found.account_class, public_key=sitting.device or b""
    )
    opened = await store.OPEN.first(tx, found.id, person.id, account.id, tx.now)
    if opened is None or not await store.END.run(tx, sitting.id, real_now()):
        raise ApplicationStateWrong(status=found.state.value)
    facts = {"person": person.actor, "account": account.shown_id}
    await audit.record(tx, "wallet_application.opened", opened.shown_id, facts)
    await tell(tx, opened)
    failpoint("user_wallets.before_open_commit")
    return opened, account


async def begin(tx: Tx, sitting: Sitting) -> None:
    """Write down that somebody has opened the link of an application."""
    begun = await store.BEGIN.first(tx, sitting.application_id)
    if begun is not None:
        await tell(tx, begun)


async def refuse(tx: Tx, sitting: Sitting, code: str, *, by: str) -> WalletApplication:
    """End an application that comes to no wallet, with all that its merchant hears of why.

    Raises:
        ApplicationStateWrong
    """
    refused = await store.REFUSE.first(tx, sitting.application_id, code)
    if refused is None or not await store.END.run(tx, sitting.id, real_now()):
        raise ApplicationStateWrong
    await audit.record(tx, "wallet_application.refused", refused.shown_id, {"by": by, "code": code})
    await tell(tx, refused)
    failpoint("user_wallets.before_refuse_commit")
    return refused


async def decline(tx: Tx, sitting: Sitting, by: str) -> WalletApplication:
    """Write down that somebody does not want the wallet.

    Raises:
        ApplicationStateWrong
    """
    return await refuse(tx, sitting, DECLINED, by=by)


async def turn_away(tx: Tx, sitting: Sitting) -> WalletApplication:
    """Write down that a rule of ours lets us open none; which one, the merchant does not hear.

    Raises:
        ApplicationStateWrong
    """
    return await refuse(tx, sitting, NOT_ELIGIBLE, by="rules")


BY_RULES: Final = (AccountsTooMany, EAccountClassUnknown)
"""What no patience of the person's changes today."""


async def leave(tx: Tx, application: WalletApplication, *, by: str) -> WalletApplication:
    """End what a merchant may do for somebody, with every page that is open and what waits.

    Ending it again changes nothing.
    """
    now_is = await store.LOCK_APPLICATION.one(tx, application.id)
    ended = await store.LEAVE.first(tx, application.id, tx.now, by)
    if ended is None:
        return now_is
    await store.END_ALL.run(tx, application.id, real_now())
    for each in await store.AWAITING_OF.all(tx, application.id):
        row = (ProposalState.AWAITING, ProposalState.DECLINED, None, None, tx.now)
        declined = await store.CLOSE_PROPOSAL.first(tx, each.id, *row)
        if declined is not None:
            await tell_proposal(tx, declined)
    await audit.record(tx, "wallet_application.ended", ended.shown_id, {"by": by})
    await tell(tx, ended)
    failpoint("user_wallets.before_leave_commit")
    return ended


async def revoke_own(tx: Tx, person: Person, application_id: UUID) -> WalletApplication:
    """End what a merchant may do for oneself; again changes nothing.

    Raises:
        ApplicationNotFound
    """
    found = await store.GET_APPLICATION.first(tx, application_id)
    if found is None or found.person_id != person.id:
        raise ApplicationNotFound
    return await leave(tx, found, by="person")


async def lock_own(tx: Tx, caller: Caller, application_id: UUID) -> WalletApplication:
    """Return an application of the caller's and hold its row.

    Raises:
        ApplicationNotFound
    """
    found = await store.LOCK_APPLICATION.first(tx, application_id)
    if found is None or (found.merchant_id, found.mode) != (caller.merchant_id, caller.mode):
        raise ApplicationNotFound
    return found


async def run_expire_application(db: Db, task: ExpireApplication, _lease: Lease) -> Again | None:
    """Let an application expire, unless it came to another end or was asked for anew."""
    async with db.begin("user_wallets") as tx:
        expired = await store.EXPIRE.first(tx, task.application_id, tx.now)
        if expired is None:
            found = await store.GET_APPLICATION.one(tx, task.application_id)
            is_open = found.state in {State.CREATED, State.IN_PROGRESS}
            is_mine = found.expires_at == task.expires_at
            return Again(found.expires_at - tx.now) if is_open and is_mine else None
        await audit.record(tx, "wallet_application.expired", expired.shown_id, {})
        await tell(tx, expired)
        failpoint("user_wallets.before_expiry_commit")
    return None


async def tell(tx: Tx, application: WalletApplication) -> None:
    """Tell the merchant how an application stands now."""
    await publish(
        tx,
        ApplicationUpdated(
            merchant_id=application.merchant_id,
            mode=application.mode,
            resource_id=application.shown_id,
            object=view_application(application),
        ),
    )


async def tell_proposal(tx: Tx, proposal: Proposal) -> None:
    """Tell the merchant how a proposal stands now."""
    await publish(
        tx,
        ProposalUpdated(
            merchant_id=proposal.merchant_id,
            mode=proposal.mode,
            resource_id=proposal.shown_id,
            object=view_proposal(proposal),
        ),
    )


async def prune_sittings(db: Db) -> None:
    """Forget links and sittings that were over a day ago; a day's links are counted by them."""
    await store.PRUNE.run(db, real_now() - timedelta(days=1))


async def _expire_later(tx: Tx, found: WalletApplication) -> None:
    task = ExpireApplication(found.id, found.expires_at)
    key = f"{found.id}/{found.expires_at.isoformat()}"
    await enqueue(tx, task, run_at=found.expires_at, key=key)


def _asked(programme: Programme) -> tuple[object, ...]:
    return (programme.account_class, programme.grants, programme.each_max, programme.day_max)
