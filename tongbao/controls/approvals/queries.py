"""What waits for other eyes, what became of the rest, and what each would change."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.controls.approvals import _store as store
from tongbao.controls.approvals.model import (
    PREFIX,
    Act,
    Acts,
    Approval,
    ApprovalNotFound,
    Approvals,
    ApprovalState,
    Bound,
    Change,
    terms_of,
)
from tongbao.controls.approvals.seconds import agreement_of, takes_two
from tongbao.infra.db import Db, Tx
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import show
from tongbao.kernel.pages import CursorInvalid, Page, decode_cursor, page_of, page_size


class ApprovalFilter(Struct, frozen=True):
    """Which approvals a list is about; what is left out does not matter."""

    states: Sequence[ApprovalState] | None = None
    act: str | None = None
    maker: str | None = None
    subject: str | None = None


async def approval_with_id(on: Db | Tx, approval_id: UUID) -> Approval:
    """Return an approval.

    Raises:
        ApprovalNotFound
    """
    found = await store.GET.first(on, approval_id)
    if found is None:
        raise ApprovalNotFound(approval=show(PREFIX, approval_id))
    return found


async def open_approval(on: Db | Tx, act: Act, subject: str) -> Approval | None:
    """Return what is proposed, or approved and not yet applied, about a thing."""
    return await store.OPEN_OF.first(on, act.name, subject)


async def open_about(
    on: Db | Tx, acts: Sequence[Act], subjects: Sequence[str]
) -> dict[str, Approval]:
    """Return what is proposed about some things by these acts, the newest of each, by subject."""
    if not subjects:
        return {}
    found = await store.OPEN_ABOUT.all(on, [act.name for act in acts], list(subjects))
    return {each.subject: each for each in found}


async def list_approvals(
    on: Db | Tx, wanted: ApprovalFilter, *, cursor: str | None = None, limit: int | None = None
) -> Page[Approval]:
    """Return a page of approvals, newest first.

    Raises:
        CursorInvalid, PageSizeInvalid
    """
    size = page_size(limit)
    states = None if wanted.states is None else [each.value for each in wanted.states]
    rows = await store.PAGE.all(
        on, states, wanted.act, wanted.maker, wanted.subject, _after(cursor), size + 1
    )
    return page_of(rows, size, lambda row: row.id)


async def count_for(desk: Approvals, actor: str, may: Collection[str]) -> int:
    """Return how many proposals wait that this person may decide about."""
    names = checkable(desk.acts, may)
    return await store.COUNT_FOR.one(desk.db, actor, names, desk.db.clock.now()) if names else 0


def checkable(acts: Acts, may: Collection[str]) -> list[str]:
    """Return the names of the acts that somebody with these permissions may decide about."""
    return [name for name, bound in acts.items() if bound.act.checker in may]


async def changes_of(desk: Approvals, approval: Approval) -> Sequence[Change]:
    """Return what an approval changes; one nobody here knows shows its terms as they are."""
    bound = desk.acts.get(approval.act)
    if bound is None:
        return terms_as_changes(approval)
    agreeing = await _agreeing(desk, bound, approval)
    if bound.show is None:
        return [*terms_as_changes(approval), *agreeing]
    shown = await bound.show(desk.db, approval, terms_of(bound.act, approval))
    return [*shown, *agreeing]


async def _agreeing(desk: Approvals, bound: Bound, approval: Approval) -> list[Change]:
    """Return how many have to agree, where one is not enough."""
    today = business_date(desk.db.clock.now())
    if not approval.state.is_open or not await takes_two(desk.db, bound.act, approval, today):
        return []
    first = await agreement_of(desk.db, approval.id)
    before = None if first is None else f"1: {first.checker}"
    return [Change("people who have to agree", "须复核人数", before, "2")]


def terms_as_changes(approval: Approval) -> list[Change]:
    """Return every term by its own name."""
    terms = msgspec.json.decode(approval.terms)
    return [
        Change(name, name, None, value if isinstance(value, str) else _plain(value))
        for name, value in terms.items()
    ]


def _plain(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _after(cursor: str | None) -> UUID | None:
    if cursor is None:
        return None
    try:
        [last] = decode_cursor(cursor)
        return UUID(last)
    except ValueError:
        raise CursorInvalid(param="cursor") from None
