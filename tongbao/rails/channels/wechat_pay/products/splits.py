"""Profit sharing of WeChat Pay (分账): shares given, asked about, taken back, the rest freed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, assert_never

from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.shares import (
    Receiver,
    Share,
    ShareResult,
    SplitDone,
    SplitOrder,
    SplitOutcome,
    SplitQueryOutcome,
    SplitReturn,
    SplitUnderWay,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Declined,
    Exchange,
    NotSent,
    Outcome,
    Pending,
    QueryOutcome,
    Succeeded,
    Unknown,
)
from tongbao.rails.channels.exchange import decode, followed_by, unsent
from tongbao.rails.channels.wechat_pay.crypto import NotEncryptable
from tongbao.rails.channels.wechat_pay.documents import splits as documents
from tongbao.rails.channels.wechat_pay.gateway import (
    ERRORS,
    Answered,
    Gateway,
    Refused,
    ids_of,
    in_path,
    meant,
)
from tongbao.rails.channels.wechat_pay.wire import (
    CURRENCY,
    encode,
    first_difference,
    moment,
    yuan,
)

PATH: Final = "/v3/profitsharing"
_DESCRIPTION: Final = "分账"
_UNFREEZING: Final = "解冻全部剩余资金"
_RETURNING: Final = "分账回退"


async def add_receiver(
    gateway: Gateway, account: ChannelAccount, receiver: Receiver
) -> Answer[Outcome]:
    """Let WeChat Pay know a receiver; a second time is as good as once."""
    target = f"{PATH}/receivers/add"
    try:
        sealed, serial = await _sealed(gateway, account, receiver.name)
    except NotEncryptable as failure:
        return Answer(NotSent(str(failure)), unsent("POST", account.gateway + target, str(failure)))
    ids = ids_of(account)
    body = documents.SplitReceiver(
        sub_mchid=ids.sub_mchid,
        appid=ids.appid or ids.sp_appid,
        sub_appid=ids.sub_appid,
        type=receiver.kind,
        account=receiver.account,
        name=sealed,
        relation_type=receiver.relation,
    )
    return await _keep(gateway, account, target, body, serial)


async def remove_receiver(
    gateway: Gateway, account: ChannelAccount, receiver: Receiver
) -> Answer[Outcome]:
    """Let WeChat Pay forget a receiver."""
    ids = ids_of(account)
    body = documents.SplitReceiver(
        sub_mchid=ids.sub_mchid,
        appid=ids.appid or ids.sp_appid,
        sub_appid=ids.sub_appid,
        type=receiver.kind,
        account=receiver.account,
    )
    return await _keep(gateway, account, f"{PATH}/receivers/delete", body, "")


async def split(
    gateway: Gateway, account: ChannelAccount, order: SplitOrder
) -> Answer[SplitOutcome]:
    """Give the shares away; with ``finishes`` what is left is freed at once."""
    target, ids = f"{PATH}/orders", ids_of(account)
    serial, receivers = "", []
    try:
        for share in order.shares:
            sealed, used = await _sealed(gateway, account, share.receiver.name)
            serial = used or serial
            receivers.append(_share(share, sealed))
    except NotEncryptable as failure:
        return Answer(NotSent(str(failure)), unsent("POST", account.gateway + target, str(failure)))
    body = documents.SplitRequest(
        sub_mchid=ids.sub_mchid,
        appid=ids.appid or ids.sp_appid,
        sub_appid=ids.sub_appid,
        transaction_id=order.channel_ref,
        out_order_no=order.number,
        receivers=receivers,
        unfreeze_unsplit=order.finishes,
    )
    hidden = tuple(one.name for one in receivers if one.name)
    heard, exchange = await gateway.call(
        account, "POST", target, encode(body), hidden=hidden, encrypted_for=serial
    )
    return await _asked(gateway, account, order, heard, exchange)


async def unfreeze(
    gateway: Gateway, account: ChannelAccount, order: SplitOrder
) -> Answer[SplitOutcome]:
    """Free what nobody gets a share of; the order's shares are not looked at."""
    body = documents.UnfreezeRequest(
        sub_mchid=ids_of(account).sub_mchid,
        transaction_id=order.channel_ref,
        out_order_no=order.number,
        description=order.reason[:80] or _UNFREEZING,
    )
    target = f"{PATH}/orders/unfreeze"
    heard, exchange = await gateway.call(account, "POST", target, encode(body))
    return await _asked(gateway, account, _without_shares(order), heard, exchange)


