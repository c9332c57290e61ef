"""WeChat Pay's keys: a change of certificates in mid-flight, public keys, and SM2, SM3, SM4."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from hashlib import new as new_hash
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import SM4
from cryptography.hazmat.primitives.ciphers.modes import GCM

from tests.rails.peers import WechatPeer, private_pem, rsa_key
from tests.rails.wechat_shop import WechatShop, number
from tests.rails.wire_server import WireServer
from tongbao.infra import sm2
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.shares import Receiver
from tongbao.rails.channels.capabilities.transfers import TransferOrder
from tongbao.rails.channels.contract.callbacks import (
    Callback,
    CallbackForged,
    CallbackKeyUnknown,
    CallbackUnreadable,
)
from tongbao.rails.channels.contract.orders import PayMode
from tongbao.rails.channels.contract.outcomes import NotSent, OpenApp, Pending, Succeeded, Unknown
from tongbao.rails.channels.wechat_pay import crypto
from tongbao_sandbox import wechat_sm
from tongbao_sandbox.launch import RunningSandbox

VECTORS = Path(__file__).parents[1] / "vectors"
SHOP_B = Receiver("MERCHANT_ID", "86693852", name="示例商贸有限公司", relation="STORE")

needs_sm2 = pytest.mark.skipif(sm2.provider() is None, reason="no library here knows SM2")


@pytest.fixture
async def shop(
    sandbox: RunningSandbox, http: HttpClient, far_end: WireServer
) -> AsyncIterator[WechatShop]:
    yield WechatShop(sandbox, http, far_end)
    settings = {"rotation": "", "callback_serial": "", "callback_scheme": SCHEMES["RSA"]}
    for name, value in settings.items():
        await asyncio.to_thread(
            lambda name=name, value=value: sandbox.post("settings", **{f"wechat.{name}": value})
        )


SCHEMES = {"RSA": "WECHATPAY2-SHA256-RSA2048", "SM2": "WECHATPAY2-SM2-WITH-SM3"}


async def set_to(shop: WechatShop, **settings: str) -> None:
    await shop.control("settings", **{f"wechat.{name}": value for name, value in settings.items()})


def fetches(shop: WechatShop) -> int:
    return sum(
        request["target"].endswith("/v3/certificates")
        for request in shop.sandbox.get("requests", last=500)
    )


# --- a change of certificates


async def test_certificates_change_in_mid_flight_and_nothing_is_lost(shop: WechatShop) -> None:
    order = await shop.paid()
    await shop.settle()
    await set_to(shop, rotation="announced")  # both are listed, the old one signs
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)
    before = fetches(shop)
    await set_to(shop, rotation="switched")  # the new one signs: fetched and believed
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)
    assert fetches(shop) == before + 1
    later = await shop.paid()
    assert isinstance((await shop.channel.query(shop.account, later)).outcome, Succeeded)
    await set_to(shop, rotation="retired")
    assert isinstance((await shop.channel.query(shop.account, later)).outcome, Succeeded)
    assert fetches(shop) == before + 1, "what is held is not fetched again"
    old, new = await shop.callbacks()
    assert isinstance(old, Callback), "signed before the change"
    assert isinstance(new, Callback)
    assert (old.number, new.number) == (order.number, later.number)


async def test_a_callback_under_a_new_certificate_waits_for_the_key(shop: WechatShop) -> None:
    order = shop.order(PayMode.QR)
    await shop.offer(order)
    await set_to(shop, rotation="switched")
    await shop.scan(order)
    await shop.settle()
    heard = shop.wire.heard[-1]
    with pytest.raises(CallbackKeyUnknown):
        shop.channel.read_callback(shop.account, heard.headers, heard.body, real_now())
    await shop.channel.refresh_keys(shop.account)
    read = shop.channel.read_callback(shop.account, heard.headers, heard.body, real_now())
    assert read.number == order.number


async def test_an_account_without_any_certificate_begins_by_fetching(shop: WechatShop) -> None:
    shop.account = shop.account_with(platform_keys={})
    assert isinstance(
        (await shop.channel.pay(shop.account, shop.order(PayMode.QR))).outcome, Pending
    )


async def test_fields_are_encrypted_for_the_certificate_that_came_last(shop: WechatShop) -> None:
    await set_to(shop, rotation="announced")
    await shop.channel.refresh_keys(shop.account)
    sealed, serial = await shop.channel.gateway.encrypt(shop.account, "张三")
    assert serial != shop.keys["platform_serial"]
    added = await shop.channel.add_receiver(shop.account, SHOP_B)
    assert isinstance(added.outcome, Succeeded), "the simulated platform could read it"
    assert base64.b64decode(sealed)


async def test_fields_wait_for_a_certificate(shop: WechatShop) -> None:
    shop.account = shop.account_with(platform_keys={})
    added = await shop.channel.add_receiver(shop.account, SHOP_B)
    assert isinstance(added.outcome, Succeeded)
    lost = shop.account_with(
        platform_keys={},
        merchant_private_key_pem=private_pem(rsa_key("somebody")),
        merchant_serial="00",
    )
    refused = await shop.channel.add_receiver(lost, SHOP_B)
    assert isinstance(refused.outcome, NotSent)
    assert refused.exchange.status is None


# --- public keys


async def test_an_account_moves_from_certificates_to_a_public_key(shop: WechatShop) -> None:
    key_id = shop.keys["public_key_id"]
    both = {
        shop.keys["platform_serial"]: shop.keys["platform_certificate_pem"],
        key_id: shop.keys["public_key_pem"],
    }
    shop.account = shop.account_with(platform_keys=both)  # still asks under certificates
    order = await shop.paid()
    await shop.settle()
    await set_to(shop, callback_serial=key_id)  # callbacks move first
    later = await shop.paid()
    await shop.settle()
    shop.account = shop.account_with(platform_keys=both, public_key_id=key_id)  # then our calls
    assert isinstance((await shop.channel.query(shop.account, order)).outcome, Succeeded)
    added = await shop.channel.add_receiver(shop.account, SHOP_B)
    assert isinstance(added.outcome, Succeeded), "names under the public key"
    seen = await shop.callbacks()
    assert [one.number for one in seen if isinstance(one, Callback)] == [
        order.number,
        later.number,
    ]
    forgotten = shop.account_with(
        platform_keys={key_id: shop.keys["public_key_pem"]}, public_key_id=key_id
    )
    heard = shop.wire.heard[0]
    with pytest.raises(CallbackKeyUnknown):
        shop.channel.read_callback(forgotten, heard.headers, heard.body, real_now())


# --- the Chinese algorithms


def sm_shop(shop: WechatShop, *, by_certificate: bool = False) -> WechatShop:
    """Speak SM2 from now on, with WeChat Pay's public key or with certificates still to fetch."""
    key_id = shop.keys["sm2_platform_key_id"]
    known = {key_id: shop.keys["sm2_platform_public_key_pem"]}
    shop.account = shop.account_with(
        scheme="SM2",
        merchant_serial=shop.keys["sm2_merchant_serial"],
        merchant_private_key_pem=shop.keys["sm2_merchant_private_key_pem"],
        platform_keys={} if by_certificate else known,
        public_key_id="" if by_certificate else key_id,
    )
    return shop


