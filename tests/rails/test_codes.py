import json
import re
from pathlib import Path

import pytest

from tongbao.parties.accounts.model import CODE_PREFIX
from tongbao.parties.offline_codes.model import PREFIX as OFFLINE_PREFIX
from tongbao.rails.channels.alipay.client import Alipay
from tongbao.rails.channels.bank_files.client import BankFiles
from tongbao.rails.channels.cards.client import Cards
from tongbao.rails.channels.codes import (
    CODE_RANGES,
    CODE_TAKERS,
    TEXT_OWNERS,
    CodeRange,
    PaymentCodeUnknown,
    TextOwner,
    owner_of_text,
    recognise,
    takers_of_code,
)
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.unionpay.client import UnionPay
from tongbao.rails.channels.unionpay_qra.client import Qra
from tongbao.rails.channels.wechat_pay.client import WechatPay

VECTORS = json.loads(
    (Path(__file__).parents[1] / "vectors/emvqr/emvqr_vectors.json").read_text("utf-8")
)
SCHEMES = {"wechat": "wechat_pay", "alipay": "alipay", "unionpay": "unionpay"}


@pytest.mark.parametrize("row", CODE_RANGES, ids=lambda row: row.scheme)
def test_every_prefix_and_length_of_a_row_is_recognised_and_its_neighbours_are_not(
    row: CodeRange,
) -> None:
    for prefix in sorted(row.prefixes):
        for length in range(row.digits_min, row.digits_max + 1):
            assert recognise(prefix + "7" * (length - 2)) == row
        for length in (row.digits_min - 1, row.digits_max + 1):
            found = recognise(prefix + "7" * (length - 2))
            assert found is None or found.scheme != row.scheme


@pytest.mark.parametrize("rule", VECTORS["cn_payment_codes"]["rules"], ids=lambda r: r["scheme"])
def test_the_table_says_what_the_channels_own_rules_say(rule: dict[str, str]) -> None:
    """Every two first digits and every length from 1 to 30, compared with the published rule."""
    scheme = SCHEMES[rule["scheme"]]
    for first in range(100):
        for length in range(2, 31):
            code = f"{first:02}" + "4" * (length - 2)
            found = recognise(code)
            ours = found is not None and found.scheme == scheme
            assert ours == bool(re.search(rule["regex"], code)), code


@pytest.mark.parametrize("prefix", [CODE_PREFIX, OFFLINE_PREFIX])
def test_the_wallets_own_prefixes_are_nobody_elses(prefix: str) -> None:
    assert takers_of_code(prefix + "0" * 16) == ("wallet",)
    taken = {each for row in CODE_RANGES if row.scheme != "wallet" for each in row.prefixes}
    assert prefix not in taken


@pytest.mark.parametrize(
    ("code", "scheme"),
    [
        *((f"{prefix}" + "0" * 16, "wechat_pay") for prefix in range(10, 16)),
        *((f"{prefix}" + "0" * 14, "alipay") for prefix in range(25, 31)),
        ("28" + "0" * 22, "alipay"),
        ("88" + "0" * 16, "wallet"),
    ],
)
def test_the_first_digits_and_the_length_tell_whose_code_it_is(code: str, scheme: str) -> None:
    assert takers_of_code(code)[0] == scheme


@pytest.mark.parametrize(
    "code",
    [
        "",
        "16" + "0" * 16,
        "10" + "0" * 15,
        "10" + "0" * 17,
        "28" + "0" * 13,
        "28" + "0" * 23,
        "88" + "0" * 15,
        "https://qr.alipay.com/x",
        "１０" + "0" * 16,
        "10 " + "0" * 15,
    ],
)
def test_anything_else_is_nobodys(code: str) -> None:
    assert recognise(code) is None
    with pytest.raises(PaymentCodeUnknown):
        takers_of_code(code)


@pytest.mark.parametrize("row", TEXT_OWNERS, ids=lambda row: row.channel)
def test_a_merchants_code_at_a_till_is_named_and_refused(row: TextOwner) -> None:
    with pytest.raises(PaymentCodeUnknown) as refused:
        takers_of_code(f"{row.begins}bax03")
    assert refused.value.facts["owner"] == row.channel


def test_a_consumers_emv_code_is_its_issuers() -> None:
    by_id = {each["id"]: each["base64"] for each in VECTORS["cpm"]}
    assert owner_of_text(by_id["unionpay-cpm"]) == "unionpay"
    assert owner_of_text(by_id["emvco-cpm-1"]) is None
    assert owner_of_text("nonsense") is None


def test_unionpays_codes_are_charged() -> None:
    assert takers_of_code("62" + "0" * 17) == ("unionpay", "unionpay_qra")
    for other in ("62" + "0" * 16, "62" + "0" * 18, "63" + "0" * 17):
        with pytest.raises(PaymentCodeUnknown):
            takers_of_code(other)


def test_every_scheme_has_takers_that_charge_codes_and_its_own_is_the_first() -> None:
    adapters = (WechatPay, Alipay, UnionPay, Qra, Cards, BankFiles)
    charging = {each.name for each in adapters if PayMode.PAYMENT_CODE in each.modes}
    assert CODE_TAKERS.keys() == {row.scheme for row in CODE_RANGES}
    assert all(takers[0] == scheme for scheme, takers in CODE_TAKERS.items())
    assert {each for takers in CODE_TAKERS.values() for each in takers} == charging | {"wallet"}


def test_no_code_can_be_of_two_owners() -> None:
    for one in CODE_RANGES:
        for other in CODE_RANGES:
            lengths = range(one.digits_min, one.digits_max + 1)
            overlap = set(lengths) & set(range(other.digits_min, other.digits_max + 1))
            assert one is other or not (overlap and one.prefixes & other.prefixes)