async def query_split(
    gateway: Gateway, account: ChannelAccount, order: SplitOrder
) -> Answer[SplitQueryOutcome]:
    """Ask what became of the shares, or of what was freed."""
    target = f"{PATH}/orders/{in_path(order.number)}?transaction_id={in_path(order.channel_ref)}"
    return await gateway.question(
        account,
        _for_sub(account, target, "&"),
        "query_split",
        lambda body: _read(body, account, order),
    )


async def unsplit_money(
    gateway: Gateway, account: ChannelAccount, channel_ref: str
) -> Answer[Money | Absent | Unknown]:
    """Ask how much of a payment may still be split."""
    target = f"{PATH}/transactions/{in_path(channel_ref)}/amounts"

    def read(body: bytes) -> Money | Unknown:
        left = decode(body, documents.Unsplit)
        if left is None or left.unsplit_amount is None or left.transaction_id != channel_ref:
            return Unknown("the answer is no amount of this payment")
        return yuan(left.unsplit_amount)

    return await gateway.question(account, target, "query_split", read)


async def return_split(
    gateway: Gateway, account: ChannelAccount, back: SplitReturn
) -> Answer[Outcome]:
    """Take a share back from a merchant; people's shares cannot be taken back."""
    body = documents.ReturnRequest(
        sub_mchid=ids_of(account).sub_mchid,
        out_order_no=back.split_number,
        out_return_no=back.number,
        return_mchid=back.receiver.account,
        amount=back.money.amount,
        description=back.reason[:80] or _RETURNING,
    )
    heard, exchange = await gateway.call(account, "POST", f"{PATH}/return-orders", encode(body))
    match heard:
        case Answered():
            return Answer(_read_return(heard.body, back), exchange)
        case Refused():
            entry = ERRORS.find("split", heard.code)
            outcome = meant(entry, heard)
            if not entry.ask:
                return Answer(outcome, exchange)
            asked = await query_return(gateway, account, back)
            both = followed_by(exchange, asked.exchange)
            if isinstance(asked.outcome, Succeeded | Pending | Declined | Unknown):
                return Answer(asked.outcome, both)
            return Answer(outcome, both)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def query_return(
    gateway: Gateway, account: ChannelAccount, back: SplitReturn
) -> Answer[QueryOutcome]:
    """Ask what became of a return."""
    target = f"{PATH}/return-orders/{in_path(back.number)}?out_order_no="
    target = _for_sub(account, f"{target}{in_path(back.split_number)}", "&")
    return await gateway.question(
        account, target, "query_split", lambda body: _read_return(body, back)
    )


async def _keep(
    gateway: Gateway,
    account: ChannelAccount,
    target: str,
    body: documents.SplitReceiver,
    serial: str,
) -> Answer[Outcome]:
    hidden = (body.name,) if body.name else ()
    heard, exchange = await gateway.call(
        account, "POST", target, encode(body), hidden=hidden, encrypted_for=serial
    )
    match heard:
        case Answered():
            kept = decode(heard.body, documents.SplitReceiver)
            if kept is None or (kept.type, kept.account) != (body.type, body.account):
                return Answer(Unknown("the answer names another receiver"), exchange)
            done = Succeeded(body.account or "", Money(0, CURRENCY), gateway.real_now())
            return Answer(done, exchange)
        case Refused():
            return Answer(meant(ERRORS.find("split", heard.code), heard), exchange)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def _asked(
    gateway: Gateway,
    account: ChannelAccount,
    order: SplitOrder,
    heard: Answered | Refused | NotSent | Unknown,
    exchange: Exchange,
) -> Answer[SplitOutcome]:
    match heard:
        case Answered():
            return Answer(_read(heard.body, account, order), exchange)
        case Refused():
            entry = ERRORS.find("split", heard.code)
            outcome = meant(entry, heard)
            refused = Unknown(outcome.reason) if isinstance(outcome, Pending) else outcome
            if not entry.ask:
                return Answer(refused, exchange)
            asked = await query_split(gateway, account, order)
            both = followed_by(exchange, asked.exchange)
            return Answer(refused if isinstance(asked.outcome, Absent) else asked.outcome, both)
        case NotSent() | Unknown():
            return Answer(heard, exchange)
        case _:
            assert_never(heard)


