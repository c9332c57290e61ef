"""Connections: every channel there is, and what each needs to know of us."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from msgspec import Struct

from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import Clock
from tongbao.rails.channels.alipay.client import Alipay
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.bank_files.client import BankFiles
from tongbao.rails.channels.bank_files.secrets import BankFilesSecrets
from tongbao.rails.channels.bank_transfer.messages import BankSecrets
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.cards.secrets import CardSecrets
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import Detokenise
from tongbao.rails.channels.unionpay.client import UnionPay
from tongbao.rails.channels.unionpay.secrets import UnionPaySecrets
from tongbao.rails.channels.unionpay_qra.client import Qra
from tongbao.rails.channels.unionpay_qra.secrets import QraSecrets
from tongbao.rails.channels.wechat_pay.client import WechatPay
from tongbao.rails.channels.wechat_pay.secrets import WechatPaySecrets

SECRETS: Final[Mapping[str, type[Struct]]] = {
    "wechat_pay": WechatPaySecrets,
    "alipay": AlipaySecrets,
    "unionpay": UnionPaySecrets,
    "unionpay_qra": QraSecrets,
    "bank_files": BankFilesSecrets,
    "bank_transfer": BankSecrets,
    "cards": CardSecrets,
}


def channels(
    http: HttpClient, clock: Clock, detokenise: Detokenise | None = None
) -> Mapping[str, Channel]:
    """Return every channel that takes payments, by name.

    Alipay dates what it does not date itself by our business time; WeChat Pay's signatures have a
    window in real time. ``detokenise`` is who knows the cards behind tokens.
    """
    made: tuple[Channel, ...] = (
        WechatPay(http),
        Alipay(http, clock=clock.now),
        UnionPay(http, clock=clock.now),
        Qra(http, clock=clock.now),
        Cards(detokenise=detokenise),
        BankFiles(http, clock=clock.now),
    )
    return {channel.name: channel for channel in made}
