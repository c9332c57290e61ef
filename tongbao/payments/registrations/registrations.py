"""Take an opened merchant on at its channels: commit, call, commit the answer, ask until it ends.

The order is the one of every effect outside. Sending is written down before it is done, so whoever
dies in the call is followed by somebody who asks the channel first, and sends again only what the
channel says it has not.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Final
from uuid import UUID

from msgspec import Struct
from msgspec.structs import replace

from tongbao.infra import audit
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Tx
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, publish
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, enqueue
from tongbao.kernel.ids import base32, derived_id, new_id, show
from tongbao.parties.merchants.merchants import connect_channel
from tongbao.parties.onboarding import queries as applications
from tongbao.parties.onboarding.applications import ApplicationMoved
from tongbao.parties.onboarding.documents import read_document
from tongbao.parties.onboarding.model import Application, ApplicationState
from tongbao.payments.registrations import _store as store
from tongbao.payments.registrations.model import (
    PREFIX,
    Registration,
    RegistrationContended,
    RegistrationNotFound,
    RegistrationNotManual,
    RegistrationNotRejected,
    RegistrationState,
    next_registration,
)
from tongbao.rails.channels.accounts import (
    NewAccount,
    SecretTypes,
    add_account,
    list_accounts,
    open_accounts,
)
from tongbao.rails.channels.capabilities.registrations import (
    Picture,
    Registering,
    RegistrationOrder,
    RegistrationOutcome,
)
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer, Exchange

_ACTOR: Final = "registrations"
_TRIES_MAX: Final = 8
_DELAYS: Final = tuple(timedelta(minutes=m) for m in (1, 2, 5, 15, 30, 60, 120, 240))
_WITHOUT_ACCOUNT: Final = timedelta(hours=1)
REGISTRATION_POLICY: Final = RetryPolicy(attempts_max=20, delays=_DELAYS)


class ChaseRegistration(Task, frozen=True, tag="registrations.chase"):
    """Send a registration, and ask what became of it until the channel has said."""

    registration_id: UUID


class RegistrationMoved(Event, frozen=True, kw_only=True, tag="registration.moved"):
    """A registration stands somewhere else now. Between our own domains."""

    registration_id: UUID
    state: str


class Registrar(Struct, frozen=True):
    """What registering needs, built once by wiring."""

    db: Db
    keyring: Keyring
    blobs: Blobs
    channels: Mapping[str, Channel]
    account: Callable[[UUID], Awaitable[ChannelAccount]]
    secret_types: SecretTypes


async def on_application_moved(
    registrar: Registrar, event: ApplicationMoved, _event_id: UUID
) -> None:
    """Begin a registration at each channel that an opened merchant asked for; once for each."""
    if not ApplicationState(event.state).has_merchant:
        return
    async with registrar.db.begin(_ACTOR) as tx:
        application = await applications.application_with_id(tx, event.application_id)
        for asked in application.form.channels:
            await _begin(tx, registrar, application, asked.channel)


async def _begin(tx: Tx, registrar: Registrar, application: Application, channel: str) -> None:
    is_registered_by_us = isinstance(registrar.channels.get(channel), Registering)
    registration_id = derived_id(application.id, f"registration {channel}")
    made = await store.INSERT_REGISTRATION.first(
        tx,
        registration_id,
        application.id,
        application.opened_merchant_id,
        application.mode,
        channel,
        await _provider(tx, application, channel),
        base32(registration_id).upper(),
        RegistrationState.WAITING if is_registered_by_us else RegistrationState.MANUAL,
        tx.now,
    )
    if made is None:
        return
    await audit.record(tx, "registration.begun", show(PREFIX, made.id), {"channel": channel})
    if is_registered_by_us:
        await enqueue(tx, ChaseRegistration(made.id), key=f"registration/{made.id}")


async def _provider(on: Db | Tx, application: Application, channel: str) -> UUID | None:
    """Return our own account at the channel, the oldest: those of sub-merchants came after it."""
    rows = open_accounts(await list_accounts(on), application.mode)
    ours = [row for row in rows if row.channel == channel]
    return min(ours, key=lambda row: row.id).id if ours else None


async def chase_registration(
    registrar: Registrar, task: ChaseRegistration, _lease: Lease
) -> Again | None:
    """Take the next step of a registration; return when to look again, or None at rest."""
    found = await registration_with_id(registrar.db, task.registration_id)
    if not found.state.is_chased:
        return None
    found = await look(registrar, found)
    if not found.state.is_chased:
        return None
    if found.account_id is None:
        return Again(_WITHOUT_ACCOUNT)
    # What is refused at the door is sent again less and less often, too.
    tries = found.queries + max(found.sends - 1, 0)
    return Again(_DELAYS[min(tries, len(_DELAYS) - 1)])


async def look(registrar: Registrar, registration: Registration) -> Registration:
    """Send what waits and was never sent, ask about anything else, and write the answer down.

    Raises:
        RegistrationContended, BlobNotFound, BlobDamaged, BlobStoreUnavailable
    """
    channel: object = registrar.channels.get(registration.channel)
    application = await applications.application_with_id(registrar.db, registration.application_id)
    if registration.account_id is None:
        account_id = await _provider(registrar.db, application, registration.channel)
        if account_id is None:
            return registration
        registration = await _put(registrar, replace(registration, account_id=account_id))
    if not isinstance(channel, Registering) or registration.account_id is None:
        return registration
    account = await registrar.account(registration.account_id)
    order = await _order(registrar, registration, application)
    if registration.state is RegistrationState.WAITING:
        failpoint("registrations.before_intention")
        registration = await _put(
            registrar,
            replace(registration, state=RegistrationState.ASKED, sends=registration.sends + 1),
        )
        failpoint("registrations.after_intention")
        answer, was_sent = await channel.register(account, order), True
    else:
        answer, was_sent = await channel.query_registration(account, order), False
    failpoint("registrations.after_call")
    return await _record(registrar, registration, answer, account, was_sent=was_sent)


async def _record(
    registrar: Registrar,
    registration: Registration,
    answer: Answer[RegistrationOutcome],
    account: ChannelAccount,
    *,
    was_sent: bool,
) -> Registration:
    """Write an answer down once, with the account that a finished registration comes to."""
    for _ in range(_TRIES_MAX):
        async with registrar.db.begin(_ACTOR) as tx:
            becomes = next_registration(registration, answer.outcome, tx.now, was_sent=was_sent)
            becomes = replace(becomes, queries=0 if was_sent else becomes.queries + 1)
            is_new = becomes.state is not registration.state
            if is_new and becomes.state is RegistrationState.FINISHED:
                becomes = await _connect(tx, registrar, becomes, account)
            failpoint("registrations.before_answer")
            kept = await _update(tx, becomes)
            if kept is not None:
                outcome = type(answer.outcome).__name__.lower()
                purpose = "register" if was_sent else "query"
                await _evidence(tx, kept, purpose, answer.exchange, outcome)
                if is_new:
                    await _tell(tx, kept)
        if kept is not None:
            failpoint("registrations.after_answer")
            return kept
        registration = await registration_with_id(registrar.db, registration.id)
    raise RegistrationContended


async def _connect(
    tx: Tx, registrar: Registrar, registration: Registration, account: ChannelAccount
) -> Registration:
    """Let the merchant take payments at the channel, over an account of its own if it has one."""
    channel: object = registrar.channels[registration.channel]
    number = registration.sub_merchant or ""
    own = channel.sub_account(account, number) if isinstance(channel, Registering) else None
    connected = account.id
    if own is not None:
        app_id, keys = own
        new = NewAccount(
            channel=account.channel,
            mode=account.mode,
            gateway=account.gateway,
            merchant_number=number,
            app_id=app_id,
            fee_ppm=account.fee_ppm,
            keys=keys,
        )
        connected = (await add_account(tx, registrar.keyring, registrar.secret_types, new)).id
    await connect_channel(
        tx, registration.merchant_id, registration.mode, registration.channel, connected
    )
    return replace(registration, connected_id=connected)


async def send_again(tx: Tx, application: Application, channel: str) -> Registration:
    """Send a rejected registration again, with what the application says now.

    Raises:
        RegistrationNotFound, RegistrationNotRejected, RegistrationContended
    """
    found = await registration_at(tx, application.id, channel)
    if found.state is not RegistrationState.REJECTED:
        raise RegistrationNotRejected(status=found.state.value)
    waiting = replace(found, state=RegistrationState.WAITING, reasons=[], queries=0)
    kept = await _update(tx, waiting)
    if kept is None:
        raise RegistrationContended
    await enqueue(tx, ChaseRegistration(found.id), key=f"registration/{found.id}/{kept.version}")
    await audit.record(tx, "registration.sent_again", show(PREFIX, found.id), {})
    return kept


async def write_result(
    tx: Tx, registration: Registration, *, sub_merchant: str, account_id: UUID
) -> Registration:
    """Write down what a channel without such calls answered to a person.

    Raises:
        RegistrationNotManual, RegistrationContended, MerchantNotFound
    """
    if registration.state is not RegistrationState.MANUAL:
        raise RegistrationNotManual(status=registration.state.value)
    await connect_channel(
        tx, registration.merchant_id, registration.mode, registration.channel, account_id
    )
    kept = await _update(
        tx,
        replace(
            registration,
            state=RegistrationState.FINISHED,
            sub_merchant=sub_merchant,
            account_id=account_id,
            connected_id=account_id,
            ended_at=tx.now,
        ),
    )
    if kept is None:
        raise RegistrationContended
    await _tell(tx, kept)
    return kept


async def registration_with_id(on: Db | Tx, registration_id: UUID) -> Registration:
    """Return a registration.

    Raises:
        RegistrationNotFound
    """
    found = await store.GET_REGISTRATION.first(on, registration_id)
    if found is None:
        raise RegistrationNotFound
    return found


async def registration_at(on: Db | Tx, application_id: UUID, channel: str) -> Registration:
    """Return an application's registration at a channel.

    Raises:
        RegistrationNotFound
    """
    found = await store.FIND_REGISTRATION.first(on, application_id, channel)
    if found is None:
        raise RegistrationNotFound
    return found


async def _order(
    registrar: Registrar, registration: Registration, application: Application
) -> RegistrationOrder:
    """Return the application in the channel's terms; pictures only where they are to be sent."""
    form, personal = application.form, applications.personal_of(registrar.keyring, application)
    pictures: dict[str, Picture] = {}
    if registration.state is RegistrationState.WAITING:
        for each in await applications.documents_of(registrar.db, application.id):
            if each.media_type == "application/pdf":
                continue  # for our own reviewers; channels take pictures
            content = await read_document(registrar.blobs, each)
            pictures[each.kind.value] = Picture(each.kind.value, each.media_type, content)
    terms = {each.channel: each.terms for each in form.channels}
    return RegistrationOrder(
        number=registration.number,
        channel_ref=registration.channel_ref,
        firm_kind=form.firm.kind,
        legal_name=form.firm.legal_name,
        short_name=form.firm.short_name,
        credit_code=form.firm.credit_code,
        firm_address=form.firm.address,
        license_begins=form.firm.license_begins,
        license_ends=form.firm.license_ends,
        legal_person=personal.legal_name,
        id_number=personal.id_number,
        id_begins=form.id_begins,
        id_ends=form.id_ends,
        id_address=personal.address,
        contact=personal.contact_name,
        phone=personal.phone,
        email=personal.email,
        account_kind=form.account_kind,
        holder=personal.holder,
        account_number=personal.number,
        bank=form.bank,
        bank_number=form.bank_number,
        bank_area_code=form.bank_area_code,
        mcc=form.trade.mcc,
        service_phone=form.trade.service_phone,
        store_name=form.trade.store_name,
        area_code=form.trade.area_code,
        store_address=form.trade.address,
        signed_at=application.submitted_at or registration.created_at,
        terms=terms.get(registration.channel, {}),
        pictures=pictures,
    )