async def _sealed(
    gateway: Gateway, account: ChannelAccount, name: str | None
) -> tuple[str | None, str]:
    return await gateway.encrypt(account, name) if name else (None, "")


def _share(share: Share, sealed: str | None) -> documents.Share:
    return documents.Share(
        type=share.receiver.kind,
        account=share.receiver.account,
        name=sealed,
        amount=share.money.amount,
        description=share.description[:80] or _DESCRIPTION,
    )


def _without_shares(order: SplitOrder) -> SplitOrder:
    return SplitOrder(order.number, order.channel_ref, (), finishes=True, reason=order.reason)


def _for_sub(account: ChannelAccount, target: str, joint: str) -> str:
    sub_mchid = ids_of(account).sub_mchid
    return f"{target}{joint}sub_mchid={in_path(sub_mchid)}" if sub_mchid else target


def _read(
    body: bytes, account: ChannelAccount, order: SplitOrder
) -> SplitDone | SplitUnderWay | Unknown:
    """Return what became of the shares; all we asked for must be among them, as we asked.

    WeChat Pay adds a share of the merchant's own when the rest is freed.
    """
    found = decode(body, documents.Split)
    if found is None or not found.order_id:
        return Unknown("the answer is no split")
    facts: list[tuple[str, object, object]] = [
        ("out_order_no", found.out_order_no, order.number),
        ("transaction_id", found.transaction_id, order.channel_ref),
    ]
    if found.sub_mchid:
        facts.append(("sub_mchid", found.sub_mchid, ids_of(account).sub_mchid))
    receivers = found.receivers or []
    difference = first_difference(facts) or _missing(order, receivers)
    if difference:
        return Unknown(f"contradiction: {difference}")
    results = _results(receivers)
    if results is None or found.state not in {"FINISHED", "PROCESSING"}:
        return Unknown(f"state {(found.state or '')[:32]}, or a share's, is none we know")
    if found.state == "FINISHED" and all(one.state != "pending" for one in results):
        return SplitDone(found.order_id, results)
    return SplitUnderWay(found.order_id, results)


def _missing(order: SplitOrder, receivers: Sequence[documents.Share]) -> str | None:
    said = [(one.account, one.amount) for one in receivers]
    for share in order.shares:
        wanted = (share.receiver.account, share.money.amount)
        if wanted not in said:
            return f"no share of {share.receiver.account} as asked"
        said.remove(wanted)
    return None


def _results(receivers: Sequence[documents.Share]) -> list[ShareResult] | None:
    results: list[ShareResult] = []
    for one in receivers:
        match one.result:
            case "SUCCESS":
                state: Literal["pending", "succeeded", "failed"] = "succeeded"
            case "CLOSED":
                state = "failed"
            case "PENDING" | None:
                state = "pending"
            case _:
                return None
        results.append(
            ShareResult(
                account=one.account or "",
                money=yuan(one.amount or 0),
                state=state,
                reason=(one.fail_reason or "") if state == "failed" else "",
                channel_ref=one.detail_id or "",
            )
        )
    return results


def _read_return(body: bytes, back: SplitReturn) -> Succeeded | Pending | Declined | Unknown:
    found = decode(body, documents.SplitReturned) or documents.SplitReturned()
    difference = first_difference(
        [
            ("out_return_no", found.out_return_no, back.number),
            ("out_order_no", found.out_order_no, back.split_number),
            ("return_mchid", found.return_mchid, back.receiver.account),
            ("amount", found.amount, back.money.amount),
        ]
    )
    if difference:
        return Unknown(f"contradiction: {difference}")
    match found.result:
        case "SUCCESS":
            at = moment(found.finish_time)
            if at is None or not found.return_id:
                return Unknown("a return without number or time")
            return Succeeded(found.return_id, back.money, at)
        case "PROCESSING":
            return Pending(reason="PROCESSING")
        case "FAILED":
            return Declined(found.fail_reason or "FAILED")
        case other:
            return Unknown(f"result {(other or '')[:32]}")
