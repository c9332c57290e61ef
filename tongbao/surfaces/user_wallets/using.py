"""The pages on which somebody agrees to a proposal, sees what they allowed, and ends it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final, Literal

from tongbao.kernel.errors import Busy, Refusal
from tongbao.kernel.ids import UnknownId, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.authentication.model import (
    Act,
    CodeWrong,
    Method,
    PasskeyRefused,
    PasskeyUnavailable,
    ProofRefused,
    level_of,
)
from tongbao.parties.authentication.step_up import (
    CODE_PREFIX,
    ByMessageCode,
    ByPasskey,
    PageQuestion,
    ask_passkey,
    prove,
    read_passkey,
)
from tongbao.parties.bound_cards.model import PREFIX as CARD
from tongbao.parties.bound_cards.model import BoundCard
from tongbao.parties.bound_cards.queries import cards_of_person
from tongbao.parties.e_accounts.model import PREFIX as ACCOUNT
from tongbao.parties.e_accounts.model import EAccountNotEmpty, NoBankThere
from tongbao.parties.e_accounts.opening import close_account
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.people.contacts import contacts_of
from tongbao.parties.people.model import Person
from tongbao.parties.user_wallets import applications, proposals, sittings
from tongbao.parties.user_wallets.model import Proposal, ProposalOver, ProposalState, State
from tongbao.parties.user_wallets.queries import account_of_application
from tongbao.parties.user_wallets.sittings import Seat, SittingOver
from tongbao.surfaces.page_kit.replies import Reply
from tongbao.surfaces.user_wallets.desk import Visit

_BY: Final = (Method.PASSWORD, Method.MESSAGE_CODE)
_NO_PASSKEY: Final = (UnknownId, ProofRefused, PasskeyRefused, PasskeyUnavailable)
Wrong = Literal["", "password", "code", "passkey", "not_empty", "card"]


async def show_step(visit: Visit, seat: Seat, *, wrong: Wrong = "", status: int = 200) -> Reply:
    """Show the page that the use of a wallet is at."""
    sitting = seat.sitting
    facts: dict[str, Any] = {"wrong": wrong}
    if sitting.person_id is None:
        return await visit.page("log_in.html", seat, status=status, **facts)
    person = await _person(visit, seat)
    account = await account_of_application(visit.desk.db, seat.application)
    facts |= {"account": account, "sent_to": ""}
    if sitting.message_code is not None:
        [first, *_] = await contacts_of(visit.desk.db, person.id)
        facts["sent_to"] = first.masked
    if seat.proposal is None:
        facts["question"] = await _question(visit, seat, person)
        return await visit.page("manage.html", seat, status=status, **facts)
    has_card = seat.proposal.kind in {"top_up", "withdrawal"}
    cards = await _cards(visit, person) if has_card else []
    may_go_without = sitting.mode is Mode.SANDBOX or not has_card
    # A passkey signs which card money goes over: where there is a choice, it is made first.
    is_chosen = sitting.message_code is not None if cards else may_go_without
    facts |= {
        "question": await _question(visit, seat, person) if is_chosen else None,
        "cards": [(show(CARD, each.id), each) for each in cards],
        "chosen": show(CARD, sitting.card_id) if sitting.card_id else "",
        "may_go_without": may_go_without,
    }
    return await visit.page("proposal.html", seat, status=status, **facts)


async def log_in(visit: Visit) -> Reply:
    """Take address and password of the wallet's person; whatever is wrong, the answer is the same.

    Raises:
        SittingOver, TooManyRequests
    """
    seat = await visit.open_seat()
    if seat.sitting.purpose == "open" or seat.sitting.person_id is not None:
        return visit.again()
    contact, password = visit.field("contact", 254), visit.field("password", 512)
    person = await sittings.log_in(visit.desk.checks, seat, contact, password)
    if person is None:
        return await show_step(visit, seat, wrong="password", status=422)
    return visit.again()


async def send(visit: Visit) -> Reply:
    """Send a code about exactly this: the proposal over the card that is named, or the closing.

    Raises:
        SittingOver, TooManyRequests, CodesTooMany, StrongerProofNeeded
    """
    seat = await visit.open_seat()
    person, desk = await _person(visit, seat), visit.desk
    try:
        card = await _card(visit, seat, person)
    except NoBankThere:
        return await show_step(visit, seat, wrong="card", status=422)
    act = await _act(visit, seat, card)
    await sittings.check_strength(desk.checks, seat.sitting, person, act)
    await sittings.send_confirming(
        desk.checks,
        seat.sitting,
        person,
        act,
        source=visit.source,
        card_id=card.id if card else None,
    )
    return visit.again()


async def confirm(visit: Visit) -> Reply:
    """Take the code, write down that the person agrees, and have it done.

    Raises:
        SittingOver, TooManyRequests, StrongerProofNeeded, ProposalOver, ProposalTooLarge,
        ApplicationStateWrong, ProgrammeNotActive
    """
    seat = await visit.open_seat()
    if seat.proposal is None:
        raise SittingOver
    if not await _proved(visit, seat):
        return await show_step(visit, seat, wrong="code", status=422)
    return await _agreed(visit, seat, seat.proposal)


async def confirm_by_passkey(visit: Visit) -> Reply:
    """Take a passkey's signature over exactly what the page shows in place of the code.

    Raises:
        SittingOver, TooManyRequests, StrongerProofNeeded, ProposalOver, ProposalTooLarge,
        ApplicationStateWrong, ProgrammeNotActive
    """
    seat, form = await visit.open_seat(), visit.request.form
    try:
        claim = read_passkey(form.get("challenge_id", ""), form.get("response", ""))
        await _prove(visit, seat, claim)
    except _NO_PASSKEY:
        return await show_step(visit, seat, wrong="passkey", status=422)
    if seat.proposal is not None:
        return await _agreed(visit, seat, seat.proposal)
    return await _closed(visit, seat)


async def _agreed(visit: Visit, seat: Seat, proposal: Proposal) -> Reply:
    """Write down that the person agrees, and have it done."""
    desk = visit.desk
    level, card_id = int(level_of(_BY)), seat.sitting.card_id
    found = await proposals.agree(desk.db, seat.sitting, proposal, level=level, card_id=card_id)
    with suppress(Busy, Refusal):  # its task goes on with it
        found = await proposals.carry_out(desk.carrier, found.id)
    return _told(visit, seat, found)


async def decline(visit: Visit) -> Reply:
    """Write down that the person does not want what was proposed, and send them back.

    Raises:
        SittingOver, TooManyRequests, ProposalOver
    """
    seat = await visit.open_seat()
    if seat.proposal is None or seat.sitting.person_id is None:
        raise SittingOver
    async with visit.desk.db.begin("somebody") as tx:
        declined = await proposals.decline(tx, seat.sitting, seat.proposal)
    return _told(visit, seat, declined)


async def go_back(visit: Visit) -> Reply:
    """Close the page and send the person back; nothing else changes.

    Raises:
        SittingOver, TooManyRequests
    """
    seat = await visit.open_seat()
    async with visit.desk.db.begin("somebody") as tx:
        await sittings.end(tx, seat.sitting)
    return _left(visit, seat, seat.application.state.value)


async def revoke(visit: Visit) -> Reply:
    """End what the merchant may do; the account stays the person's.

    Raises:
        SittingOver, TooManyRequests
    """
    seat, person = await _managing(visit)
    async with visit.desk.db.begin(person.actor) as tx:
        ended = await applications.leave(tx, seat.application, by="person")
        await sittings.end(tx, seat.sitting)
    return _left(visit, seat, ended.state.value)


async def close(visit: Visit) -> Reply:
    """Close the account, which is empty, and end what the merchant may do, in one commit.

    Raises:
        SittingOver, TooManyRequests, StrongerProofNeeded
    """
    seat, _ = await _managing(visit)
    if not await _proved(visit, seat):
        return await show_step(visit, seat, wrong="code", status=422)
    return await _closed(visit, seat)


async def _closed(visit: Visit, seat: Seat) -> Reply:
    """Close the account and end the merchant's part in one commit; one that is full stays.

    Raises:
        SittingOver
    """
    person = await _person(visit, seat)
    account = await account_of_application(visit.desk.db, seat.application)
    try:
        async with visit.desk.db.begin(person.actor) as tx:
            ended = await applications.leave(tx, seat.application, by="person")
            await close_account(tx, account)
            await sittings.end(tx, seat.sitting)
    except EAccountNotEmpty:
        return await show_step(visit, seat, wrong="not_empty", status=422)
    return _left(visit, seat, ended.state.value)


async def _managing(visit: Visit) -> tuple[Seat, Person]:
    seat = await visit.open_seat()
    if seat.sitting.purpose != "manage":
        raise SittingOver
    return seat, await _person(visit, seat)


async def _person(visit: Visit, seat: Seat) -> Person:
    """Return who sits here, whose wallet it still is.

    Raises:
        SittingOver
    """
    person = await visit.person(seat.sitting)
    if person.id != seat.application.person_id or seat.application.state is not State.OPENED:
        raise SittingOver
    return person


async def _proved(visit: Visit, seat: Seat) -> bool:
    """Tell whether the code is right that was sent about exactly this; it is used up by that.

    Raises:
        SittingOver, StrongerProofNeeded
    """
    sitting = seat.sitting
    if sitting.message_code is None:
        raise SittingOver
    claim = ByMessageCode(show(CODE_PREFIX, sitting.message_code), visit.field("code", 16).strip())
    try:
        await _prove(visit, seat, claim)
    except (CodeWrong, ProofRefused):
        return False
    return True


async def _prove(visit: Visit, seat: Seat, claim: ByMessageCode | ByPasskey) -> None:
    """Take a proof about exactly what is shown.

    Raises:
        SittingOver, StrongerProofNeeded, CodeWrong, UnknownId, ProofRefused, PasskeyRefused,
        PasskeyUnavailable
    """
    checks, person = visit.desk.checks, await _person(visit, seat)
    act = await _act(visit, seat, await _chosen_card(visit, seat, person))
    holder = await sittings.check_strength(checks, seat.sitting, person, act)
    await prove(checks, holder, claim, act)


async def _question(visit: Visit, seat: Seat, person: Person) -> PageQuestion | None:
    """Return what a passkey of the person's is asked to sign, about exactly what is shown."""
    act = await _act(visit, seat, await _chosen_card(visit, seat, person))
    return await ask_passkey(visit.desk.checks, person.id, act, person.actor)


