"""The SQL of channel accounts."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from msgspec import Struct

from tongbao.infra.db import Query
from tongbao.kernel.licence import Mode


class AccountState(StrEnum):
    """Whether an account takes new payments; a closed one is still asked, refunded, reconciled."""

    OPEN = "open"
    CLOSED = "closed"


class ChannelAccountRow(Struct, frozen=True):
    """One row of channel_account; its keys stay sealed."""

    id: UUID
    channel: str
    mode: Mode
    gateway: str
    merchant_number: str
    app_id: str
    notify_token: str
    fee_ppm: int
    sealed_secrets: bytes
    state: AccountState
    created_at: datetime

    def __repr__(self) -> str:
        return f"ChannelAccountRow({self.id}, {self.channel}, {self.mode}, {self.state})"


_ACCOUNT: Final = """id, channel, mode, gateway, merchant_number, app_id, notify_token, fee_ppm,
    sealed_secrets, state, created_at"""

ADD_ACCOUNT = Query(
    ChannelAccountRow,
    f"""insert into channel_account ({_ACCOUNT})
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        on conflict (channel, mode, merchant_number, app_id) do nothing
        returning {_ACCOUNT}""",
)
GET_ACCOUNT = Query(ChannelAccountRow, f"select {_ACCOUNT} from channel_account where id = $1")
ACCOUNT_OF_TOKEN = Query(
    ChannelAccountRow, f"select {_ACCOUNT} from channel_account where notify_token = $1"
)
LIST_ACCOUNTS = Query(
    ChannelAccountRow,
    f"select {_ACCOUNT} from channel_account order by channel, mode, created_at, id",
)
SET_STATE = Query(
    ChannelAccountRow,
    f"update channel_account set state = $2 where id = $1 returning {_ACCOUNT}",
)
SET_GATEWAY = Query(
    ChannelAccountRow,
    f"update channel_account set gateway = $2 where id = $1 returning {_ACCOUNT}",
)
REPLACE_SECRETS = Query(
    ChannelAccountRow,
    f"update channel_account set sealed_secrets = $2 where id = $1 returning {_ACCOUNT}",
)