async def tell_in_sm2(shop: WechatShop, *, by_certificate: bool = False) -> None:
    serial = "" if by_certificate else shop.keys["sm2_platform_key_id"]
    await set_to(shop, callback_scheme=SCHEMES["SM2"], callback_serial=serial)


@needs_sm2
@pytest.mark.parametrize("by_certificate", [False, True])
async def test_a_payment_in_sm2_from_order_to_refund(
    shop: WechatShop, by_certificate: bool
) -> None:
    sm_shop(shop, by_certificate=by_certificate)
    await tell_in_sm2(shop, by_certificate=by_certificate)
    order = await shop.paid()
    done = (await shop.channel.query(shop.account, order)).outcome
    assert isinstance(done, Succeeded)
    refund = shop.refund(order, 500)
    assert isinstance((await shop.channel.refund(shop.account, refund)).outcome, Pending)
    await shop.advance(2)
    assert isinstance((await shop.channel.query_refund(shop.account, refund)).outcome, Succeeded)
    paid, refunded = await shop.callbacks()
    assert isinstance(paid, Callback)
    assert isinstance(refunded, Callback)
    assert (paid.outcome, refunded.number) == (done, refund.number)
    envelope = json.loads(shop.wire.heard[0].body)["resource"]
    assert envelope["algorithm"] == "AEAD_SM4_GCM"
    assert shop.wire.heard[0].headers["wechatpay-signature-type"] == SCHEMES["SM2"]


@needs_sm2
async def test_forgeries_in_sm2_are_not_believed(shop: WechatShop) -> None:
    sm_shop(shop)
    await tell_in_sm2(shop)
    order = shop.order(PayMode.QR)
    shop.sandbox.fault("wechat", "pay", "bad_signature_paid", number=order.number)
    assert isinstance((await shop.channel.pay(shop.account, order)).outcome, Unknown)
    for fault in ("forged", "signtest"):
        paying = shop.order(PayMode.QR)
        await shop.offer(paying)
        shop.sandbox.fault("wechat", "callback", fault, number=paying.number)
        await shop.scan(paying)
    seen = await shop.callbacks()
    assert seen.count("forged") == 2
    assert sum(isinstance(one, Callback) for one in seen) == 3


