"""A speaker is put on the counter: it gets its key, hears of money, and of money that goes back."""

from __future__ import annotations

from itertools import islice
from typing import Final

from tongbao.kernel.ids import parse
from tongbao.kernel.licence import Mode
from tongbao.parties.merchants.queries import merchant_with_id
from tongbao.parties.terminals import inventory
from tongbao.surfaces.demo.programme import Programme
from tongbao_sdk.errors import Refused
from tongbao_sdk.terminals import Terminal

_PRICE: Final = 1_250
_BACK: Final = 250
_MOST: Final = 2_000  # a day


async def stand_at_the_counter(programme: Programme) -> None:
    """Bind a terminal, activate it, take money at it, and see what it is told and refuses."""
    serial = f"SN{programme.day}"
    async with programme.db.begin("operator") as tx:
        await inventory.import_serials(
            tx, f"serial\n{serial}".encode(), name=f"box {programme.day}", model="S1"
        )
        taken = await inventory.terminal_with_serial(tx, serial)
        merchant = await merchant_with_id(tx, parse("mch", programme.merchant_id))
        await inventory.assign_terminal(tx, taken.id, merchant, Mode.SANDBOX)
    terminals = programme.shop.terminals
    [found] = await programme.call(lambda: list(terminals.list(serial=serial)))
    await programme.call(terminals.place, found["id"], name="counter 1")
    await programme.call(terminals.set_limits, found["id"], amount=_MOST)
    code = await programme.call(terminals.activation_code, found["id"])
    machine = await programme.call(
        Terminal.activate, programme.url, serial=serial, code=code["code"]
    )
    await programme.call(machine.beat, firmware="1.0", battery=90)

    order_no = f"{programme.day}-counter"
    wallet = await programme.call(programme.shop.wallets.open, holder_name="柜台顾客")
    await programme.call(programme.shop.wallets.top_up, wallet["id"], amount=3 * _PRICE)
    paid = await _collect(programme, wallet["id"], order_no, found["id"])
    refused = await _collect(programme, wallet["id"], f"{order_no}-2", found["id"])
    refund_no = f"{order_no}-r"
    await programme.call(
        programme.shop.payments.refund, paid, merchant_refund_no=refund_no, amount=_BACK
    )
    await programme.idle()
    told = await programme.call(lambda: list(islice(machine.notices(), 2)))

    programme.mark("terminal: over its day's limit", "terminal.limit_amount", refused)
    programme.mark("terminal says", "钱包收款 12.50 元", told[0]["speak"]["zh"])
    programme.mark("terminal says then", "钱包退款 2.50 元", told[1]["speak"]["zh"])


async def _collect(programme: Programme, wallet: str, order_no: str, terminal: str) -> str:
    """Return the payment of a customer at the terminal, or the code it was refused with."""
    shown = await programme.call(programme.shop.wallets.payment_code, wallet)
    try:
        payment = await programme.call(
            programme.shop.payments.create,
            merchant_order_no=order_no,
            amount=_PRICE,
            subject="demo",
            method={"mode": "payment_code", "auth_code": shown["code"]},
            terminal_id=terminal,
        )
    except Refused as refused:
        return refused.code
    programme.payments[order_no] = payment
    return payment["id"]
