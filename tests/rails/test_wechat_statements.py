"""WeChat Pay's bills of funds and of shares: fetched from the simulated one, and read."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from msgspec.structs import replace

from tests.rails.test_wechat_keys import needs_sm2
from tests.rails.wechat_shop import WechatShop, number
from tests.rails.wire_server import WireServer
from tongbao.infra.crypto import rsa_private_key
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import business_date
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.shares import Receiver, Share, SplitOrder, SplitReturn
from tongbao.rails.channels.contract.bills import (
    BillEmpty,
    BillFault,
    BillFile,
    BillNotReady,
    BillRow,
    FurtherBills,
)
from tongbao.rails.channels.contract.orders import ChannelAccount
from tongbao.rails.channels.contract.outcomes import Succeeded, Unknown
from tongbao.rails.channels.wechat_pay.crypto import EnvelopeBroken, open_file
from tongbao.rails.channels.wechat_pay.gateway import secrets_of
from tongbao.rails.channels.wechat_pay.statements import (
    FundRow,
    FundTotal,
    SplitRow,
    SplitTotal,
    parse_fund_bill,
    parse_split_bill,
)
from tongbao_sandbox import wechat_sm
from tongbao_sandbox.launch import RunningSandbox

RECEIVER = Receiver("MERCHANT_ID", "86693852", name="示例商贸有限公司", relation="STORE")


@pytest.fixture
async def shop(fresh_sandbox: RunningSandbox, http: HttpClient, far_end: WireServer) -> WechatShop:
    shop = WechatShop(fresh_sandbox, http, far_end)
    shop.account = shop.account_with(profit_sharing=True)
    now = datetime.fromisoformat(fresh_sandbox.get("clock")["now"])
    if now.hour == 15:  # UTC, 23 o'clock in China: the day must not end meanwhile
        await shop.advance(3600)
    return shop


def rsa_pem() -> str:
    key = generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def yuan(fen: int) -> Money:
    return Money(fen, "CNY")


async def traded(shop: WechatShop) -> SplitOrder:
    """One payment of 19.99, a share of 3.00 given and 1.00 of it taken back, 5.00 refunded."""
    paid = await shop.paid()
    found = (await shop.channel.query(shop.account, paid)).outcome
    assert isinstance(found, Succeeded)
    await shop.channel.add_receiver(shop.account, RECEIVER)
    split = SplitOrder(number(), found.channel_ref, [Share(RECEIVER, yuan(300), "佣金, 11月")])
    await shop.channel.split(shop.account, split)
    await shop.advance(2)
    back = SplitReturn(number(), split.number, "", RECEIVER, yuan(100), "退")
    assert isinstance((await shop.channel.return_split(shop.account, back)).outcome, Succeeded)
    await shop.channel.refund(shop.account, shop.refund(paid, 500))
    await shop.advance(2)
    return split


async def bill(shop: WechatShop, kind: str, folder: Path) -> Path:
    day = business_date(datetime.fromisoformat(shop.sandbox.get("clock")["now"]))
    early = await shop.channel.download_further_bill(shop.account, kind, day, folder)
    assert isinstance(early.outcome, Unknown | BillNotReady)
    await shop.advance(2 * 86400)
    found = (await shop.channel.download_further_bill(shop.account, kind, day, folder)).outcome
    assert isinstance(found, BillFile), found
    return found.path


def test_the_channel_has_further_bills(shop: WechatShop) -> None:
    assert isinstance(shop.channel, FurtherBills)
    assert {"funds", "splits"} <= shop.channel.further_bills


async def test_the_fund_bill_holds_every_movement_and_adds_up(
    shop: WechatShop, tmp_path: Path
) -> None:
    split = await traded(shop)
    *rows, total = parse_fund_bill(await bill(shop, "funds", tmp_path))
    assert isinstance(total, FundTotal)
    funds = [row for row in rows if isinstance(row, FundRow)]
    assert len(funds) == len(rows) == total.row_count
    by_name = {row.name: row.money.amount for row in funds}
    assert by_name == {
        "交易": 1999,
        "扣除交易手续费": -12,
        "分账": -300,
        "分账回退": 100,
        "退款": -500,
        "退还交易手续费": 3,
    }
    assert funds[-1].balance.amount == sum(row.money.amount for row in funds)
    assert total.income.amount - total.expense.amount == funds[-1].balance.amount
    assert next(row for row in funds if row.name == "分账").number == split.number


async def test_the_bill_of_shares_holds_what_the_trade_bill_does_not(
    shop: WechatShop, tmp_path: Path
) -> None:
    split = await traded(shop)
    given, back, total = parse_split_bill(await bill(shop, "splits", tmp_path))
    assert isinstance(given, SplitRow)
    assert isinstance(back, SplitRow)
    assert (given.number, given.account, given.money) == (split.number, "86693852", yuan(300))
    assert (given.is_return, given.state, given.payment_ref) == (False, "成功", split.channel_ref)
    assert (back.is_return, back.money) == (True, yuan(100))
    assert total == SplitTotal(2, yuan(300), yuan(100))
    day = business_date(given.at)
    trades = (await shop.channel.download_bill(shop.account, day, tmp_path)).outcome
    assert isinstance(trades, BillFile)
    rows = [one for one in shop.channel.parse_bill(trades.path) if isinstance(one, BillRow)]
    assert split.number not in {row.number for row in rows}


async def test_a_day_without_movements_has_no_bill(shop: WechatShop, tmp_path: Path) -> None:
    day = business_date(datetime.fromisoformat(shop.sandbox.get("clock")["now"]))
    await shop.advance(2 * 86400)
    for kind in ("funds", "funds_operation", "funds_fees", "splits"):
        answer = await shop.channel.download_further_bill(shop.account, kind, day, tmp_path)
        assert isinstance(answer.outcome, BillEmpty)
    odd = await shop.channel.download_further_bill(shop.account, "gold", day, tmp_path)
    assert isinstance(odd.outcome, Unknown)
    assert not list(tmp_path.iterdir())


FUNDS = (
    "\ufeff记账时间,微信支付业务单号,资金流水单号,业务名称,业务类型,收支类型,收支金额(元),账户结余(元),"
    "资金变更提交申请人,备注,业务凭证号\r\n"
)
FUNDS_END = "资金流水总笔数,收入笔数,收入金额,支出笔数,支出金额\r\n"
ROW = "`2030-01-01 12:00:00,`42,`1000,`交易,`交易,`收入,`19.99,`19.99,`system,`a\\ b,`n1\r\n"


@pytest.mark.parametrize(
    ("text", "codes"),
    [
        ("", ["bill.header_unknown"]),
        ("记账时刻,x\r\n", ["bill.header_unknown"]),
        (FUNDS, ["bill.truncated"]),
        (FUNDS + ROW, ["bill.truncated"]),
        (FUNDS + ROW + FUNDS_END, ["bill.columns_differ"]),
        (FUNDS + ROW.replace("收入", "转移") + FUNDS_END + "`1,`1,`19.99,`0,`0.00\r\n",
         ["bill.state_unknown"]),
        (FUNDS + ROW.replace("`19.99", "`-19.99", 1) + FUNDS_END + "`1,`1,`19.99,`0,`0.00\r\n",
         ["bill.amount_negative"]),
        (FUNDS + ROW.replace("12:00:00", "noon") + FUNDS_END + "`1.0,`1,`19.99,`0,`0\r\n",
         ["bill.time_malformed"]),
        (FUNDS + ROW + "`1,`2\r\n" + FUNDS_END + "`1,`1,`19.99,`0,`0.00\r\n",
         ["bill.columns_differ"]),
        (FUNDS + ROW + FUNDS_END + "`1,`1,`19.99,`0,`0.00\r\n", []),
    ],
)  # fmt: skip
def test_a_line_that_cannot_be_read_is_a_fault_and_the_others_count(
    text: str, codes: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "funds.csv"
    path.write_text(text, "utf-8", newline="")
    lines = list(parse_fund_bill(path))
    assert [line.code for line in lines if isinstance(line, BillFault)] == codes
    if ROW in text:
        row = next(line for line in lines if isinstance(line, FundRow))
        assert (row.money, row.number) == (yuan(1999), "n1")


def test_another_file_is_no_bill_of_shares(tmp_path: Path) -> None:
    path = tmp_path / "splits.csv"
    path.write_text(FUNDS, "utf-8")
    [line] = parse_split_bill(path)
    assert isinstance(line, BillFault)


async def test_a_sub_merchants_funds_are_decrypted_checked_and_put_together(
    shop: WechatShop, tmp_path: Path
) -> None:
    """The bill comes in two files, the second first; a provider's own trades are not in it."""
    await shop.paid()
    shop.become_partner()
    theirs = await shop.paid()
    *rows, total = parse_fund_bill(await bill(shop, "funds", tmp_path))
    funds = [row for row in rows if isinstance(row, FundRow)]
    assert isinstance(total, FundTotal)
    assert [(row.name, row.money.amount) for row in funds] == [
        ("交易", 1999),
        ("扣除交易手续费", -12),
    ]
    assert {row.number for row in funds} == {theirs.number}
    assert (total.row_count, total.income) == (2, yuan(1999))
    assert [path.suffix for path in tmp_path.iterdir()] == [".csv"], "nothing sealed is left"


