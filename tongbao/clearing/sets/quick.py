"""Where the few fields stand that tell whether a bill's line agrees with a payment of ours.

It is data: a channel whose bill is lines of text gets its fastest lane by a line in this table; any
other bill is written as plain lines first (`sets/plain.py`). A line that looks in any way unusual
is simply not taken here, and read by the channel's own parser.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from msgspec import Struct

from tongbao.rails.channels.contract.bills import BillLine


class QuickBill(Struct, frozen=True):
    """A bill of delimited lines in UTF-8. Columns count from nought; values keep their prefix.

    A line agrees when the number, the amount and the fee are letter by letter what we would have
    written, the time is one of the day, every column of ``where`` has its value and none of
    ``filled`` is empty.
    """

    header: str  # the first line, without a byte order mark
    trailer: str  # what the line before the last begins with
    prefix: str  # of every value
    number: int
    amount: int
    fee: int
    fee_noughts: str  # what follows the two decimals of a fee in whole fen
    at: int
    where: tuple[tuple[int, str], ...]
    filled: tuple[int, ...]
    parse: Callable[[Path], Iterator[BillLine]] | None = None  # reads it back; the channel's does

    @property
    def column_count(self) -> int:
        """How many values each line has."""
        return self.header.count(",") + 1


QUICK_BILLS: Final = {
    "wechat_pay": QuickBill(
        header=(
            "交易时间,公众账号ID,商户号,特约商户号,设备号,微信订单号,商户订单号,用户标识,交易类型,"
            "交易状态,付款银行,货币种类,应结订单金额,代金券金额,微信退款单号,商户退款单号,退款金额,"
            "充值券退款金额,退款类型,退款状态,商品名称,商户数据包,手续费,费率,订单金额,申请退款金额,"
            "费率备注"
        ),
        trailer="总交易单数",
        prefix="`",
        number=6,
        amount=24,
        fee=22,
        fee_noughts="000",
        at=0,
        where=((9, "SUCCESS"), (11, "CNY")),
        filled=(5,),
    )
}
"""By the channel's name."""