async def _chosen_card(visit: Visit, seat: Seat, person: Person) -> BoundCard | None:
    """Return the card that was chosen for what is shown, if one was.

    Raises:
        SittingOver: it is theirs no more.
    """
    wanted = seat.sitting.card_id
    if wanted is None:
        return None
    for each in await _cards(visit, person):
        if each.id == wanted:
            return each
    raise SittingOver


async def _act(visit: Visit, seat: Seat, card: BoundCard | None) -> Act:
    account = await account_of_application(visit.desk.db, seat.application)
    if seat.proposal is None:
        return Act("security", f"e_account.close {account.shown_id}")
    if seat.proposal.state is not ProposalState.AWAITING:
        raise ProposalOver(status=seat.proposal.state.value)
    payee = await _payee(visit, seat.proposal, card)
    return await proposals.act_of(visit.desk.db, account, seat.proposal, payee)


async def _card(visit: Visit, seat: Seat, person: Person) -> BoundCard | None:
    """Return the card that money goes over: the one that is named, and in the sandbox none.

    Raises:
        NoBankThere
    """
    if seat.proposal is None or seat.proposal.kind in {"payment", "transfer"}:
        return None
    named = visit.field("card", 64)
    if not named and seat.sitting.mode is Mode.SANDBOX:
        return None
    try:
        wanted = parse(CARD, named)
    except UnknownId:
        raise NoBankThere from None
    for each in await _cards(visit, person):
        if each.id == wanted:
            return each
    raise NoBankThere


async def _cards(visit: Visit, person: Person) -> list[BoundCard]:
    return list(await cards_of_person(visit.desk.db, person.id, person.mode))


async def _payee(visit: Visit, proposal: Proposal, card: BoundCard | None) -> str:
    if proposal.kind == "payment":
        return (await merchant_with_id(visit.desk.db, proposal.merchant_id)).name
    if proposal.payee_id is not None:
        return show(ACCOUNT, proposal.payee_id)
    return "own bank" if card is None else show(CARD, card.id)


def _told(visit: Visit, seat: Seat, found: Proposal) -> Reply:
    told = {"wallet_proposal": found.shown_id, "status": found.state.value}
    return visit.back(seat.sitting, told)


def _left(visit: Visit, seat: Seat, status: str) -> Reply:
    told = {"wallet_application": seat.application.shown_id, "status": status}
    return visit.back(seat.sitting, told)