async def _put(registrar: Registrar, registration: Registration) -> Registration:
    async with registrar.db.begin(_ACTOR) as tx:
        kept = await _update(tx, registration)
    if kept is None:
        raise RegistrationContended
    return kept


async def _update(tx: Tx, row: Registration) -> Registration | None:
    return await store.UPDATE_REGISTRATION.first(
        tx,
        row.id,
        row.version,
        row.state,
        row.channel_ref,
        row.sub_merchant,
        row.action_url,
        row.reasons,
        row.connected_id,
        row.sends,
        row.queries,
        row.account_id,
        row.ended_at,
    )


async def _evidence(
    tx: Tx, registration: Registration, purpose: str, seen: Exchange, outcome: str
) -> None:
    await store.INSERT_EXCHANGE.run(
        tx,
        new_id(),
        registration.id,
        purpose,
        seen.method,
        seen.url,
        seen.request,
        seen.status,
        seen.reply,
        seen.duration_ms,
        outcome,
        tx.now,
    )


async def _tell(tx: Tx, registration: Registration) -> None:
    shown, state = show(PREFIX, registration.id), registration.state.value
    facts = {"channel": registration.channel, "sub_merchant": registration.sub_merchant}
    await audit.record(tx, f"registration.{state}", shown, facts)
    moved = RegistrationMoved(
        merchant_id=registration.merchant_id,
        mode=registration.mode,
        resource_id=shown,
        registration_id=registration.id,
        state=state,
    )
    await publish(tx, moved)
