"""Our accounts at channels: added by people, opened only when a call is made.

The keys of an account are sealed at rest. `ChannelAccounts` opens them for a call, or to verify a
callback, and forgets them when they are changed.
"""

from __future__ import annotations

import re
import secrets as random
from collections.abc import Mapping, Sequence
from typing import Final
from uuid import UUID

import msgspec
from msgspec import Struct

from tongbao.infra.audit import record
from tongbao.infra.changes import BOUND_S, Changes, mark
from tongbao.infra.crypto import Keyring, bind
from tongbao.infra.db import Db, Query, Tx
from tongbao.infra.lookups import Remembered
from tongbao.kernel.errors import Conflict, Invalid, NotFound
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.rails.channels import _store as store
from tongbao.rails.channels._store import AccountState, ChannelAccountRow
from tongbao.rails.channels.contract.orders import ChannelAccount

NOTIFY_PATH: Final = "/callbacks/{channel}/{token}"
PURPOSE: Final = "channel.secrets"
_TOKEN: Final = re.compile(r"[0-9A-Za-z_-]{32,128}")
CACHED_S: Final = BOUND_S
"""How long an opened account is believed at most where its change is not heard of."""
ACCOUNTS: Final = "channel_account"
"""The kind of their marks."""
_READ_ANEW_S: Final = 60.0
_SCHEMES: Final = {
    Mode.LIVE: ("https://", "tcps://"),
    Mode.SANDBOX: ("https://", "tcps://", "http://", "tcp://"),
}
"""How a gateway's address may begin. Card hosts are spoken to over TCP, tcps:// with TLS."""

SecretTypes = Mapping[str, type[Struct]]
"""The Struct of each channel's keys, by channel name; wiring knows them all."""


class ChannelAccountNotFound(NotFound):
    """There is no such account at a channel."""

    code = "channel_account.not_found"
    advice = "List the channel accounts and take the id from there."
    advice_zh = "请从渠道账户列表中获取标识。"


class ChannelAccountExists(Conflict):
    """This merchant number and application are registered for the channel already."""

    code = "channel_account.exists"
    advice = "Replace the keys of the existing account instead of adding it again."
    advice_zh = "该商户号与应用已登记，请更换其密钥而不是重复添加。"


class ChannelUnknown(Invalid):
    """No channel of this name is built in."""

    code = "channel_account.channel_unknown"
    advice = "Use the name of a channel folder, such as wechat_pay or alipay."
    advice_zh = "请使用平台支持的渠道名称，例如 wechat_pay 或 alipay。"


class ChannelKeysMalformed(Invalid):
    """The keys are not those this channel needs; they are not repeated here."""

    code = "channel_account.keys_malformed"
    advice = "Give every key of the channel under its own name; see the how-to of the channel."
    advice_zh = "请按渠道接入说明提供全部密钥字段。"


class GatewayMalformed(Invalid):
    """The gateway is no address that calls can be made to."""

    code = "channel_account.gateway_malformed"
    advice = (
        "Give an https address without a trailing slash (a card host: tcps://host:port); "
        "http and tcp are for the sandbox only."
    )
    advice_zh = (
        "请提供不带末尾斜杠的 https 地址（银行卡主机为 tcps://主机:端口）；"
        "仅沙箱模式允许 http 与 tcp。"
    )


class NewAccount(Struct, frozen=True):
    """What people give to register an account; ``keys`` are the fields of the channel's secrets."""

    channel: str
    mode: Mode
    gateway: str
    merchant_number: str
    app_id: str
    fee_ppm: int
    keys: Mapping[str, object]

    def __repr__(self) -> str:
        return f"NewAccount({self.channel}, {self.mode}, {self.merchant_number})"


async def add_account(
    tx: Tx, keyring: Keyring, secret_types: SecretTypes, account: NewAccount
) -> ChannelAccountRow:
    """Register an account and seal its keys.

    Raises:
        ChannelUnknown, ChannelKeysMalformed, GatewayMalformed, ChannelAccountExists
    """
    plaintext = checked_account(secret_types, account)
    return await insert_account(tx, keyring, account, plaintext, account_id=new_id())


