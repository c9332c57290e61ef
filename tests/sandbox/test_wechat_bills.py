"""WeChat Pay's bills: the real file format, readiness, and the planted differences."""

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.sandbox.inbox import Inbox
from tests.sandbox.wechat_merchant import Answer, WechatMerchant
from tongbao_sandbox.clock import CHINA
from tongbao_sandbox.launch import RunningSandbox, start_sandbox
from tongbao_sandbox.wechat_bill import fee_text, yuan

REAL = (Path(__file__).parents[1] / "vectors" / "wechat_objects" / "bill.ALL.csv").read_bytes()


DEFAULTS = {
    "wechat.bill_summary": "plain",
    "wechat.fee_ppm": 6000,
    "wechat.refund_fee": "returned",
}


@pytest.fixture
def sandbox(sandbox_process: RunningSandbox) -> Iterator[RunningSandbox]:
    """A fresh day per test, for a day's bill holds everything of the day.

    It begins at one in the morning, so that no test sees the day change under its feet.
    """
    sandbox_process.advance(_seconds_until(sandbox_process, hour=1))
    yield sandbox_process
    sandbox_process.delete("faults")
    sandbox_process.post("settings", **DEFAULTS)


def now(sandbox: RunningSandbox) -> datetime:
    return datetime.fromisoformat(sandbox.get("clock")["now"]).astimezone(CHINA)


def _seconds_until(sandbox: RunningSandbox, *, hour: int, minute: int = 0) -> float:
    """Seconds to that time of the next day in China."""
    today = now(sandbox)
    wanted = (today + timedelta(days=1)).replace(hour=hour, minute=minute, second=0, microsecond=0)
    return (wanted - today).total_seconds()


def ask(merchant: WechatMerchant, day: str, more: str = "") -> Answer:
    return merchant.call("GET", f"/v3/bill/tradebill?bill_date={day}{more}")


def download(merchant: WechatMerchant, offered: Answer) -> Answer:
    url = offered.json["download_url"]
    base = f"{merchant.sandbox.url}/wechat"
    assert url.startswith(f"{base}/v3/billdownload/file?token=")
    return merchant.call("GET", url.removeprefix(base))


def cells(line: str) -> list[str]:
    return [cell.removeprefix("`") for cell in line.split(",")]


def table(content: bytes) -> tuple[list[dict[str, str]], dict[str, str]]:
    """The rows and the summary of a bill, by the names of their columns."""
    lines = content.decode("utf-8-sig").split("\r\n")
    assert lines.pop() == ""
    head, *rows, summary_head, summary = lines
    names = head.split(",")
    read = [dict(zip(names, cells(row), strict=True)) for row in rows]
    return read, dict(zip(summary_head.split(","), cells(summary), strict=True))


def bill(merchant: WechatMerchant, day: str, more: str = "") -> tuple[Any, Any]:
    return table(download(merchant, ask(merchant, day, more)).content)


def end_of(sandbox: RunningSandbox) -> str:
    """Go to ten the next morning and return the day that ended."""
    day = str(now(sandbox).date())
    sandbox.advance(_seconds_until(sandbox, hour=10))
    return day


