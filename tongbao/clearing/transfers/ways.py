"""How a transfer reaches its payee: which account of ours, which call, which ledger account.

A way is open where the deployment has an account at a channel that can do it; the wallet is always
open and needs no call.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol, runtime_checkable
from uuid import UUID

from tongbao.clearing.context import Clearing
from tongbao.clearing.transfers.model import Destination, Payee, TransferItem
from tongbao.clearing.transfers.rows import Row, RowFault
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db
from tongbao.infra.web.caller import Caller
from tongbao.kernel.codecs.iso20022 import PayoutOrder
from tongbao.kernel.errors import NotFound
from tongbao.kernel.ids import from_base32, parse
from tongbao.kernel.licence import Mode
from tongbao.ledger.model import AccountKey
from tongbao.parties.accounts.queries import wallet_of_caller
from tongbao.rails.channels.accounts import list_accounts, open_accounts
from tongbao.rails.channels.bank_transfer.client import BankTransfer
from tongbao.rails.channels.capabilities.transfers import (
    TransferOrder,
    TransferOutcome,
    TransferQueryOutcome,
    Transferring,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Answer

CHANNELS: Final[Mapping[Destination, tuple[str, ...]]] = {
    Destination.BANK: ("bank_transfer", "bank_files"),
    Destination.WECHAT_PAY: ("wechat_pay",),
    Destination.ALIPAY: ("alipay",),
}
UNKNOWN_BANK: Final = "000000000000"
"""Where a row names no bank, the creditor's bank is found by the account's number."""
WECHAT_SCENE: Final = "1005"
"""WeChat Pay's number for commission and reward; it wants to know the work and the reason."""
_SEALED_FOR: Final = "transfer.payee"


@runtime_checkable
class TakingTransfersBack(Protocol):
    """Takes a payout back that its payee has not confirmed."""

    async def cancel_transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferQueryOutcome]:
        """Take it back where that is still possible, and say how it stands then."""


class BankWay:
    """A bank that takes ISO 20022 messages, as something that transfers."""

    def __init__(self, bank: BankTransfer) -> None:
        self._bank = bank

    async def transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferOutcome]:
        """Instruct the bank, which pays an order once."""
        answer = await self._bank.pay_out(account, _bank_order(order))
        return Answer(answer.outcome, answer.exchange)

    async def query_transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferQueryOutcome]:
        """Ask the bank what became of it."""
        answer = await self._bank.query(account, _bank_order(order))
        return Answer(answer.outcome, answer.exchange)


def _bank_order(order: TransferOrder) -> PayoutOrder:
    return PayoutOrder(
        number=order.number,
        money=order.money,
        creditor_name=order.payee_name or "",
        creditor_account=order.payee,
        creditor_bank=order.payee_kind,
        # The number has a time in it, so that a repeat is byte for byte the same.
        created_at=datetime.fromtimestamp((from_base32(order.number).int >> 80) / 1000, UTC),
        remittance=order.title,
    )


async def ways_open(context: Clearing, mode: Mode) -> dict[Destination, UUID | None]:
    """Return where transfers may go in a mode, and from which account of ours."""
    found: dict[Destination, UUID | None] = {Destination.WALLET: None}
    rows = open_accounts(await list_accounts(context.db), mode)
    for destination, channels in CHANNELS.items():
        for channel in channels:
            mine = [row.id for row in rows if row.channel == channel]
            if mine and _transferring(context, channel) is not None:
                found.setdefault(destination, mine[0])
    return found


async def way_of(context: Clearing, account_id: UUID) -> tuple[ChannelAccount, Transferring]:
    """Return the account a transfer is made from and what makes it."""
    account = await context.flow.account(account_id)
    rows = {row.id: row.channel for row in await list_accounts(context.db)}
    way = _transferring(context, rows[account_id])
    if way is None:
        raise LookupError("a transfer was fixed to a channel that transfers")
    return account, way


def _transferring(context: Clearing, channel: str) -> Transferring | None:
    if channel == "bank_transfer":
        return BankWay(context.bank)
    found = context.flow.channels.get(channel)
    return found if isinstance(found, Transferring) else None


def order_of(item: TransferItem, payee: Payee) -> TransferOrder:
    """Return a transfer in the channel's terms, the same at every repeat."""
    kind = scene = ""
    notes: tuple[tuple[str, str], ...] = ()
    match item.destination:
        case Destination.BANK:
            kind = payee.bank or UNKNOWN_BANK
        case Destination.ALIPAY:
            is_id = payee.account.isdecimal() and payee.account.startswith("2088")
            kind = "ALIPAY_USER_ID" if is_id else "ALIPAY_LOGON_ID"
        case Destination.WECHAT_PAY:
            scene = WECHAT_SCENE
            notes = (("岗位类型", "其他"), ("报酬说明", item.note[:32]))
        case Destination.WALLET:
            raise ValueError("a wallet needs no channel")
    return TransferOrder(
        number=item.channel_number,
        payee=payee.account,
        payee_kind=kind,
        payee_name=payee.name or None,
        money=item.money,
        title=item.note,
        scene=scene,
        notes=notes,
    )


def ledger_way(item: TransferItem, payee: Payee) -> AccountKey:
    """Return the ledger account the money goes to."""
    if item.destination is Destination.WALLET:
        return AccountKey("wallet", item.currency, parse("wal", payee.account))
    if item.destination is Destination.BANK or item.account_id is None:
        return AccountKey("bank", item.currency)
    return AccountKey("channel_receivable", item.currency, item.account_id)


def place_of(item_id: UUID) -> bytes:
    """Return the name of the place in which a payee is sealed."""
    return bind("transfer_item", "payee_sealed", item_id)


def sealed(keyring: Keyring, item_id: UUID, payee: bytes) -> bytes:
    """Return a payee as it is stored."""
    return keyring.seal(_SEALED_FOR, payee, place_of(item_id))


def unsealed(keyring: Keyring, item: TransferItem) -> bytes:
    """Return who is paid."""
    return keyring.open(_SEALED_FOR, item.payee_sealed, place_of(item.id))


async def wallet_faults(db: Db, caller: Caller, rows: Sequence[Row]) -> list[RowFault]:
    """Return a fault for each row that pays a wallet the merchant does not have."""
    faults = []
    for row in rows:
        if row.destination is not Destination.WALLET:
            continue
        try:
            wallet = await wallet_of_caller(db, caller, parse("wal", row.payee.account))
        except NotFound:
            faults.append(RowFault(row.line, "payee", "no_such_wallet"))
            continue
        if wallet.currency != row.money.currency:
            faults.append(RowFault(row.line, "payee", "wallet_of_another_currency"))
    return faults