async def insert_account(
    tx: Tx, keyring: Keyring, account: NewAccount, plaintext: bytes, *, account_id: UUID
) -> ChannelAccountRow:
    """Register an account with keys that were checked before; its own are not looked at.

    Raises:
        ChannelAccountExists
    """
    row = await store.ADD_ACCOUNT.first(
        tx,
        account_id,
        account.channel,
        account.mode,
        account.gateway,
        account.merchant_number,
        account.app_id,
        random.token_hex(16),
        account.fee_ppm,
        keyring.seal(PURPOSE, plaintext, _place(account_id)),
        AccountState.OPEN,
        tx.now,
    )
    if row is None:
        raise ChannelAccountExists(merchant_number=account.merchant_number)
    await mark(tx, ACCOUNTS, account_id)
    facts = {"channel": row.channel, "mode": row.mode.value, "number": row.merchant_number}
    await record(tx, "channel_account.added", show("chn", account_id), facts)
    return row


async def replace_keys(
    tx: Tx,
    keyring: Keyring,
    secret_types: SecretTypes,
    account_id: UUID,
    keys: Mapping[str, object],
) -> None:
    """Seal new keys for an account; calls use them within a second.

    Raises:
        ChannelAccountNotFound, ChannelUnknown, ChannelKeysMalformed
    """
    row = await account_with_id(tx, account_id)
    await store_keys(tx, keyring, account_id, checked_keys(secret_types, row.channel, keys))


async def store_keys(tx: Tx, keyring: Keyring, account_id: UUID, plaintext: bytes) -> None:
    """Seal keys that were checked before in the place of an account's own.

    Raises:
        ChannelAccountNotFound
    """
    sealed = keyring.seal(PURPOSE, plaintext, _place(account_id))
    if await store.REPLACE_SECRETS.first(tx, account_id, sealed) is None:
        raise ChannelAccountNotFound
    await mark(tx, ACCOUNTS, account_id)
    await record(tx, "channel_account.keys_replaced", show("chn", account_id), {})


async def account_with_id(on: Db | Tx, account_id: UUID) -> ChannelAccountRow:
    """Return an account, keys sealed.

    Raises:
        ChannelAccountNotFound
    """
    return await _row(store.GET_ACCOUNT, on, account_id)


async def set_gateway(tx: Tx, account_id: UUID, gateway: str) -> ChannelAccountRow:
    """Call the channel at another address from now on, as when a sandbox moved.

    Raises:
        ChannelAccountNotFound
    """
    row = await store.SET_GATEWAY.first(tx, account_id, gateway)
    if row is None:
        raise ChannelAccountNotFound
    await mark(tx, ACCOUNTS, account_id)
    facts = {"gateway": gateway}
    await record(tx, "channel_account.gateway_set", show("chn", account_id), facts)
    return row


async def set_state(tx: Tx, account_id: UUID, state: AccountState) -> ChannelAccountRow:
    """Open or close an account for new payments, which hear of it within a second.

    Raises:
        ChannelAccountNotFound
    """
    row = await store.SET_STATE.first(tx, account_id, state)
    if row is None:
        raise ChannelAccountNotFound
    await mark(tx, ACCOUNTS, account_id)
    await record(tx, f"channel_account.{state.value}", show("chn", account_id), {})
    return row


async def list_accounts(on: Db | Tx) -> list[ChannelAccountRow]:
    """Return every account, keys sealed."""
    return await store.LIST_ACCOUNTS.all(on)