def test_a_day_of_trades_becomes_a_bill_of_the_real_shape(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    paid = merchant.paid(1000, attach="a,b")
    refund_number = merchant.number()
    merchant.refund(paid, refund_number, 250, 1000)
    coded = merchant.number()
    merchant.codepay(coded, merchant.auth_code(), 83)
    merchant.native(merchant.number())
    day = end_of(sandbox)
    content = download(merchant, ask(merchant, day)).content

    real_lines, lines = REAL.decode().split("\r\n"), content.decode().split("\r\n")
    assert lines[0] == real_lines[0], "byte order mark and 27 columns"
    assert lines[-3] == real_lines[-3]
    assert len(lines[1].split(",")) == len(real_lines[1].split(",")) == 27
    assert content.endswith(b"\r\n")

    rows, summary = table(content)
    by_number = {(row["交易状态"], row["商户订单号"]): row for row in rows}
    assert len(rows) == 3, "an unpaid order is in no bill"
    payment = by_number["SUCCESS", paid]
    assert payment["订单金额"] == payment["应结订单金额"] == "10.00"
    assert (payment["手续费"], payment["费率"]) == ("0.06000", "0.60%")
    assert (payment["微信退款单号"], payment["退款类型"]) == ("0", "")
    assert payment["商户数据包"] == "a\\ b"
    assert payment["用户标识"].startswith("o")
    assert payment["商品名称"] == "Image形象店-深圳腾大-QQ公仔"
    assert by_number["SUCCESS", coded]["交易类型"] == "MICROPAY"
    assert by_number["SUCCESS", coded]["设备号"] == "till-7"
    assert by_number["SUCCESS", coded]["手续费"] == "0.00000", "0.498 fen rounds down"
    refund = by_number["REFUND", paid]
    assert (refund["订单金额"], refund["应结订单金额"]) == ("0.00", "0.00")
    assert refund["退款金额"] == refund["申请退款金额"] == "2.50"
    assert (refund["商户退款单号"], refund["退款状态"]) == (refund_number, "SUCCESS")
    assert (refund["退款类型"], refund["手续费"]) == ("ORIGINAL", "-0.02000")
    assert summary == {
        "总交易单数": "3",
        "应结订单总金额": "10.83",
        "退款总金额": "2.50",
        "充值券退款总金额": "0.00",
        "手续费总金额": "0.04000",
        "订单总金额": "10.83",
        "申请退款总金额": "2.50",
    }


def test_the_real_bill_and_ours_are_written_alike(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    """Column by column, the letters our cells use fit what the real file has there."""
    sandbox.post("settings", **{"wechat.bill_summary": "trimmed", "wechat.fee_ppm": 390000})
    number = merchant.paid(3)
    merchant.refund(number, merchant.number(), 1, 3)
    sandbox.advance(2)
    rows, summary = bill(merchant, end_of(sandbox))
    real_rows, real_summary = table(REAL)

    def form(text: str) -> str:
        return "".join("9" if letter.isdigit() else letter for letter in text)

    exact = (
        "交易时间",
        "特约商户号",
        "货币种类",
        "应结订单金额",
        "代金券金额",
        "退款金额",
        "手续费",
    )
    exact += (
        "充值券退款金额",
        "退款类型",
        "退款状态",
        "费率",
        "订单金额",
        "申请退款金额",
        "费率备注",
    )
    for state in ("SUCCESS", "REFUND"):
        [ours] = [row for row in rows if row["交易状态"] == state]
        theirs = [row for row in real_rows if row["交易状态"] == state]
        for name in exact:
            assert form(ours[name]) in {form(row[name]) for row in theirs}, (state, name)
        assert len(ours["微信订单号"]) == len(theirs[0]["微信订单号"]) == 28
        assert len(ours["微信退款单号"]) == len(theirs[0]["微信退款单号"])
    payment = next(row for row in rows if row["交易状态"] == "SUCCESS")
    assert payment["手续费"] == "0.01000", "0.03 at 39 %, as the real file says"
    assert {name: form(text)[-2:] for name, text in summary.items()}.keys() == real_summary.keys()
    assert (summary["总交易单数"], summary["充值券退款总金额"]) == ("2.0", "0.0")


def test_the_real_bill_sums_to_its_own_summary() -> None:
    """What the reading of the format rests on: the reader here agrees with the real file."""
    rows, summary = table(REAL)
    assert Decimal(summary["总交易单数"]) == len(rows) == 45
    for name, total in (
        ("订单金额", "订单总金额"),
        ("申请退款金额", "申请退款总金额"),
        ("手续费", "手续费总金额"),
    ):
        assert sum(Decimal(row[name]) for row in rows) == Decimal(summary[total])


@pytest.mark.parametrize(
    ("fen", "amount", "fee"),
    [
        (0, "0.00", "0.00000"),
        (7, "0.07", "0.07000"),
        (-27, "-0.27", "-0.27000"),
        (123456, "1234.56", "1234.56000"),
    ],
)
def test_figures(fen: int, amount: str, fee: str) -> None:
    assert (yuan(fen), fee_text(fen)) == (amount, fee)


def test_a_kept_fee_is_zero_on_the_refund(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    sandbox.post("settings", **{"wechat.refund_fee": "kept"})
    merchant.refund(merchant.paid(1000), merchant.number(), 1000, 1000)
    rows, _ = bill(merchant, end_of(sandbox), "&bill_type=REFUND")
    assert [row["手续费"] for row in rows] == ["0.00000"]


def test_success_and_refund_bills_have_their_own_columns(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    number = merchant.paid(1000)
    merchant.refund(number, merchant.number(), 100, 1000)
    sandbox.advance(2)
    day = end_of(sandbox)
    [payment], totals = bill(merchant, day, "&bill_type=SUCCESS")
    assert len(payment) == 20
    assert "退款金额" not in payment
    assert totals["总交易单数"] == "1"
    [refund], _ = bill(merchant, day, "&bill_type=REFUND")
    assert len(refund) == 29
    assert refund["退款成功时间"] > refund["退款申请时间"]


def test_a_reversed_payment_is_in_the_bill_twice(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    number = merchant.number()
    merchant.codepay(number, merchant.auth_code(), 1000)
    merchant.reverse(number)
    rows, _ = bill(merchant, end_of(sandbox))
    assert [row["交易状态"] for row in rows] == ["SUCCESS", "REVOKED"]
    assert {row["商户订单号"] for row in rows} == {number}
    assert rows[1]["退款金额"] == "10.00"


def test_a_bill_belongs_to_the_day_of_china(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    sandbox.advance(_seconds_until(sandbox, hour=23, minute=59) - 86400)
    first = merchant.paid()
    today = str(now(sandbox).date())
    sandbox.advance(120)
    second = merchant.paid()
    tomorrow = end_of(sandbox)
    assert [row["商户订单号"] for row in bill(merchant, today)[0]] == [first]
    assert [row["商户订单号"] for row in bill(merchant, tomorrow)[0]] == [second]


def test_a_bill_is_ready_at_nine_the_next_morning(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    merchant.paid()
    day = str(now(sandbox).date())
    assert ask(merchant, day).json["detail"]["field"] == "bill_date"
    sandbox.advance(_seconds_until(sandbox, hour=8, minute=50))
    early = ask(merchant, day)
    assert (early.status, early.code) == (400, "STATEMENT_CREATING")
    sandbox.advance(11 * 60)
    assert ask(merchant, day).status == 200
    sandbox.fault("wechat", "bill", "late")
    assert ask(merchant, day).code == "STATEMENT_CREATING"
    assert ask(merchant, day).status == 200


def test_a_day_without_trades_has_no_bill(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    answer = ask(merchant, end_of(sandbox))
    assert (answer.status, answer.code) == (400, "NO_STATEMENT_EXIST")


@pytest.mark.parametrize(
    "query",
    [
        "bill_date=20260101",
        "bill_date=",
        "bill_date=2026-01-01",
        "bill_date={day}&bill_type=X",
        "bill_date={day}&tar_type=ZIP",
    ],
)
def test_wrong_bill_requests(sandbox: RunningSandbox, merchant: WechatMerchant, query: str) -> None:
    merchant.paid()
    sandbox.advance(100 * 86400)
    merchant.paid()
    query = query.format(day=end_of(sandbox))
    answer = merchant.call("GET", f"/v3/bill/tradebill?{query}")
    assert (answer.status, answer.code) == (400, "PARAM_ERROR")
    assert answer.json["detail"]["location"] == "query"


def test_the_digest_is_of_the_plain_file_and_the_download_is_unsigned(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    merchant.paid()
    day = end_of(sandbox)
    plain, zipped = ask(merchant, day), ask(merchant, day, "&tar_type=GZIP")
    assert plain.signed
    assert plain.json["hash_type"] == "SHA1"
    assert plain.json["hash_value"] == zipped.json["hash_value"]
    content = download(merchant, plain)
    packed = download(merchant, zipped)
    assert "wechatpay-signature" not in content.headers
    assert gzip.decompress(packed.content) == content.content
    assert hashlib.sha1(content.content).hexdigest() == plain.json["hash_value"]


def test_a_link_is_good_for_five_minutes_and_needs_a_signed_request(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    merchant.paid()
    offered = ask(merchant, end_of(sandbox))
    assert httpx2.get(offered.json["download_url"]).status_code == 401
    assert download(merchant, offered).status == 200
    sandbox.advance(301)
    assert download(merchant, offered).status == 404


def test_planted_differences_and_nothing_else(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    dropped, dearer, feed, fine = (merchant.paid(1000) for _ in range(4))
    refund_number = merchant.number()
    merchant.refund(fine, refund_number, 100, 1000)
    for fault, number in (
        ("drop_row", dropped),
        ("wrong_amount:5", dearer),
        ("wrong_fee:2", feed),
        ("wrong_amount", refund_number),
        ("extra_row:777", ""),
    ):
        sandbox.post("bill/faults", channel="wechat", fault=fault, number=number)
    day = end_of(sandbox)
    content = download(merchant, ask(merchant, day)).content
    rows, summary = table(content)
    told = {row["商户订单号"]: row for row in rows if row["交易状态"] == "SUCCESS"}
    assert dropped not in told
    assert (told[dearer]["订单金额"], told[dearer]["手续费"]) == ("10.05", "0.06000")
    assert (told[feed]["订单金额"], told[feed]["手续费"]) == ("10.00", "0.08000")
    assert (told[fine]["订单金额"], told[fine]["手续费"]) == ("10.00", "0.06000")
    [stranger] = set(told) - {dearer, feed, fine}
    assert told[stranger]["订单金额"] == "7.77"
    [refund] = [row for row in rows if row["交易状态"] == "REFUND"]
    assert refund["申请退款金额"] == "1.01"
    assert (summary["总交易单数"], summary["订单总金额"]) == ("5", "37.82")
    offered = merchant.call("GET", f"/v3/bill/fundflowbill?bill_date={day}&account_type=BASIC")
    funds, _ = table(download(merchant, offered).content)
    moved = Counter((row["业务名称"], row["收支金额(元)"]) for row in funds)
    assert moved == {
        ("交易", "10.00"): 4, ("扣除交易手续费", "0.06"): 4,
        ("退款", "1.00"): 1, ("退还交易手续费", "0.01"): 1,
    }, "what moved is another matter than what is told of trades"  # fmt: skip
    assert download(merchant, ask(merchant, day)).content == content, (
        "every download tells the same"
    )
    sandbox.post("wechat/bill/forget", day=day)
    assert bill(merchant, day)[1]["总交易单数"] == "5"
    assert dropped in {row["商户订单号"] for row in bill(merchant, day)[0]}


def test_a_truncated_bill_shows_by_its_digest_unless_that_is_wrong_too(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    merchant.paid()
    day = end_of(sandbox)
    whole = download(merchant, ask(merchant, day)).content
    for fault, fits in (("truncate", False), ("truncate:hashed", True)):
        sandbox.fault("wechat", "bill", fault)
        offered = ask(merchant, day)
        content = download(merchant, offered).content
        assert len(content) < len(whole)
        assert (hashlib.sha1(content).hexdigest() == offered.json["hash_value"]) is fits
    assert download(merchant, ask(merchant, day)).content == whole


def test_the_fund_bill_has_the_fee_on_a_line_of_its_own(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    number = merchant.paid(1000)
    merchant.refund(number, merchant.number(), 500, 1000)
    day = end_of(sandbox)
    offered = merchant.call("GET", f"/v3/bill/fundflowbill?bill_date={day}&account_type=BASIC")
    rows, summary = table(download(merchant, offered).content)
    told = [(row["业务名称"], row["收支类型"], row["收支金额(元)"]) for row in rows]
    assert told == [
        ("交易", "收入", "10.00"),
        ("扣除交易手续费", "支出", "0.06"),
        ("退款", "支出", "5.00"),
        ("退还交易手续费", "收入", "0.03"),
    ]
    balances = [Decimal(row["账户结余(元)"]) for row in rows]
    assert [balance - balances[0] for balance in balances] == [
        *(Decimal(0), Decimal("-0.06"), Decimal("-5.06"), Decimal("-5.03"))
    ]
    assert summary == {
        "资金流水总笔数": "4",
        "收入笔数": "2",
        "收入金额": "10.03",
        "支出笔数": "2",
        "支出金额": "5.06",
    }
    merchant.paid(1000)
    later = end_of(sandbox)
    offered = merchant.call("GET", f"/v3/bill/fundflowbill?bill_date={later}")
    carried = table(download(merchant, offered).content)[0][0]["账户结余(元)"]
    assert Decimal(carried) == balances[-1] + 10
    fees = merchant.call("GET", f"/v3/bill/fundflowbill?bill_date={later}&account_type=FEES")
    assert fees.code == "NO_STATEMENT_EXIST"


def test_the_operating_account_is_left_by_payouts_that_were_confirmed(
    sandbox: RunningSandbox, merchant: WechatMerchant
) -> None:
    body = {
        "appid": merchant.keys["appid"],
        "transfer_scene_id": "1000",
        "openid": "oPayee000000000000000000001",
        "transfer_amount": 3000,
        "transfer_remark": "佣金",
        "transfer_scene_report_infos": [],
    }
    paid, failed, waits = numbers = [merchant.number() for _ in range(3)]
    for number in numbers:
        asked = merchant.call(
            "POST",
            "/v3/fund-app/mch-transfer/transfer-bills",
            {**body, "out_bill_no": number},
        )
        assert asked.json["state"] == "WAIT_USER_CONFIRM"
    sandbox.post("wechat/transfer", number=paid, action="confirm")
    sandbox.post("wechat/transfer", number=failed, action="fail")
    day = end_of(sandbox)

    path = f"/v3/bill/fundflowbill?bill_date={day}&account_type=OPERATION"
    [row], summary = table(download(merchant, merchant.call("GET", path)).content)

    assert (row["业务名称"], row["收支类型"], row["收支金额(元)"]) == ("商家转账", "支出", "30.00")
    assert (row["业务凭证号"], row["账户结余(元)"]) == (paid, "999970.00")
    assert (summary["资金流水总笔数"], summary["支出金额"]) == ("1", "30.00")
    assert waits not in row.values()


def test_bills_survive_a_restart(tmp_path: Path, inbox: Inbox) -> None:
    with start_sandbox(tmp_path / "w") as first, WechatMerchant(first, inbox.url) as shop:
        first.advance(_seconds_until(first, hour=1))
        shop.paid()
        sandbox_day = end_of(first)
        before = download(shop, ask(shop, sandbox_day)).content
    with start_sandbox(tmp_path / "w") as second, WechatMerchant(second, inbox.url) as shop:
        assert download(shop, ask(shop, sandbox_day)).content == before
        assert json.loads((tmp_path / "w" / "credentials.json").read_bytes())