@needs_sm2
async def test_one_scheme_does_not_pass_for_the_other(shop: WechatShop) -> None:
    rsa = shop.account
    order = await shop.paid()
    await shop.settle()
    heard = shop.wire.heard[0]
    sm_shop(shop)
    with pytest.raises(CallbackForged):
        shop.channel.read_callback(shop.account, heard.headers, heard.body, real_now())
    mixed = shop.account_with(scheme="SM2", merchant_serial="x")  # RSA keys under the SM2 scheme
    assert (
        crypto.check_signature(
            {**heard.headers, "wechatpay-signature-type": SCHEMES["SM2"]},
            heard.body,
            shop.channel.gateway.keys(mixed),
            real_now(),
            "SM2",
        )
        is crypto.Verdict.BAD
    )
    assert isinstance((await shop.channel.query(rsa, order)).outcome, Succeeded)


@needs_sm2
async def test_a_page_is_opened_with_an_sm2_signature(shop: WechatShop) -> None:
    sm_shop(shop)
    action = await shop.offer(shop.order(PayMode.IN_APP))
    assert isinstance(action, OpenApp)
    handed = action.parameters
    lines = "".join(f"{handed[name]}\n" for name in ("appId", "timeStamp", "nonceStr", "package"))
    private = shop.keys["sm2_merchant_private_key_pem"]
    provider = sm2.provider()
    assert provider is not None
    public = provider.public_key(crypto.der_of(private))
    assert crypto.verify(public, lines.encode(), handed["paySign"])
    assert handed["signType"] == "SM2"
    opened = await shop.control("wechat/open", parameters=dict(handed), action="pay")
    assert opened["trade_state"] == "SUCCESS"


@needs_sm2
@pytest.mark.parametrize("by_certificate", [False, True])
async def test_names_are_sealed_under_sm2(shop: WechatShop, by_certificate: bool) -> None:
    sm_shop(shop, by_certificate=by_certificate)
    order = TransferOrder(
        number(), "oUpF8", "openid", "张三", Money(100, "CNY"), "x", "1000", [("活动名称", "x")]
    )
    answer = await shop.channel.transfer(shop.account, order)
    assert isinstance(answer.outcome, Pending), answer
    seen = shop.sandbox.get("requests", last=3)[-1]
    sealed = json.loads(seen["request"])["user_name"]
    private = shop.sandbox_kept("sm2_platform_private_key_pem")
    assert wechat_sm.opens(private, sealed).decode() == "张三"
    assert "张三" not in answer.exchange.request
    assert sealed not in answer.exchange.request


@needs_sm2
async def test_an_sm2_account_believes_no_rsa_certificate(shop: WechatShop) -> None:
    """It fetches its own kind; that of the other scheme neither verifies nor seals."""
    sm_shop(shop, by_certificate=True)
    await shop.channel.refresh_keys(shop.account)
    keys = shop.channel.gateway.keys(shop.account)
    assert list(keys) == [shop.keys["sm2_platform_serial"]]
    held = crypto.platform_key(keys[shop.keys["sm2_platform_serial"]])
    public = crypto.platform_key(shop.keys["sm2_platform_public_key_pem"])
    assert held.key == public.key
    assert held.is_valid(real_now())
    shop.account = shop.account_with(
        scheme="SM2",
        merchant_serial=shop.keys["sm2_merchant_serial"],
        merchant_private_key_pem=shop.keys["sm2_merchant_private_key_pem"],
        platform_keys={shop.keys["platform_serial"]: shop.keys["platform_certificate_pem"]},
    )
    _, serial = await shop.channel.gateway.encrypt(shop.account, "张三")
    assert serial == shop.keys["sm2_platform_serial"]


