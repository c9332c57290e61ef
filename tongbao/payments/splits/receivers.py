"""Who may get shares: bound once, at the channel too where it gives the shares."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Final, Literal
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import astuple, replace

from tongbao.controls.approvals.approvals import in_transaction
from tongbao.controls.approvals.model import Act, Approval, Bound
from tongbao.infra import audit
from tongbao.infra.crypto import Keyring, bind, hmac_sha256
from tongbao.infra.db import Db, Tx, Write, write_all
from tongbao.infra.failpoints import failpoint
from tongbao.infra.outbox import Event, event_write
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task, task_write
from tongbao.infra.web.caller import Caller
from tongbao.infra.web.idempotency import InFlight
from tongbao.kernel.errors import Conflict, NotFound, Rejected
from tongbao.kernel.ids import parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.accounts.queries import wallet_of_caller
from tongbao.parties.merchants import queries as merchants
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.payments import Taking
from tongbao.payments.splits import _store as store
from tongbao.payments.splits.model import ReceiverRow, ReceiverState, ReceiverView, view_receiver
from tongbao.rails.channels.capabilities.shares import Receiver, Splitting
from tongbao.rails.channels.contract.outcomes import Declined, Succeeded

_PURPOSE: Final = "split.receiver"
_DELAYS: Final = tuple(timedelta(seconds=s) for s in (2, 10, 30, 60, 300, 1800, 3600))
RECEIVER_POLICY: Final = RetryPolicy(attempts_max=20, delays=_DELAYS)
_BOUND_ALREADY: Final = "split.receiver_bound"


class ReceiverNotFound(NotFound):
    """The caller has bound no such receiver."""

    code = "split.receiver_not_found"
    advice = "List the receivers to find its id."
    advice_zh = "请通过分账接收方列表查找正确的标识。"


class ReceiverNotOffered(Rejected):
    """Such a receiver cannot get shares here: not on this channel, in this book or licence."""

    code = "split.receiver_not_offered"
    advice = "Bind a receiver at a channel that splits, or a merchant or wallet of this platform."
    advice_zh = "请绑定支持分账的渠道接收方，或本平台的商户与钱包。"


class ReceiverNotActive(Conflict):
    """The receiver is not bound yet, or not any more."""

    code = "split.receiver_not_active"
    advice = "Wait until the receiver is active, or bind it again."
    advice_zh = "请等待接收方绑定成功，或重新绑定。"


class Sharing(Struct, frozen=True):
    """What every step about shares needs, built once by wiring."""

    flow: Flow
    keyring: Keyring


class ReceiverAsked(Struct, frozen=True):
    """Who is to be bound; ``account`` is an id of ours, or what the channel knows them by."""

    kind: Literal["merchant", "wallet", "channel"]
    account: str
    relation: str
    channel: str | None = None
    channel_kind: str | None = None
    name: str | None = None


class ChaseReceiver(Task, frozen=True, tag="splits.chase_receiver"):
    """Bind or unbind a receiver at its channel until it says yes or no."""

    book: int
    receiver_id: UUID


class ReceiverChanged(Event, frozen=True, kw_only=True, tag="split_receiver.changed"):
    """A channel has bound, refused or forgotten a receiver."""

    object: ReceiverView


class _Sealed(Struct, frozen=True):
    account: str
    name: str | None


async def bind_receiver(
    sharing: Sharing,
    caller: Caller,
    asked: ReceiverAsked,
    *,
    take: Taking,
    receiver_id: UUID,
) -> ReceiverRow:
    """Bind a receiver; who is bound already stays as they are.

    Raises:
        ReceiverNotOffered, ChannelNotOpened, InFlight
    """
    flow, now = sharing.flow, sharing.flow.db.clock.now()
    row = await _row(sharing, caller, asked, receiver_id)
    writes = [
        take(receiver_id, now),
        Write(store.INSERT_RECEIVER, astuple(row), refusal=_BOUND_ALREADY),
    ]
    if row.kind == "channel":
        task = ChaseReceiver(row.book, row.id)
        run_at = now + _DELAYS[1]
        writes.append(task_write(task, run_at=run_at, key=f"receiver/{row.id}"))
    failpoint("splits.before_receiver")
    async with flow.db.begin("splits") as tx:
        refused = await write_all(tx, writes)
    if refused == _BOUND_ALREADY:
        whose = (caller.book, caller.merchant_id, caller.mode)
        found = await store.RECEIVER_BOUND.one(flow.db, *whose, row.account_mac)
        async with flow.db.begin("splits") as tx:
            await take(found.id, tx.now).run(tx)
        return found
    if refused is not None:
        raise InFlight
    failpoint("splits.after_receiver")
    return await ask_about_receiver(sharing, row) if row.kind == "channel" else row


async def _row(
    sharing: Sharing, caller: Caller, asked: ReceiverAsked, receiver_id: UUID
) -> ReceiverRow:
    flow, is_ours = sharing.flow, asked.kind != "channel"
    party_id = await _party(flow, caller, asked) if is_ours else None
    account_id = None if is_ours else await _account_at_channel(flow, caller, asked)
    what = f"{asked.kind}/{asked.channel}/{asked.channel_kind}/{asked.account}".encode()
    sealed = msgspec.json.encode(_Sealed(asked.account, asked.name))
    at = bind("split_receiver", "sealed", receiver_id)
    return ReceiverRow(
        book=caller.book,
        id=receiver_id,
        merchant_id=caller.merchant_id,
        mode=caller.mode,
        kind=asked.kind,
        party_id=party_id,
        account_id=account_id,
        channel=None if is_ours else asked.channel,
        channel_kind=None if is_ours else asked.channel_kind,
        account_masked=asked.account if is_ours else f"•••• {asked.account[-4:]}",
        account_mac=hmac_sha256(sharing.keyring.mac_key("split.receiver_mac"), what),
        sealed=None if is_ours else sharing.keyring.seal(_PURPOSE, sealed, at),
        relation=asked.relation,
        state=ReceiverState.ACTIVE if is_ours else ReceiverState.BINDING,
        code=None,
        created_at=flow.db.clock.now(),
        ended_at=None,
        version=1,
    )


async def _party(flow: Flow, caller: Caller, asked: ReceiverAsked) -> UUID:
    """Return whose account of ours gets the shares: it is in the payer's own book.

    Raises:
        ReceiverNotOffered, WalletNotFound
    """
    if not flow.licence.may_hold_funds:
        raise ReceiverNotOffered(kind=asked.kind)
    if asked.kind == "wallet":
        return (await wallet_of_caller(flow.db, caller, parse("wal", asked.account))).id
    other = parse("mch", asked.account)
    found = (await merchants.merchants_with_ids(flow.db, [other])).get(other)
    if found is None or other == caller.merchant_id or found.book(caller.mode) != caller.book:
        raise ReceiverNotOffered(kind=asked.kind)
    return found.id


async def _account_at_channel(flow: Flow, caller: Caller, asked: ReceiverAsked) -> UUID:
    """Return which of our accounts at the channel will give the shares.

    Raises:
        ReceiverNotOffered, ChannelNotOpened
    """
    channel: object = flow.channels.get(asked.channel or "")
    if asked.channel is None or asked.channel_kind is None or not isinstance(channel, Splitting):
        raise ReceiverNotOffered(kind=asked.kind)
    whose = (caller.merchant_id, caller.mode)
    return await merchants.channel_account_of(flow.db, *whose, asked.channel)


async def unbind_receiver(sharing: Sharing, row: ReceiverRow, *, take: Taking) -> ReceiverRow:
    """Let nobody give this receiver a share any more; shares that are on their way stay so.

    Raises:
        ReceiverNotActive, InFlight
    """
    if row.state is not ReceiverState.ACTIVE:
        raise ReceiverNotActive(status=row.state)
    flow, now = sharing.flow, sharing.flow.db.clock.now()
    is_ours = row.kind != "channel"
    becomes = replace(
        row,
        state=ReceiverState.UNBOUND if is_ours else ReceiverState.UNBINDING,
        ended_at=now if is_ours else None,
    )
    writes = [take(row.id, now), _update(row, becomes)]
    if not is_ours:
        task = ChaseReceiver(row.book, row.id)
        run_at = now + _DELAYS[1]
        writes.append(task_write(task, run_at=run_at, key=f"receiver/{row.id}/unbind"))
    async with flow.db.begin("splits") as tx:
        if await write_all(tx, writes) is not None:
            raise InFlight
    becomes = replace(becomes, version=row.version + 1)
    return becomes if is_ours else await ask_about_receiver(sharing, becomes)


async def ask_about_receiver(sharing: Sharing, row: ReceiverRow) -> ReceiverRow:
    """Have the channel bind or forget a receiver, and write down what it says.

    To ask a second time is as good as once, so a time-out is asked again and nothing else.
    """
    flow = sharing.flow
    channel: object = flow.channels.get(row.channel or "")
    if not isinstance(channel, Splitting) or row.account_id is None:
        raise TypeError(f"{row.channel} gives no shares")
    account = await flow.account(row.account_id)
    receiver = opened(sharing.keyring, row)
    is_binding = row.state is ReceiverState.BINDING
    call = channel.add_receiver if is_binding else channel.remove_receiver
    answer = await call(account, receiver)
    failpoint("splits.after_receiver_call")
    now = flow.db.clock.now()
    match answer.outcome:
        case Succeeded():
            state = ReceiverState.ACTIVE if is_binding else ReceiverState.UNBOUND
            becomes = replace(row, state=state, ended_at=None if is_binding else now)
        case Declined(code=code):
            state = ReceiverState.FAILED if is_binding else ReceiverState.ACTIVE
            ended_at = now if is_binding else None
            becomes = replace(row, state=state, code=code[:64], ended_at=ended_at)
        case _:
            return row
    event = ReceiverChanged(
        merchant_id=row.merchant_id,
        mode=row.mode,
        resource_id=show("rcv", row.id),
        object=view_receiver(becomes),
    )
    async with flow.db.begin("splits") as tx:
        moved = await write_all(tx, [_update(row, becomes), event_write(event, now=now)])
    if moved is not None:
        return await store.GET_RECEIVER.one(flow.db, row.book, row.id)
    flow.nudge()
    return replace(becomes, version=row.version + 1)


async def chase_receiver(sharing: Sharing, task: ChaseReceiver, lease: Lease) -> Again | None:
    """Ask again until the channel has said yes or no."""
    row = await store.GET_RECEIVER.one(sharing.flow.db, task.book, task.receiver_id)
    if row.state in {ReceiverState.BINDING, ReceiverState.UNBINDING}:
        row = await ask_about_receiver(sharing, row)
    if row.state not in {ReceiverState.BINDING, ReceiverState.UNBINDING}:
        return None
    return Again(_DELAYS[min(lease.attempt, len(_DELAYS) - 1)])


def opened(keyring: Keyring, row: ReceiverRow) -> Receiver:
    """Return a receiver as its channel knows them."""
    if row.sealed is None or row.channel_kind is None:
        raise TypeError("the receiver is not a channel's")
    text = keyring.open(_PURPOSE, row.sealed, bind("split_receiver", "sealed", row.id))
    known = msgspec.json.decode(text, type=_Sealed)
    return Receiver(row.channel_kind, known.account, known.name, row.relation)


class SplitTermsAsked(Struct, frozen=True):
    """What is proposed of a merchant's splits: the most of a payment, and who pays for refunds."""

    mode: Mode
    share_max_ppm: Annotated[int, Meta(ge=0, le=1_000_000)]
    refund_from: Literal["receivers", "merchant"] = "receivers"


SET_SPLIT_TERMS: Final = Act(
    "split_terms.set",
    "Change how much of its payments a merchant may share",
    "变更商户分账比例",
    SplitTermsAsked,
    maker="merchants_act",
    checker="settlement_act",
)


def bound(db: Db) -> tuple[Bound, ...]:
    """Return the act on splits, for the registry; its subject is a merchant."""

    async def agree(tx: Tx, approval: Approval, terms: SplitTermsAsked) -> None:
        merchant_id = parse("mch", approval.subject)
        row = (merchant_id, terms.mode, terms.share_max_ppm, terms.refund_from)
        await store.SET_TERMS.run(tx, *row, tx.now, tx.actor)
        facts = {"mode": terms.mode.value, "share_max_ppm": terms.share_max_ppm}
        await audit.record(tx, "merchant.split_terms_set", approval.subject, facts)

    return (Bound(SET_SPLIT_TERMS, in_transaction(db, agree)),)


def _update(before: ReceiverRow, becomes: ReceiverRow) -> Write:
    args = (before.book, before.id, before.version, becomes.state, becomes.code, becomes.ended_at)
    return Write(store.UPDATE_RECEIVER, args, refusal=InFlight.code)