class ChannelAccounts:
    """Opens accounts for calls."""

    def __init__(
        self,
        db: Db,
        keyring: Keyring,
        secret_types: SecretTypes,
        public_url: str,
        changes: Changes | None = None,
    ) -> None:
        self._db = db
        self._keyring = keyring
        self._secret_types = secret_types
        self._public_url = public_url.rstrip("/")
        self.changes = changes or Changes(db)
        self._opened: Remembered[UUID | str, ChannelAccount] = Remembered(
            self._find, seconds=_READ_ANEW_S, changes=self.changes
        )
        self._opened.forget_with(ACCOUNTS)

    async def get(self, account_id: UUID) -> ChannelAccount:
        """Return the account with its keys, open or closed.

        Raises:
            ChannelAccountNotFound
        """
        return await self._known(account_id)

    async def of_token(self, token: str) -> ChannelAccount:
        """Return the account whose callbacks come to this address.

        Raises:
            ChannelAccountNotFound
        """
        if not _TOKEN.fullmatch(token):  # from anybody, and looked up together with what others ask
            raise ChannelAccountNotFound
        return await self._known(token)

    def forget(self) -> None:
        """Read every account anew at its next use."""
        self._opened.forget_all()

    async def _known(self, key: UUID | str) -> ChannelAccount:
        account = await self._opened.get(key)
        if account is None:
            raise ChannelAccountNotFound
        return account

    async def _find(self, keys: Sequence[UUID | str]) -> dict[UUID | str, ChannelAccount]:
        found = {}
        for key in keys:
            query = store.GET_ACCOUNT if isinstance(key, UUID) else store.ACCOUNT_OF_TOKEN
            row = await query.first(self._db, key)
            if row is not None:
                found[key] = self._open(row)
        return found

    def _open(self, row: ChannelAccountRow) -> ChannelAccount:
        plaintext = self._keyring.open(PURPOSE, row.sealed_secrets, _place(row.id))
        return ChannelAccount(
            id=row.id,
            channel=row.channel,
            mode=row.mode,
            gateway=row.gateway,
            merchant_number=row.merchant_number,
            app_id=row.app_id,
            notify_url=self._public_url
            + NOTIFY_PATH.format(channel=row.channel, token=row.notify_token),
            fee_ppm=row.fee_ppm,
            secrets=msgspec.json.decode(plaintext, type=_secret_type(self._secret_types, row)),
            is_open=row.state is AccountState.OPEN,
        )


def open_accounts(rows: Sequence[ChannelAccountRow], mode: Mode) -> list[ChannelAccountRow]:
    """Return those that take new payments in this mode."""
    return [row for row in rows if row.state is AccountState.OPEN and row.mode is mode]


def checked_account(secret_types: SecretTypes, account: NewAccount) -> bytes:
    """Return the keys of an account that can be registered, as they are sealed.

    Raises:
        ChannelUnknown, ChannelKeysMalformed, GatewayMalformed
    """
    _check_gateway(account)
    return checked_keys(secret_types, account.channel, account.keys)


def checked_keys(secret_types: SecretTypes, channel: str, keys: Mapping[str, object]) -> bytes:
    """Return a channel's keys as they are sealed.

    Raises:
        ChannelUnknown, ChannelKeysMalformed
    """
    if channel not in secret_types:
        raise ChannelUnknown(channel=channel[:32])
    try:
        return msgspec.json.encode(msgspec.convert(dict(keys), secret_types[channel]))
    except msgspec.ValidationError:
        raise ChannelKeysMalformed(channel=channel) from None


async def _row(query: Query[ChannelAccountRow], on: Db | Tx, key: UUID | str) -> ChannelAccountRow:
    row = await query.first(on, key)
    if row is None:
        raise ChannelAccountNotFound
    return row


def _place(account_id: UUID) -> bytes:
    return bind("channel_account", "sealed_secrets", account_id)


def _secret_type(secret_types: SecretTypes, row: ChannelAccountRow) -> type[Struct]:
    return secret_types[row.channel]


def _check_gateway(account: NewAccount) -> None:
    schemes = _SCHEMES[account.mode]
    if not account.gateway.startswith(schemes) or account.gateway.endswith("/"):
        raise GatewayMalformed(gateway=account.gateway[:100])