@needs_sm2
async def test_a_sub_merchants_funds_are_opened_with_an_sm2_key_too(
    shop: WechatShop, tmp_path: Path
) -> None:
    shop.become_partner()
    theirs = await shop.paid()
    key_id, own = shop.keys["sm2_platform_key_id"], secrets_of(shop.account)
    modern = replace(
        own,
        scheme="SM2",
        merchant_serial=shop.keys["sm2_merchant_serial"],
        merchant_private_key_pem=shop.keys["sm2_merchant_private_key_pem"],
        platform_keys={key_id: shop.keys["sm2_platform_public_key_pem"]},
        public_key_id=key_id,
    )
    shop.account = replace(shop.account, secrets=modern)

    *rows, total = parse_fund_bill(await bill(shop, "funds", tmp_path))

    assert isinstance(total, FundTotal)
    assert {row.number for row in rows if isinstance(row, FundRow)} == {theirs.number}
    assert total.income == yuan(1999)
    [asked] = [
        each for each in shop.sandbox.get("requests", last=9) if "sub-merchant" in each["target"]
    ][-1:]
    assert "algorithm=SM4_GCM" in asked["target"]


async def test_a_sealed_bill_that_is_not_whole_or_not_for_us_is_none(
    shop: WechatShop, tmp_path: Path
) -> None:
    shop.become_partner()
    await shop.paid()
    day = business_date(datetime.fromisoformat(shop.sandbox.get("clock")["now"]))
    await shop.advance(2 * 86400)
    own = shop.account

    async def told(account: ChannelAccount) -> str:
        answer = await shop.channel.download_further_bill(account, "funds", day, tmp_path)
        assert isinstance(answer.outcome, Unknown)
        return answer.outcome.reason

    shop.sandbox.fault("wechat", "bill", "truncate")
    assert await told(own) == "the bill does not open with our key"
    assert not list(tmp_path.iterdir())
    empty = await shop.channel.download_further_bill(own, "funds_fees", day, tmp_path)
    assert isinstance(empty.outcome, BillEmpty)


