"""Alipay's trade bill: a zip of two GBK files, made from the sandbox's own trades."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterable, Sequence
from datetime import date, datetime, timedelta
from typing import Final

from msgspec import Struct

from tongbao.kernel.money import Money, share_half_up
from tongbao_sandbox.clock import china, plain

FEE_PPM: Final = 6000
"""0.60 %; the setting ``alipay.fee_ppm`` overrides."""
HEADER: Final = (
    "支付宝交易号,商户订单号,业务类型,商品名称,创建时间,完成时间,门店编号,门店名称,操作员,"
    "终端号,对方账户,订单金额（元）,商家实收（元）,支付宝红包（元）,集分宝（元）,支付宝优惠（元）,"
    "商家优惠（元）,券核销金额（元）,券名称,商家红包消费金额（元）,卡消费金额（元）,"
    "退款批次号/请求号,服务费（元）,分润（元）,备注"
)
SUMMARY_HEADER: Final = (
    "门店编号,门店名称,交易订单总笔数,退款订单总笔数,订单金额（元）,商家实收（元）,"
    "支付宝优惠（元）,商家优惠（元）,卡消费金额（元）,服务费（元）,分润（元）,实收净额（元）"
)
_ENTRY: Final = struct.Struct("<IHHHHHIIIHH")
_DIRECTORY: Final = struct.Struct("<IHHHHHHIIIHHHHHII")
_END: Final = struct.Struct("<IHHHHIIH")


class Line(Struct, frozen=True, kw_only=True):
    """One row of the bill. A refund's amount is negative, and so is the fee given back."""

    trade_no: str
    number: str
    is_refund: bool
    subject: str
    created_at: datetime
    done_at: datetime
    store: str
    buyer: str
    amount: int  # fen
    fee: int  # fen
    request_number: str = ""
    note: str = ""

    def text(self) -> str:
        """Return the row: most text cells end with a TAB, so that Excel leaves digits alone."""
        amount = yuan(self.amount)
        cells = (
            self.trade_no + "\t", self.number + "\t", ("退款" if self.is_refund else "交易") + "\t",
            _cell(self.subject), plain(self.created_at), plain(self.done_at),
            self.store + "\t", "\t", "\t", "\t", self.buyer + "\t", amount, amount,
            "0.00", "0.00", "0.00", "0.00", "0.00", "", "0.00\t", "0.00",
            self.request_number + ("" if self.request_number else "\t"),
            yuan(self.fee), "0.00", _cell(self.note),
        )  # fmt: skip
        return ",".join(cells)


def fee_of(amount: int, rate_ppm: int = FEE_PPM) -> int:
    """Return the service fee of an amount, rounded half up."""
    return share_half_up(amount, rate_ppm)


def yuan(fen: int) -> str:
    """Return fen as yuan with two decimals."""
    return Money(fen, "CNY").decimal_text()


def bill_zip(
    seller_id: str, day: date, lines: Sequence[Line], made_at: datetime, *, is_cut: bool = False
) -> bytes:
    """Return the day's bill. Every other day the summary comes first: readers go by name.

    A cut one breaks off in the middle of the single trades, without a trailer.
    """
    stem = f"{seller_id}0156_{day:%Y%m%d}_业务明细"
    detail = detail_text(seller_id, day, lines, made_at)
    files = [
        (f"{stem}.csv", detail[: detail.index(HEADER) + len(HEADER) + 60] if is_cut else detail),
        (f"{stem}(汇总).csv", summary_text(seller_id, day, lines, made_at)),
    ]
    if day.toordinal() % 2:
        files.reverse()
    return zip_of_gbk_names([(name, text.encode("gbk", "replace")) for name, text in files])


def detail_text(seller_id: str, day: date, lines: Sequence[Line], made_at: datetime) -> str:
    """Return the file of single trades and refunds, with its trailer."""
    paid = [line.amount for line in lines if not line.is_refund]
    back = [line.amount for line in lines if line.is_refund]
    return text_of(
        [
            "#支付宝业务明细查询",
            *opening(seller_id, day),
            f"#{'-' * 41}业务明细列表{'-' * 40}",
            HEADER,
            *(line.text() for line in lines),
            f"#{'-' * 41}业务明细列表结束{'-' * 36}",
            f"#交易合计：{len(paid)}笔，商家实收共{yuan(sum(paid))}元，商家优惠共0.00元",
            f"#退款合计：{len(back)}笔，商家实收退款共{yuan(sum(back))}元，商家优惠退款共0.00元",
            f"#导出时间：[{china(made_at):%Y年%m月%d日 %H:%M:%S}]",
        ]
    )


def summary_text(seller_id: str, day: date, lines: Sequence[Line], made_at: datetime) -> str:
    """Return the file of totals: one row, for we know one store account only."""
    refunds = sum(line.is_refund for line in lines)
    amount = sum(line.amount for line in lines)
    fee = sum(line.fee for line in lines)
    total = (
        "合计\t", "\t", str(len(lines) - refunds), str(refunds), yuan(amount), yuan(amount),
        "0.00", "0.00", "0.00", yuan(fee), "0.00", yuan(amount - fee),
    )  # fmt: skip
    return text_of(
        [
            "#支付宝业务汇总查询",
            *opening(seller_id, day),
            f"#{'-' * 41}业务汇总列表{'-' * 40}",
            SUMMARY_HEADER,
            ",".join(total),
            f"#{'-' * 40}业务汇总列表结束{'-' * 37}",
            f"#导出时间：[{china(made_at):%Y年%m月%d日 %H:%M:%S}]",
        ]
    )


def zip_of_gbk_names(files: Iterable[tuple[str, bytes]]) -> bytes:
    """Return a zip whose names are GBK bytes without the UTF-8 flag.

    Python's own writer sets the flag on any name that is not ASCII, so the few records are
    written here (APPNOTE 4.3.7, 4.3.12, 4.3.16).
    """
    out = io.BytesIO()
    directory: list[bytes] = []
    stamp = (0, 0x21)  # 1980-01-01: the same trades make the same bytes
    for name, content in files:
        raw = name.encode("gbk")
        packer = zlib.compressobj(wbits=-15)
        packed = packer.compress(content) + packer.flush()
        sizes = (zlib.crc32(content), len(packed), len(content), len(raw), 0)
        offset = out.tell()
        out.write(_ENTRY.pack(0x04034B50, 20, 0, 8, *stamp, *sizes) + raw + packed)
        head = _DIRECTORY.pack(0x02014B50, 20, 20, 0, 8, *stamp, *sizes, 0, 0, 0, 0, offset)
        directory.append(head + raw)
    start = out.tell()
    out.write(b"".join(directory))
    count = len(directory)
    out.write(_END.pack(0x06054B50, 0, 0, count, count, out.tell() - start, start, 0))
    return out.getvalue()


def opening(seller_id: str, day: date) -> list[str]:
    """Return the lines that say whose bill it is and of which day."""
    end = day + timedelta(days=1)
    return [
        f"#账号：[{seller_id}0156]",
        f"#起始日期：[{day:%Y年%m月%d日} 00:00:00]   终止日期：[{end:%Y年%m月%d日} 00:00:00]",
    ]


def _cell(text: str) -> str:
    """Free text in a file without quoting: a comma or a line break would shift the columns."""
    return text.translate({ord(","): "，", ord("\r"): " ", ord("\n"): " ", ord("\t"): " "})


def text_of(lines: Iterable[str]) -> str:
    """Return the file of these lines; they end as on Windows."""
    return "".join(line + "\r\n" for line in lines)
