"""What merchants, people and operators may read of wallets as a service."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from tongbao.controls.retention.model import Raw
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import real_now
from tongbao.kernel.licence import Mode
from tongbao.kernel.pages import Page, decode_moment, page_by_moment, page_size
from tongbao.parties.e_accounts.model import EAccount
from tongbao.parties.e_accounts.queries import account_of_person
from tongbao.parties.people.dossier import Contributor
from tongbao.parties.people.model import Kept
from tongbao.parties.user_wallets import _store as store
from tongbao.parties.user_wallets.applications import leave
from tongbao.parties.user_wallets.model import (
    ApplicationNotFound,
    ApplicationStateWrong,
    Grant,
    Proposal,
    ProposalNotFound,
    ProposalState,
    State,
    WalletApplication,
)
from tongbao.parties.user_wallets.programmes import active_programme

_ROWS_MAX: Final = 10_000
_KEPT_BECAUSE: Final = "中华人民共和国反洗钱法（2024年修订）：客户身份资料和交易记录至少保存十年"


UNOPENED_KEPT: Final = Raw(
    "wallet_application",
    "What merchants call users who never opened a wallet",
    "未开户申请中商户侧的用户标识",
    store.ERASE_UNOPENED,
    has_book=False,
    is_licensed=True,
)


async def application_of_merchant(
    on: Db | Tx, merchant_id: UUID, mode: Mode, application_id: UUID
) -> WalletApplication:
    """Return one of the merchant's applications.

    Raises:
        ApplicationNotFound: also for another merchant's, or another mode's.
    """
    found = await store.GET_APPLICATION.first(on, application_id)
    if found is None or (found.merchant_id, found.mode) != (merchant_id, mode):
        raise ApplicationNotFound
    return found


async def applications_of_merchant(
    on: Db | Tx,
    merchant: tuple[UUID, Mode],
    *,
    user_ref: str | None = None,
    state: State | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[WalletApplication]:
    """Return a page of a merchant's applications, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    rows = await store.APPLICATIONS.all(on, *merchant, user_ref, state, before, size + 1)
    return page_by_moment(rows, size, lambda row: (row.created_at, row.id))


async def find_applications(
    on: Db | Tx,
    mode: Mode,
    *,
    merchant_id: UUID | None = None,
    user_ref: str | None = None,
    state: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[WalletApplication]:
    """Return a page of every merchant's applications, newest first, for operators.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    rows = await store.SEEN.all(on, mode, merchant_id, user_ref, state, before, size + 1)
    return page_by_moment(rows, size, lambda row: (row.created_at, row.id))


async def application_with_id(on: Db | Tx, application_id: UUID) -> WalletApplication:
    """Return an application that is known to exist."""
    return await store.GET_APPLICATION.one(on, application_id)


async def applications_of_person(
    on: Db | Tx, person_id: UUID, before: UUID | None, most: int
) -> list[WalletApplication]:
    """Return whom somebody lets use an account of theirs, or did, newest first."""
    return await store.OF_PERSON.all(on, person_id, before, most)


async def proposal_of_merchant(
    on: Db | Tx, merchant_id: UUID, mode: Mode, proposal_id: UUID
) -> Proposal:
    """Return one of the merchant's proposals.

    Raises:
        ProposalNotFound: also for another merchant's, or another mode's.
    """
    found = await store.GET_PROPOSAL.first(on, proposal_id)
    if found is None or (found.merchant_id, found.mode) != (merchant_id, mode):
        raise ProposalNotFound
    return found


async def proposals_of_merchant(
    on: Db | Tx,
    merchant: tuple[UUID, Mode],
    *,
    application_id: UUID | None = None,
    state: ProposalState | None = None,
    number: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> Page[Proposal]:
    """Return a page of a merchant's proposals, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    _, before = decode_moment(cursor)
    rows = await store.PROPOSALS.all(on, *merchant, application_id, state, number, before, size + 1)
    return page_by_moment(rows, size, lambda row: (row.created_at, row.id))


async def account_to_read(
    on: Db | Tx, merchant_id: UUID, mode: Mode, application_id: UUID, grant: Grant
) -> EAccount:
    """Return the account that a person lets the merchant look at.

    Raises:
        ProgrammeNotActive, ApplicationNotFound, ApplicationStateWrong, NotGranted
    """
    found = await application_of_merchant(on, merchant_id, mode, application_id)
    await active_programme(on, merchant_id, mode)
    found.check_grants(grant)
    return await account_of_application(on, found)


async def account_of_application(on: Db | Tx, found: WalletApplication) -> EAccount:
    """Return the account of an application that was opened.

    Raises:
        ApplicationStateWrong, EAccountNotFound
    """
    if found.person_id is None or found.account_id is None:
        raise ApplicationStateWrong(status=found.state.value)
    return await account_of_person(on, found.mode, found.person_id, found.account_id)


def contributor() -> Contributor:
    """Return what this domain keeps of a person: whom they let use their account, and for what."""
    return Contributor("user_wallets", _show, _erase)


async def _show(db: Db, person_id: UUID) -> list[dict[str, Any]]:
    found = await store.OF_PERSON.all(db, person_id, None, _ROWS_MAX)
    proposals = await store.PROPOSALS_OF_PERSON.all(db, person_id)
    return [
        *(
            {
                "id": each.shown_id,
                "state": each.state.value,
                "grants": each.grants,
                "opened_at": each.opened_at.isoformat() if each.opened_at else None,
                "ended_at": each.ended_at.isoformat() if each.ended_at else None,
            }
            for each in found
        ),
        *(
            {
                "id": each.shown_id,
                "kind": each.kind,
                "amount": each.amount,
                "purpose": each.purpose,
                "state": each.state.value,
                "created_at": each.created_at.isoformat(),
            }
            for each in proposals
        ),
    ]


async def _erase(tx: Tx, person_id: UUID) -> list[Kept]:
    """End what merchants may do; what was agreed to is evidence and stays, by the person's id."""
    found = await store.OF_PERSON.all(tx, person_id, None, _ROWS_MAX)
    for each in found:
        await leave(tx, each, by="erasure")
    await store.FORGET_SITTINGS.run(tx, person_id, real_now())
    return [Kept("what merchants were allowed", _KEPT_BECAUSE, None)] if found else []
