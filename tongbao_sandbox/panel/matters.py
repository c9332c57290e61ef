"""What each institution has to decide beside its trades: refunds, payouts, agreements, shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from tongbao_sandbox import alipay_agreements, alipay_funds, alipay_shares, bank
from tongbao_sandbox.cards_book import CardBook
from tongbao_sandbox.seam import World

MOST: Final = 30
"""How many of a kind are listed, the newest first."""


class Matter(Struct, frozen=True, kw_only=True):
    """One thing with a state. ``choices`` are told to ``/control/<channel>/<path>``."""

    kind: str  # refund, transfer, agreement, split, payment, entry, held
    number: str
    state: str  # the institution's own word
    amount: int | None = None  # minor units of CNY
    at: datetime | None = None
    path: str = ""
    word: str = "action"  # what the choice is called there
    choices: tuple[str, ...] = ()


def matters_of(world: World, channel: str) -> list[Matter]:
    """Return what is open and was decided at an institution, kind by kind."""
    return [one for list_them in _LISTS.get(channel, ()) for one in list_them(world)]


def _refunds(
    channel: str, path: str, choices: tuple[str, ...]
) -> Callable[[World], Iterator[Matter]]:
    def listed(world: World) -> Iterator[Matter]:
        for refund in world.state.refunds(channel)[: -MOST - 1 : -1]:
            yield Matter(
                kind="refund",
                number=refund.number,
                state=refund.state,
                amount=refund.amount,
                at=refund.created_at,
                path=path,
                word="state",
                choices=choices if refund.state == "processing" else (),
            )

    return listed


def _wechat_transfers(world: World) -> Iterator[Matter]:
    for kept in _kept(world, "wechat", "transfer:"):
        yield Matter(
            kind="transfer",
            number=kept["out_bill_no"],
            state=kept["state"],
            amount=kept["transfer_amount"],
            at=datetime.fromisoformat(kept["create_time"]),
            path="transfer",
            choices=("confirm", "fail") if kept["state"] == "WAIT_USER_CONFIRM" else (),
        )


def _wechat_agreements(world: World) -> Iterator[Matter]:
    choices = {"OFFERED": ("sign",), "SIGNED": ("end", "empty", "fill")}
    for kept in _kept(world, "wechat", "contract:"):
        yield Matter(
            kind="agreement",
            number=kept["body"]["out_contract_code"],
            state=kept["state"],
            path="agreement",
            choices=choices.get(kept["state"], ()),
        )


def _alipay_transfers(world: World) -> Iterator[Matter]:
    choices = {"DEALING": ("success", "fail"), "SUCCESS": ("refund",)}
    for raw in world.state.documents("alipay", "payout/", MOST):
        kept = msgspec.json.decode(raw, type=alipay_funds.Payout)
        yield Matter(
            kind="transfer",
            number=kept.number,
            state=kept.state,
            amount=kept.amount,
            at=kept.at,
            path="transfer",
            word="state",
            choices=choices.get(kept.state, ()),
        )


def _alipay_agreements(world: World) -> Iterator[Matter]:
    for raw in world.state.documents("alipay", "agreement/", MOST):
        kept = msgspec.json.decode(raw, type=alipay_agreements.Agreement)
        yield Matter(
            kind="agreement",
            number=kept.number,
            state=kept.state,
            at=kept.signed_at,
            path="agreement",
            choices=("pay", "decline", "end") if kept.state == "NORMAL" else (),
        )


def _alipay_splits(world: World) -> Iterator[Matter]:
    for raw in world.state.documents("alipay", "split/", MOST):
        kept = msgspec.json.decode(raw, type=alipay_shares.Split)
        states = {share.state for share in kept.shares}
        yield Matter(
            kind="split",
            number=kept.number,
            state=", ".join(sorted(states)),
            amount=sum(share.amount for share in kept.shares),
            at=kept.at,
            path="split",
            word="state",
            choices=("success", "fail") if "PROCESSING" in states else (),
        )


def _unionpay_held(world: World) -> Iterator[Matter]:
    for trade in world.state.trades("unionpay")[::-1]:
        if trade.extra.get("held") and trade.state == "asking":
            yield Matter(
                kind="held",
                number=trade.number,
                state=trade.state,
                amount=trade.amount,
                at=trade.created_at,
                path="decide",
                word="state",
                choices=("done", "failed"),
            )


def _bank_payments(world: World) -> Iterator[Matter]:
    for name, raw in world.state.named_documents("bank", "order.", MOST):
        kept = msgspec.json.decode(raw, type=bank.Held)
        number = name.removeprefix("order.")
        states = sorted({report.status for report in kept.reports})
        yield Matter(
            kind="payment",
            number=number,
            state=", ".join(states),
            amount=sum(report.money.amount for report in kept.reports),
            at=kept.changed_at,
            path=f"payments/{number}",
            choices=("settle", "reject", "return") if {"ACTC", "PDNG"} & set(states) else (),
        )


def _card_entries(world: World) -> Iterator[Matter]:
    for entry in CardBook(world).entries()[: -MOST - 1 : -1]:
        yield Matter(
            kind=entry.kind,
            number=entry.reference,
            state=f"{entry.code} {entry.state}",
            amount=entry.amount,
        )


def _letters(world: World) -> Iterator[Matter]:
    for letter in _kept(world, "messages", "letter."):
        yield Matter(kind=letter["kind"], number=letter["to"], state=letter["text"])


def _kept(world: World, channel: str, prefix: str) -> Iterator[Any]:
    return map(msgspec.json.decode, world.state.documents(channel, prefix, MOST))


_LISTS: Final[Mapping[str, tuple[Callable[[World], Iterator[Matter]], ...]]] = {
    "alipay": (
        _refunds("alipay", "refund", ("done", "abnormal")),
        _alipay_transfers,
        _alipay_agreements,
        _alipay_splits,
    ),
    "bank": (_bank_payments,),
    "cards": (_card_entries,),
    "messages": (_letters,),
    "objects": (),
    "registers": (),
    "unionpay": (_unionpay_held, _refunds("unionpay", "decide", ("done", "failed"))),
    "unionpay_qra": (_refunds("unionpay_qra", "refund", ("done", "abnormal")),),
    "wechat": (
        _refunds("wechat", "refund", ("done", "abnormal", "closed")),
        _wechat_transfers,
        _wechat_agreements,
    ),
}