@needs_sm2
async def test_a_machine_without_sm2_asks_for_no_certificate_in_it(
    shop: WechatShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    sm_shop(shop, by_certificate=True)
    monkeypatch.setattr("ctypes.util.find_library", lambda _: None)
    sm2.provider.cache_clear()
    order = TransferOrder(number(), "openid", "openid", "张三", Money(100, "CNY"), "x")
    try:
        answer = await shop.channel.transfer(shop.account, order)
    finally:
        monkeypatch.undo()
        sm2.provider.cache_clear()
    assert isinstance(answer.outcome, NotSent)


@needs_sm2
@pytest.mark.parametrize("text", ["A", "张三", "欧阳" * 30, "x" * 300])
def test_the_sandbox_opens_what_we_sealed(text: str) -> None:
    private, public = wechat_sm.new_pair()
    sealed = crypto.encrypt_field(public, text)
    assert wechat_sm.opens(private, sealed).decode() == text
    assert crypto.encrypt_field(public, text) != sealed
    assert wechat_sm.opens(wechat_sm.new_pair()[0], sealed) == b""
    raw = bytearray(base64.b64decode(sealed))
    raw[-1] ^= 1
    assert wechat_sm.opens(private, base64.b64encode(raw).decode()) == b""


@needs_sm2
@pytest.mark.parametrize("text", ["", "x" * 5000])
def test_what_is_no_name_is_not_sealed(text: str) -> None:
    with pytest.raises(crypto.NotEncryptable):
        crypto.encrypt_field(wechat_sm.new_pair()[1], text)


@needs_sm2
async def test_a_machine_without_sm2_sends_nothing_in_it(
    shop: WechatShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctypes.util.find_library", lambda _: None)
    sm2.provider.cache_clear()
    try:
        answer = await sm_shop(shop).channel.pay(shop.account, shop.order(PayMode.QR))
    finally:
        monkeypatch.undo()
        sm2.provider.cache_clear()
    assert isinstance(answer.outcome, NotSent)
    assert answer.exchange.status is None


@needs_sm2
def test_the_two_implementations_of_sm2_agree() -> None:
    private, public = wechat_sm.new_pair()
    held = crypto.platform_key(public).key
    for message in (b"", b"tongbao", "通宝".encode() * 500):
        theirs, ours = wechat_sm.sign(private, message), crypto.sign("SM2", private, message)
        assert crypto.verify(held, message, theirs)
        assert wechat_sm.verifies(public, message, ours)
        assert not crypto.verify(held, message + b"x", theirs)
        assert not wechat_sm.verifies(public, message + b"x", ours)


@needs_sm2
@pytest.mark.parametrize("change", ["", "*", "AAAA", "MAYCAQECAQE=", "trailing"])
def test_a_malformed_sm2_signature_does_not_verify(change: str) -> None:
    private, public = wechat_sm.new_pair()
    good = wechat_sm.sign(private, b"x")
    raw = base64.b64decode(good) + b"\0"
    signature = base64.b64encode(raw).decode() if change == "trailing" else change
    held = crypto.platform_key(public).key
    assert crypto.verify(held, b"x", good)
    assert not crypto.verify(held, b"x", signature)


@needs_sm2
def test_the_published_signature_of_sm2_verifies() -> None:
    """GB/T 32918.5 annex A.2: key, message, r and s."""
    given: dict[str, Any] = json.loads((VECTORS / "sm" / "sm2_signature.json").read_text())
    case = given.get("sm2_sign_gbt32918_5_A2", given)
    point = b"\x04" + bytes.fromhex(case["px"]) + bytes.fromhex(case["py"])
    der = wechat_sm.encode_dss_signature(int(case["r"], 16), int(case["s"], 16))
    signature = base64.b64encode(der).decode()
    assert crypto.verify(point, case["msg_ascii"].encode(), signature)


def test_sm4_opens_what_was_sealed_under_half_the_digest_of_the_key() -> None:
    """RFC 8998 appendix A.1 for the cipher; the key is the first half of SM3(APIv3 key)."""
    given = json.loads((VECTORS / "sm" / "sm4_gcm.json").read_text())
    cipher = Cipher(SM4(bytes.fromhex(given["key"])), GCM(bytes.fromhex(given["iv"]))).encryptor()
    cipher.authenticate_additional_data(bytes.fromhex(given["aad"]))
    sealed = cipher.update(bytes.fromhex(given["pt"])) + cipher.finalize()
    assert (sealed.hex(), cipher.tag.hex()) == (given["ct"], given["tag"])
    key = "0123456789abcdef0123456789abcdef"
    raw = wechat_sm.seal(key.encode(), b"uluk4a9R25RW", b"plaintext", b"associatedData")
    place = "uluk4a9R25RW", "associatedData", base64.b64encode(raw).decode()
    assert crypto.open_envelope(key, *place, "AEAD_SM4_GCM") == b"plaintext"
    assert new_hash("sm3", b"abc").hexdigest().startswith("66c7f0f462eeedd9")
    broken = [
        (key[::-1], *place),
        (key, "uluk4a9R25RX", *place[1:]),
        (key, place[0], "other", place[2]),
        (key, *place[:2], base64.b64encode(raw[:-1]).decode()),
        (key, *place[:2], "AAAA"),
        (key, "short", *place[1:]),
    ]
    for parts in broken:
        with pytest.raises(crypto.EnvelopeBroken):
            crypto.open_envelope(*parts, "AEAD_SM4_GCM")


async def test_an_envelope_of_the_other_cipher_is_unreadable(shop: WechatShop) -> None:
    peer = WechatPeer()
    body = json.dumps(
        {
            "id": "1",
            "event_type": "TRANSACTION.SUCCESS",
            "resource": {**peer.sealed(b"{}", "transaction"), "algorithm": "AEAD_SM4_GCM"},
        }
    ).encode()
    account = peer.account("http://127.0.0.1:9")
    with pytest.raises(CallbackUnreadable):
        shop.channel.read_callback(account, peer.signature(body), body, real_now())