def test_a_sealed_file_opens_with_its_own_key_and_nonce_alone(tmp_path: Path) -> None:
    """Written here with the library's one-shot cipher, and read piece by piece."""
    pem, key, nonce = rsa_pem(), AESGCM.generate_key(256), "a8607ef79034c49c"
    text = b"\xef\xbb\xbf" + b"x" * 3_000_000
    public = rsa_private_key(pem).public_key()
    wrapped = b64encode(public.encrypt(key, OAEP(MGF1(SHA1()), SHA1(), None))).decode()
    sealed, opened = tmp_path / "sealed", tmp_path / "opened"
    sealed.write_bytes(AESGCM(key).encrypt(nonce.encode(), text, None))
    open_file("RSA", pem, key=wrapped, nonce=nonce, sealed=sealed, to=opened)
    assert opened.read_bytes() == text
    for of, sent, once in (
        (rsa_pem(), wrapped, nonce),
        (pem, wrapped, nonce[::-1]),
        (pem, wrapped[:-4] + "AAAA", nonce),
        (pem, "", nonce),
        (pem, wrapped, ""),
    ):
        with pytest.raises(EnvelopeBroken):
            open_file("RSA", of, key=sent, nonce=once, sealed=sealed, to=opened)
        assert not opened.exists()
    for size in (0, 5, 16, 100):
        sealed.write_bytes(sealed.read_bytes()[:size])
        with pytest.raises(EnvelopeBroken):
            open_file("RSA", pem, key=wrapped, nonce=nonce, sealed=sealed, to=opened)


@needs_sm2
def test_a_file_sealed_with_sm4_opens_with_its_own_key_alone(tmp_path: Path) -> None:
    """Sealed by the sandbox's own arithmetic, and opened by the system's library."""
    (private, public), (stranger, _) = wechat_sm.new_pair(), wechat_sm.new_pair()
    key, nonce, text = b"k" * 16, "a8607ef79034c49c", b"x" * 100_000
    wrapped = wechat_sm.seals(public, key)
    sealed, opened = tmp_path / "sealed", tmp_path / "opened"
    sealed.write_bytes(wechat_sm.seal_file(key, nonce.encode(), text))
    sent = b64encode(wrapped).decode()
    open_file("SM2", private, key=sent, nonce=nonce, sealed=sealed, to=opened)
    assert opened.read_bytes() == text
    short = b64encode(wechat_sm.seals(public, b"short")).decode()
    cut, none = b64encode(wrapped[:-1]).decode(), b64encode(b"0").decode()
    broken = ((stranger, sent), (private, short), (private, cut), (private, none), (private, ""))
    for of, given in broken:
        with pytest.raises(EnvelopeBroken):
            open_file("SM2", of, key=given, nonce=nonce, sealed=sealed, to=opened)
        assert not opened.exists()
