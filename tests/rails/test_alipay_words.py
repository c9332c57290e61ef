"""What is asked of Alipay for its products, word for word, and signed in both protocols.

The words are those of Alipay's documents; the texts that are signed are put together here anew.
"""

from __future__ import annotations

import json
from base64 import b64decode
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15

from tests.rails.peers import ORDER_NUMBER, REFUND_NUMBER, AlipayPeer, rsa_key
from tests.rails.test_alipay_answers import CALLS
from tests.rails.wire_server import Heard, WireServer, http_reply
from tongbao.infra.http import HttpClient

PEER = AlipayPeer()
TOKEN = "202301BBd5a"
SHOP = "2088101126708402"
SELLER = "2088721003899159"
TRADE = "2030010122001"

Words = tuple[str, dict[str, Any]]


def share(amount: str, *, back: bool = False) -> dict[str, str]:
    ends = (SHOP, SELLER) if back else (SELLER, SHOP)
    named = {"royalty_type": "transfer", "trans_out": ends[0], "trans_in": ends[1]}
    return {**named, "trans_out_type": "userId", "trans_in_type": "userId", "amount": amount}


ASKED: dict[str, Words] = {
    "bind": (
        "alipay.trade.royalty.relation.bind",
        {"receiver_list": [{"type": "userId", "account": SHOP}]},
    ),
    "unbind": (
        "alipay.trade.royalty.relation.unbind",
        {"receiver_list": [{"type": "userId", "account": SHOP}]},
    ),
    "split": (
        "alipay.trade.order.settle",
        {
            "out_request_no": "split1",
            "trade_no": TRADE,
            "royalty_mode": "async",
            "royalty_parameters": [share("3.00")],
            "extend_params": {"royalty_finish": "false"},
        },
    ),
    "unfreeze": (
        "alipay.trade.order.settle",
        {
            "out_request_no": "split1",
            "trade_no": TRADE,
            "royalty_mode": "async",
            "royalty_parameters": [],
            "extend_params": {"royalty_finish": "true"},
        },
    ),
    "query a split": (
        "alipay.trade.order.settle.query",
        {"out_request_no": "split1", "trade_no": TRADE},
    ),
    "refund a share": (
        "alipay.trade.refund",
        {
            "out_trade_no": ORDER_NUMBER,
            "out_request_no": REFUND_NUMBER,
            "refund_amount": "5.00",
            "refund_royalty_parameters": [share("1.00", back=True)],
        },
    ),
    "pay out": (
        "alipay.fund.trans.uni.transfer",
        {
            "out_biz_no": "payout1",
            "trans_amount": "8.80",
            "product_code": "TRANS_ACCOUNT_NO_PWD",
            "biz_scene": "DIRECT_TRANSFER",
            "order_title": "佣金",
            "payee_info": {"identity": "2088722000000201", "identity_type": "ALIPAY_USER_ID"},
        },
    ),
    "query a payout": (
        "alipay.fund.trans.common.query",
        {
            "out_biz_no": "payout1",
            "product_code": "TRANS_ACCOUNT_NO_PWD",
            "biz_scene": "DIRECT_TRANSFER",
        },
    ),
    "query an agreement": (
        "alipay.user.agreement.query",
        {
            "external_agreement_no": "agreed1",
            "personal_product_code": "GENERAL_WITHHOLDING_P",
            "sign_scene": "INDUSTRY",
        },
    ),
    "end an agreement": (
        "alipay.user.agreement.unsign",
        {
            "external_agreement_no": "agreed1",
            "personal_product_code": "GENERAL_WITHHOLDING_P",
            "sign_scene": "INDUSTRY",
            "agreement_no": "2030",
            "extend_params": {"UNSIGN_REASON": "x"},
        },
    ),
}
OURS = {"memo", "desc", "refund_reason"}
"""Texts for people, which are ours to choose."""


def without_texts(said: Any) -> Any:
    if isinstance(said, dict):
        return {name: without_texts(each) for name, each in said.items() if name not in OURS}
    return [without_texts(each) for each in said] if isinstance(said, list) else said


def words_of(name: str, content: dict[str, Any]) -> dict[str, Any]:
    """Return what was asked; a relation's number is made for the call, so only that it is there."""
    found: dict[str, Any] = without_texts(content)
    if name in {"bind", "unbind"}:
        assert found.pop("out_request_no")
    return found


async def heard_for(name: str, far_end: WireServer, http: HttpClient, **keys: Any) -> Heard:
    far_end.react = lambda _: http_reply(503)
    account = PEER.account(f"{far_end.url}/alipay", app_auth_token=TOKEN, **keys)
    await CALLS[name](PEER.channel(http), account)
    return far_end.heard[0]


def check(signature: str, text: str) -> None:
    key = rsa_key("merchant").public_key()
    key.verify(b64decode(signature), text.encode(), PKCS1v15(), hashes.SHA256())


@pytest.mark.parametrize("name", ASKED)
async def test_a_form_says_these_words_and_signs_them(
    name: str, far_end: WireServer, http: HttpClient
) -> None:
    heard = await heard_for(name, far_end, http)
    parts = urlsplit(heard.target)
    assert (heard.method, parts.path) == ("POST", "/alipay/gateway.do")
    fields = dict(parse_qsl(parts.query)) | dict(parse_qsl(heard.body.decode()))
    method, content = ASKED[name]
    assert (fields["method"], fields["app_auth_token"]) == (method, TOKEN)
    assert words_of(name, json.loads(fields["biz_content"])) == content
    signature = fields.pop("sign")
    check(signature, "&".join(f"{each}={fields[each]}" for each in sorted(fields)))


@pytest.mark.parametrize("name", ASKED)
async def test_rest_says_the_same_words_and_signs_them_in_the_header(
    name: str, far_end: WireServer, http: HttpClient
) -> None:
    heard = await heard_for(name, far_end, http, protocol="v3")
    method, content = ASKED[name]
    parts = urlsplit(heard.target)
    assert parts.path == "/alipay/v3/" + method.replace(".", "/")
    said = dict(parse_qsl(parts.query)) if heard.method == "GET" else json.loads(heard.body)
    said.pop("notify_url", None)
    assert words_of(name, said) == content
    scheme, _, rest = heard.headers["authorization"].partition(" ")
    assert scheme == "ALIPAY-SHA256withRSA"
    claimed, _, signature = rest.rpartition(",sign=")
    claims = dict(each.split("=", 1) for each in claimed.split(","))
    assert claims.keys() == {"app_id", "nonce", "timestamp"}
    assert len(claims["timestamp"]) == 13
    assert heard.headers["alipay-app-auth-token"] == TOKEN
    target = heard.target.removeprefix("/alipay")
    lines = (claimed, heard.method, target, heard.body.decode(), TOKEN)
    check(signature, "".join(f"{line}\n" for line in lines))
