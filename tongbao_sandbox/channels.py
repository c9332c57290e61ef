"""Which institutions this sandbox plays: one line each."""

from __future__ import annotations

from typing import Final

from tongbao_sandbox import (
    alipay,
    bank,
    cards,
    cards_crypto,
    messages,
    objects,
    registers,
    unionpay,
    unionpay_crypto,
    unionpay_qra,
    wechat,
    wechat_crypto,
)
from tongbao_sandbox.credentials import KeyMaker
from tongbao_sandbox.seam import ChannelMaker

CHANNELS: Final[dict[str, tuple[KeyMaker, ChannelMaker]]] = {
    "alipay": (alipay.make_keys, alipay.Alipay),
    "bank": (bank.make_keys, bank.Bank),
    "cards": (cards_crypto.make_keys, cards.Cards),
    "messages": (messages.make_keys, messages.Messages),
    "objects": (objects.make_keys, objects.Objects),
    "registers": (registers.make_keys, registers.Registers),
    "unionpay": (unionpay_crypto.make_keys, unionpay.UnionPay),
    "unionpay_qra": (unionpay_qra.make_keys, unionpay_qra.Qra),
    "wechat": (wechat_crypto.make_keys, wechat.WechatPay),
}
"""Name → how its keys are made once, and how its server is made from the world."""
