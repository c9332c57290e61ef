"""Propose an account's keys, sealed in a row of their own; seal them for the account once approved.

The row goes in the commit that applies the approval, and in the one that ends it without effect.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.controls.approvals.approvals import in_transaction, propose
from tongbao.controls.approvals.model import Act, Approval, Bound, Change
from tongbao.infra.crypto import Keyring, bind, constant_time_equal, hmac_sha256
from tongbao.infra.db import Db, Tx
from tongbao.kernel.errors import Conflict, Rejected
from tongbao.kernel.ids import derived_id, new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.model import Permission
from tongbao.payments.channel_keys import _store as store
from tongbao.rails.channels.accounts import (
    PURPOSE,
    NewAccount,
    SecretTypes,
    account_with_id,
    checked_account,
    checked_keys,
    insert_account,
    store_keys,
)

_FINGERPRINT: Final = "channel.fingerprint"
_SHOWN_BYTES: Final = 8


class KeysGone(Conflict):
    """The keys that were proposed are not there any more."""

    code = "channel_account.keys_gone"
    advice = "Propose the keys again."
    advice_zh = "提交的密钥已不存在，请重新提交。"


class KeysDiffer(Rejected):
    """The keys that lie there are not those that were proposed, or the key file was replaced."""

    code = "channel_account.keys_differ"
    advice = "Propose the keys again; if the key file is the same, have the database examined."
    advice_zh = "密钥与提案不一致，请重新提交；若主密钥文件未更换，请立即核查数据库。"


class KeysMark(Struct, frozen=True):
    """Which keys are meant, without the keys: where they lie, and what tells them apart."""

    row: str
    whole: str
    each: dict[str, str]


class AddTerms(Struct, frozen=True):
    """An account at a channel to be registered."""

    channel: str
    gateway: str
    merchant_number: str
    app_id: str
    fee_ppm: int
    keys: KeysMark


class RotateTerms(Struct, frozen=True):
    """An account at a channel that gets other keys."""

    channel: str
    merchant_number: str
    keys: KeysMark


ADD: Final = Act(
    "channel_account.add",
    "Register a live channel account",
    "登记生产渠道账户",
    AddTerms,
    maker=Permission.MERCHANTS_ACT,
    checker=Permission.MERCHANTS_ACT,
)
ROTATE: Final = Act(
    "channel_account.rotate",
    "Replace a live channel account's keys",
    "更换生产渠道账户密钥",
    RotateTerms,
    maker=Permission.MERCHANTS_ACT,
    checker=Permission.MERCHANTS_ACT,
)


async def propose_account(
    tx: Tx,
    keyring: Keyring,
    secret_types: SecretTypes,
    account: NewAccount,
    *,
    reason: str,
    may: Collection[str] | None = None,
) -> Approval:
    """Propose to register a live account; its keys wait sealed.

    Raises:
        ChannelUnknown, ChannelKeysMalformed, GatewayMalformed, MakerNotAllowed, ReasonTooShort,
        ApprovalWaiting
    """
    mark = await _put(tx, keyring, checked_account(secret_types, account))
    terms = AddTerms(
        account.channel,
        account.gateway,
        account.merchant_number,
        account.app_id,
        account.fee_ppm,
        mark,
    )
    subject = f"{account.channel} {account.merchant_number} {account.app_id}"[:200]
    return await propose(tx, ADD, subject, terms, reason=reason, mode=account.mode, may=may)


async def change_keys(
    tx: Tx,
    keyring: Keyring,
    secret_types: SecretTypes,
    account_id: UUID,
    keys: Mapping[str, object],
    *,
    reason: str,
    may: Collection[str] | None = None,
) -> Approval | None:
    """Replace an account's keys: in the sandbox at once, live when the approval is applied.

    Raises:
        ChannelAccountNotFound, ChannelUnknown, ChannelKeysMalformed, MakerNotAllowed,
        ReasonTooShort, ApprovalWaiting
    """
    row = await account_with_id(tx, account_id)
    plaintext = checked_keys(secret_types, row.channel, keys)
    if row.mode is not Mode.LIVE:
        await store_keys(tx, keyring, account_id, plaintext)
        return None
    terms = RotateTerms(row.channel, row.merchant_number, await _put(tx, keyring, plaintext))
    shown = show("chn", account_id)
    return await propose(tx, ROTATE, shown, terms, reason=reason, mode=row.mode, may=may)


def fingerprints(keyring: Keyring, plaintext: bytes) -> dict[str, str]:
    """Return what tells each key apart from another, for people who hold the same file.

    It is keyed with the key file, so that nobody finds a weak key by trying them all.
    """
    keys: dict[str, object] = msgspec.json.decode(plaintext)
    return {
        name: _mac(keyring, name, msgspec.json.encode(value, order="deterministic"))[:_SHOWN_BYTES]
        .hex()
        for name, value in keys.items()
    }  # fmt: skip


def bound_acts(db: Db, keyring: Keyring) -> tuple[Bound, ...]:
    """Return the acts on channel accounts with what does them."""

    async def add(tx: Tx, approval: Approval, terms: AddTerms) -> None:
        account = NewAccount(
            terms.channel,
            Mode.LIVE,
            terms.gateway,
            terms.merchant_number,
            terms.app_id,
            terms.fee_ppm,
            {},
        )
        plaintext = await _taken(tx, keyring, terms.keys)
        account_id = derived_id(approval.id, "channel_account")
        await insert_account(tx, keyring, account, plaintext, account_id=account_id)

    async def rotate(tx: Tx, approval: Approval, terms: RotateTerms) -> None:
        plaintext = await _taken(tx, keyring, terms.keys)
        await store_keys(tx, keyring, parse("chn", approval.subject), plaintext)

    return (
        Bound(ADD, in_transaction(db, add), _show_account, _forget),
        Bound(ROTATE, in_transaction(db, rotate), _show_keys, _forget),
    )


async def _forget(tx: Tx, _approval: Approval, terms: AddTerms | RotateTerms) -> None:
    await store.TAKE.first(tx, UUID(terms.keys.row))


async def _put(tx: Tx, keyring: Keyring, plaintext: bytes) -> KeysMark:
    row_id = new_id()
    await store.PUT.run(tx, row_id, keyring.seal(PURPOSE, plaintext, _place(row_id)), tx.now)
    whole = _mac(keyring, "", plaintext).hex()
    return KeysMark(str(row_id), whole, fingerprints(keyring, plaintext))


async def _taken(tx: Tx, keyring: Keyring, mark: KeysMark) -> bytes:
    """Return the keys that were proposed and remove their row.

    Raises:
        KeysGone, KeysDiffer
    """
    row_id = UUID(mark.row)
    sealed = await store.TAKE.first(tx, row_id)
    if sealed is None:
        raise KeysGone
    plaintext = keyring.open(PURPOSE, sealed, _place(row_id))
    if not constant_time_equal(_mac(keyring, "", plaintext), bytes.fromhex(mark.whole)):
        raise KeysDiffer
    return plaintext


def _mac(keyring: Keyring, name: str, value: bytes) -> bytes:
    return hmac_sha256(keyring.mac_key(_FINGERPRINT), name.encode(), b"\n", value)


def _place(row_id: UUID) -> bytes:
    return bind("channel_keys_waiting", "sealed", row_id)


async def _show_account(_db: Db, _approval: Approval, terms: AddTerms) -> list[Change]:
    return [
        Change("channel", "渠道", None, terms.channel),
        Change("merchant number", "商户号", None, terms.merchant_number),
        Change("application", "应用", None, terms.app_id),
        Change("gateway", "网关", None, terms.gateway),
        Change("our cost, ppm", "渠道成本（百万分之）", None, str(terms.fee_ppm)),
        *_show_marks(terms.keys),
    ]


async def _show_keys(_db: Db, _approval: Approval, terms: RotateTerms) -> list[Change]:
    whose = Change("account", "账户", None, f"{terms.channel} {terms.merchant_number}")
    return [whose, *_show_marks(terms.keys)]


def _show_marks(mark: KeysMark) -> list[Change]:
    return [
        Change(f"fingerprint of {name}", f"{name} 指纹", None, fingerprint)
        for name, fingerprint in mark.each.items()
    ]
