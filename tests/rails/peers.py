"""The other side of each channel, as a test plays it: keys of its own and correct signatures.

The signing here is written against the primitives, not with the adapters' own modules. That the
two agree with the outside world is what the vectors and the sandbox prove.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Final, Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.x509.oid import NameOID
from msgspec import Struct

from tests.rails.wire_server import Heard, http_reply
from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.rails.channels.alipay.client import Alipay
from tongbao.rails.channels.alipay.secrets import AlipaySecrets
from tongbao.rails.channels.contract.channel import Channel
from tongbao.rails.channels.contract.orders import ChannelAccount, PayMode, PayOrder, RefundOrder
from tongbao.rails.channels.exchange import TimeLimits
from tongbao.rails.channels.unionpay.client import UnionPay
from tongbao.rails.channels.unionpay.secrets import UnionPaySecrets
from tongbao.rails.channels.unionpay_qra.client import Qra
from tongbao.rails.channels.unionpay_qra.secrets import QraSecrets
from tongbao.rails.channels.wechat_pay.client import WechatPay
from tongbao.rails.channels.wechat_pay.secrets import WechatPaySecrets

RECORDED = Path(__file__).parent / "recorded"
ORDER_NUMBER = "01k9order0000000000000000a"
REFUND_NUMBER = "01k9refund000000000000000a"
LIMITS = TimeLimits(ask_s=5.0, bill_s=5.0)

Answer = dict[str, Any]
Spoil = Callable[[bytes], bytes]


@cache
def rsa_key(name: str) -> rsa.RSAPrivateKey:
    del name  # one key per name and run
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


def private_pem(key: rsa.RSAPrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()


def public_pem(key: rsa.RSAPrivateKey) -> str:
    return (
        key.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def certificate_pem(key: rsa.RSAPrivateKey, *, serial: int, days: tuple[int, int]) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a platform certificate")])
    now = datetime.now(UTC)  # noqa: TID251
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(serial)
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .sign(key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def sha256_rsa(key: rsa.RSAPrivateKey, message: bytes) -> str:
    return base64.b64encode(key.sign(message, padding.PKCS1v15(), hashes.SHA256())).decode()


def order(channel: str, mode: PayMode, **changes: Any) -> PayOrder:
    fields: dict[str, Any] = {
        "number": ORDER_NUMBER,
        "mode": mode,
        "money": Money(1999, "CNY"),
        "subject": "一杯咖啡 & 1 muffin",
        "expires_at": datetime(2030, 1, 1, 12, 0, tzinfo=UTC),
    }
    if mode is PayMode.PAYMENT_CODE and "auth_code" not in changes:
        fields["auth_code"] = PEERS[channel].auth_code
    return PayOrder(**{**fields, **changes})


def refund_order(**changes: Any) -> RefundOrder:
    fields: dict[str, Any] = {
        "number": REFUND_NUMBER,
        "order_number": ORDER_NUMBER,
        "money": Money(500, "CNY"),
        "order_money": Money(1999, "CNY"),
        "reason": "缺货",
        "order_ref": "512209110416475616528",
    }
    return RefundOrder(**{**fields, **changes})


NAMED: Final[Mapping[str, tuple[int, str, str]]] = {
    "wechat_pay": (1, "1230000109", "wxd678efh567hg6787"),
    "alipay": (2, "2088721003899159", "9021000122682882"),
    "unionpay": (3, "777290058167151", "000201"),
    "unionpay_qra": (4, "QRA29045311KKR1", "qra"),
}
"""Who we are at each peer: the account's id, our merchant number, our app."""


def account_at(gateway: str, channel: str, keys: Struct) -> ChannelAccount:
    account_id, merchant_number, app_id = NAMED[channel]
    return ChannelAccount(
        id=UUID(int=account_id),
        channel=channel,
        mode=Mode.SANDBOX,
        gateway=gateway,
        merchant_number=merchant_number,
        app_id=app_id,
        notify_url=f"https://pay.example/callbacks/{channel}/t",
        fee_ppm=6000,
        secrets=keys,
    )


class Peer(Protocol):
    """What the contract suite needs to know of a channel."""

    name: str
    auth_code: str  # a payment code that it charges; nothing where it charges none
    documented: str  # the codes in its documents, with spaces between them
    news: ClassVar[Answer]  # that ORDER_NUMBER was paid; nothing where it sends no notifications
    strange: ClassVar[Answer]  # news of a product that nobody here uses
    lies: ClassVar[Mapping[str, Sequence[Any]]]  # field of a paid order's answer → false values
    bill_answer: ClassVar[Answer]  # how a request for a bill is answered when all is well

    def channel(self, http: HttpClient, limits: TimeLimits = LIMITS) -> Channel:
        """The adapter under test."""

    def account(self, gateway: str) -> ChannelAccount:
        """Our account at this peer."""

    def answer(self, recorded: Answer, heard: Heard, *, key: str = "platform") -> bytes:
        """A recorded answer as bytes on the wire, signed with a key of this name."""

    def unsigned(self, recorded: Answer, heard: Heard) -> bytes:
        """The same without its signature."""

    def number_in(self, heard: Heard) -> str:
        """The request without what differs at each repeat: time, nonce, signature."""

    def callback(self, content: Answer, *, key: str = "platform") -> tuple[dict[str, str], bytes]:
        """A notification as it reaches us: headers in lower case, and raw bytes."""

    def tampered(self, body: bytes) -> bytes:
        """The notification with another meaning under the same signature."""


class WechatPeer:
    name = "wechat_pay"
    auth_code = "134567890123456789"
    documented = """
        PARAM_ERROR INVALID_REQUEST APPID_MCHID_NOT_MATCH ORDER_CLOSED MCH_NOT_EXISTS
        NO_STATEMENT_EXIST STATEMENT_CREATING SIGN_ERROR NO_AUTH NOT_ENOUGH OUT_TRADE_NO_USED
        RULE_LIMIT TRADE_ERROR USER_ACCOUNT_ABNORMAL ORDER_NOT_EXIST RESOURCE_NOT_EXISTS
        FREQUENCY_LIMITED RATELIMIT_EXCEEDED SYSTEM_ERROR SERVICE_UNAVAILABLE TRADE_OVERDUE
        REFUND_FEE_MISMATCH USERPAYING ACCOUNT_ABNORMAL NO_RELATION RECEIVER_HIGH_RISK
        RECEIVER_REAL_NAME_NOT_VERIFIED RECEIVER_RECEIPT_LIMIT PAYER_ACCOUNT_ABNORMAL
        BALANCE_NOT_ENOUGH TIME_OUT_CLOSED
    """
    news: ClassVar[Answer] = {
        "original_type": "transaction",
        "event_type": "TRANSACTION.SUCCESS",
        "mchid": "1230000109",
        "appid": "wxd678efh567hg6787",
        "out_trade_no": ORDER_NUMBER,
        "transaction_id": "4200001",
        "trade_state": "SUCCESS",
        "success_time": "2030-01-01T20:00:00+08:00",
        "payer": {"openid": "oUpF8"},
        "amount": {"total": 1999, "payer_total": 1999, "currency": "CNY"},
    }
    strange: ClassVar[Answer] = {"original_type": "payscore", "event_type": "PAYSCORE.USER_PAID"}
    lies: ClassVar[Mapping[str, Sequence[Any]]] = {
        "amount.total": [1998, 2000, 0],
        "amount.currency": ["USD"],
        "mchid": ["1900009999"],
        "appid": ["wx0000000000000000"],
        "out_trade_no": ["01k9another000000000000000"],
    }
    bill_answer: ClassVar[Answer] = {
        "json": {"hash_type": "SHA1", "hash_value": "0", "download_url": "x"}
    }
    api_v3_key = "0123456789abcdef0123456789abcdef"
    serial = "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"

    def channel(self, http: HttpClient, limits: TimeLimits = LIMITS) -> WechatPay:
        return WechatPay(http, limits=limits)

    def account(self, gateway: str, **changes: Any) -> ChannelAccount:
        keys: dict[str, Any] = {
            "api_v3_key": self.api_v3_key,
            "merchant_serial": "4F3A2B1C",
            "merchant_private_key_pem": private_pem(rsa_key("merchant")),
            "platform_keys": {self.serial: public_pem(rsa_key("platform"))},
        }
        return account_at(gateway, self.name, WechatPaySecrets(**{**keys, **changes}))

    def answer(self, recorded: Answer, heard: Heard, *, key: str = "platform") -> bytes:
        del heard
        body = _body(recorded)
        status = recorded.get("status", 200)
        headers = {"content-type": "application/json; charset=utf-8", "request-id": "08F78B"}
        if status < 300:
            headers |= self.signature(body, key=key)
        return http_reply(status, headers, body)

    def unsigned(self, recorded: Answer, heard: Heard) -> bytes:
        del heard
        return http_reply(recorded.get("status", 200), {}, _body(recorded))

    def signature(
        self, body: bytes, *, key: str = "platform", age_s: int = 0, serial: str = ""
    ) -> dict[str, str]:
        timestamp = str(int(real_now().timestamp()) - age_s)
        nonce = secrets.token_hex(16)
        message = f"{timestamp}\n{nonce}\n".encode() + body + b"\n"
        return {
            "wechatpay-timestamp": timestamp,
            "wechatpay-nonce": nonce,
            "wechatpay-signature": sha256_rsa(rsa_key(key), message),
            "wechatpay-serial": serial or self.serial,
            "wechatpay-signature-type": "WECHATPAY2-SHA256-RSA2048",
        }

    def number_in(self, heard: Heard) -> str:
        return f"{heard.method} {heard.target} {heard.body.decode()}"

    def callback(self, content: Answer, *, key: str = "platform") -> tuple[dict[str, str], bytes]:
        content = dict(content)
        kind = content.pop("original_type")
        body = json.dumps(
            {
                "id": "e2f4a5c6-0001",
                "create_time": "2030-01-01T20:00:00+08:00",
                "resource_type": "encrypt-resource",
                "event_type": content.pop("event_type"),
                "summary": "支付成功",
                "resource": self.sealed(json.dumps(content).encode(), kind),
            },
            ensure_ascii=False,
        ).encode()
        return {"content-type": "application/json", **self.signature(body, key=key)}, body

    def sealed(self, plaintext: bytes, kind: str, key: str | None = None) -> dict[str, str]:
        nonce = secrets.token_hex(6)
        ciphertext = AESGCM((key or self.api_v3_key).encode()).encrypt(
            nonce.encode(), plaintext, kind.encode()
        )
        return {
            "algorithm": "AEAD_AES_256_GCM",
            "original_type": kind,
            "ciphertext": base64.b64encode(ciphertext).decode(),
            "associated_data": kind,
            "nonce": nonce,
        }

    def tampered(self, body: bytes) -> bytes:
        return body.replace(b"e2f4a5c6-0001", b"e2f4a5c6-0002")


class AlipayPeer:
    name = "alipay"
    auth_code = "284567890123456789"
    documented = """
        10003 20000 20001 40001 40002 40006 aop.unknow-error ACQ.SYSTEM_ERROR
        isv.invalid-signature ACQ.TRADE_NOT_EXIST ACQ.TRADE_HAS_SUCCESS ACQ.TRADE_HAS_CLOSE
        ACQ.TRADE_STATUS_ERROR ACQ.PAYMENT_AUTH_CODE_INVALID ACQ.BUYER_BALANCE_NOT_ENOUGH
        ACQ.SELLER_BALANCE_NOT_ENOUGH ACQ.REFUND_AMT_NOT_EQUAL_TOTAL
    """
    news: ClassVar[Answer] = {
        "out_trade_no": ORDER_NUMBER,
        "trade_no": "2030010122001",
        "trade_status": "TRADE_SUCCESS",
        "total_amount": "19.99",
        "subject": "一杯咖啡 & 1 muffin",
        "gmt_payment": "2030-01-01 20:00:00",
        "buyer_id": "2088722003899169",
    }
    strange: ClassVar[Answer] = {"notify_type": "open_app_auth_notify", "out_trade_no": "x"}
    lies: ClassVar[Mapping[str, Sequence[Any]]] = {
        "total_amount": ["19.98", "20", "1999"],
        "out_trade_no": ["01k9another000000000000000"],
    }
    bill_answer: ClassVar[Answer] = {
        "json": {"code": "10000", "msg": "Success", "bill_download_url": "x"}
    }

    def channel(self, http: HttpClient, limits: TimeLimits = LIMITS) -> Alipay:
        return Alipay(http, limits=limits)

    def account(self, gateway: str, **changes: Any) -> ChannelAccount:
        keys: dict[str, Any] = {
            "app_private_key_pem": private_pem(rsa_key("merchant")),
            "alipay_public_key_pem": public_pem(rsa_key("platform")),
        }
        return account_at(gateway, self.name, AlipaySecrets(**{**keys, **changes}))

    def answer(self, recorded: Answer, heard: Heard, *, key: str = "platform") -> bytes:
        if "status" in recorded:
            return http_reply(recorded["status"], {}, _body(recorded))
        node = _json(recorded["json"])
        return self._reply(recorded, heard, node, sha256_rsa(rsa_key(key), node.encode()))

    def unsigned(self, recorded: Answer, heard: Heard) -> bytes:
        if "status" in recorded:
            return self.answer(recorded, heard)
        return self._reply(recorded, heard, _json(recorded["json"]), None)

    def _reply(self, recorded: Answer, heard: Heard, node: str, signature: str | None) -> bytes:
        query = dict(parse_qsl(urlsplit(heard.target).query))
        name = recorded.get("node") or query["method"].replace(".", "_") + "_response"
        tail = "" if signature is None else f',"sign":"{signature}"'
        text = f'{{"{name}":{node}{tail}}}'
        return http_reply(200, {"content-type": "text/html;charset=utf-8"}, text.encode())

    def number_in(self, heard: Heard) -> str:
        query = dict(parse_qsl(urlsplit(heard.target).query))
        return f"{query['method']} {heard.body.decode()}"

    def callback(self, content: Answer, *, key: str = "platform") -> tuple[dict[str, str], bytes]:
        fields = {
            "app_id": "9021000122682882",
            "auth_app_id": "9021000122682882",
            "charset": "utf-8",
            "notify_id": "2030010100222000000001",
            "notify_time": "2030-01-01 20:00:01",
            "notify_type": "trade_status_sync",
            "seller_id": "2088721003899159",
            "version": "1.0",
            **content,
        }
        text = "&".join(f"{name}={fields[name]}" for name in sorted(fields))
        signed = {**fields, "sign_type": "RSA2", "sign": sha256_rsa(rsa_key(key), text.encode())}
        headers = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
        return headers, urlencode(signed, quote_via=quote).encode()

    def tampered(self, body: bytes) -> bytes:
        return body.replace(
            b"notify_id=2030010100222000000001", b"notify_id=2030010100222000000002"
        )


class UnionPayPeer:
    name = "unionpay"
    auth_code = "6234567890123456789"
    documented = "01 03 04 05 12 34 60 A6"
    news: ClassVar[Answer] = {
        "orderId": ORDER_NUMBER,
        "txnType": "01",
        "txnSubType": "07",
        "txnTime": "20300101195930",
        "txnAmt": "1999",
        "currencyCode": "156",
        "queryId": "512209110416475616528",
        "traceTime": "0101200000",
        "settleDate": "0101",
    }
    strange: ClassVar[Answer] = {"txnType": "79", "orderId": "x", "queryId": "5122"}
    lies: ClassVar[Mapping[str, Sequence[Any]]] = {
        "txnAmt": ["1998", "2000"],
        "currencyCode": ["840"],
        "merId": ["777290058110097"],
        "orderId": ["01k9another000000000000000"],
    }
    bill_answer: ClassVar[Answer] = {
        "fields": {"respCode": "00", "fileName": "x.zip", "fileContent": "x"}
    }
    unionpay_name = "041@8310000000083040@中国银联股份有限公司@00016495"

    def channel(self, http: HttpClient, limits: TimeLimits = LIMITS) -> UnionPay:
        return UnionPay(http, limits=limits)

    def account(self, gateway: str, **changes: Any) -> ChannelAccount:
        keys: dict[str, Any] = {
            "merchant_private_key_pem": private_pem(rsa_key("merchant")),
            "merchant_certificate_pem": self.issued("merchant", "041@7310000@一家商店@00000001"),
            "root_certificate_pem": issued_pem("root", "root", by="root"),
            "middle_certificate_pem": issued_pem("middle", "middle", by="root"),
        }
        return account_at(gateway, self.name, UnionPaySecrets(**{**keys, **changes}))

    def issued(self, key: str, name: str, **changes: Any) -> str:
        """A certificate for a key, as the authority below UnionPay's root gives them out."""
        return issued_pem(key, name, by="middle", **changes)

    def answer(self, recorded: Answer, heard: Heard, *, key: str = "platform") -> bytes:
        if "status" in recorded:
            return http_reply(recorded["status"], {}, _body(recorded))
        return self._reply(self.signed(self._echoed(recorded, heard), key=key))

    def unsigned(self, recorded: Answer, heard: Heard) -> bytes:
        if "status" in recorded:
            return self.answer(recorded, heard)
        return self._reply(self._echoed(recorded, heard))

    def _echoed(self, recorded: Answer, heard: Heard) -> dict[str, str]:
        asked = dict(parse_qsl(heard.body.decode()))
        echoed = ("version", "encoding", "bizType", "accessType", "merId", "txnTime", "txnType")
        return {**{name: asked[name] for name in echoed}, **recorded["fields"]}

    def signed(self, fields: dict[str, str], *, key: str = "platform") -> dict[str, str]:
        authority = {"platform": "middle"}.get(key, "nobody")
        certificate = issued_pem(key, self.unionpay_name, by=authority)
        whole = {**fields, "signMethod": "01", "signPubKeyCert": certificate}
        text = "&".join(f"{name}={whole[name]}" for name in sorted(whole) if whole[name])
        digest = hashlib.sha256(text.encode()).hexdigest()
        return {**whole, "signature": sha256_rsa(rsa_key(key), digest.encode())}

    def _reply(self, fields: dict[str, str]) -> bytes:
        text = "&".join(f"{name}={value}" for name, value in fields.items())
        return http_reply(200, {"content-type": "text/html;charset=UTF-8"}, text.encode())

    def number_in(self, heard: Heard) -> str:
        asked = dict(parse_qsl(heard.body.decode()))
        return f"{heard.target} {sorted(asked.items() - {('signature', asked['signature'])})}"

    def callback(self, content: Answer, *, key: str = "platform") -> tuple[dict[str, str], bytes]:
        fields = {
            "version": "5.1.0",
            "encoding": "UTF-8",
            "bizType": "000000",
            "accessType": "0",
            "merId": "777290058167151",
            "respCode": "00",
            "respMsg": "成功[0000000]",
            **content,
        }
        headers = {"content-type": "application/x-www-form-urlencoded;charset=UTF-8"}
        return headers, urlencode(self.signed(fields, key=key)).encode()

    def tampered(self, body: bytes) -> bytes:
        return body.replace(b"queryId=512", b"queryId=513")


class QraPeer:
    name = "unionpay_qra"
    auth_code = "6234567890123456780"
    documented = "NOAUTH"
    news: ClassVar[Answer] = {
        "out_trade_no": ORDER_NUMBER,
        "transaction_id": "95516000379952690603566602920171",
        "total_fee": "1999",
        "fee_type": "CNY",
        "time_end": "20300101200000",
    }
    strange: ClassVar[Answer] = {"out_trade_no": "x", "trade_type": "sign"}
    lies: ClassVar[Mapping[str, Sequence[Any]]] = {
        "total_fee": ["1998", "2000"],
        "fee_type": ["USD"],
        "mch_id": ["QRA00000000KKR1"],
        "out_trade_no": ["01k9another000000000000000"],
    }
    bill_answer: ClassVar[Answer] = {"fields": {"result_code": "0"}}
    key = "9d101c97133837e13dde2d32a5054abb"

    def channel(self, http: HttpClient, limits: TimeLimits = LIMITS) -> Qra:
        return Qra(http, limits=limits)

    def account(self, gateway: str) -> ChannelAccount:
        return account_at(gateway, self.name, QraSecrets(self.key))

    def answer(self, recorded: Answer, heard: Heard, *, key: str = "platform") -> bytes:
        if "status" in recorded:
            return http_reply(recorded["status"], {}, _body(recorded))
        return http_reply(200, {}, self.document(recorded["fields"], key=key))

    def unsigned(self, recorded: Answer, heard: Heard) -> bytes:
        if "status" in recorded:
            return self.answer(recorded, heard)
        return http_reply(200, {}, self.document(recorded["fields"], key=None))

    def document(self, fields: Answer, *, key: str | None = "platform") -> bytes:
        frame = {"version": "2.0", "charset": "UTF-8", "sign_type": "MD5", "status": "0"}
        whole = {**frame, "mch_id": "QRA29045311KKR1", "nonce_str": secrets.token_hex(16), **fields}
        if key is not None:
            secret = self.key if key == "platform" else "0" * 32
            text = "&".join(f"{name}={whole[name]}" for name in sorted(whole) if whole[name])
            digest = hashlib.md5(f"{text}&key={secret}".encode()).hexdigest().upper()
            whole["sign"] = digest
        inner = "".join(f"<{name}><![CDATA[{value}]]></{name}>" for name, value in whole.items())
        return f"<xml>{inner}</xml>".encode()

    def number_in(self, heard: Heard) -> str:
        return re.sub(r"<(nonce_str|sign)>[^<]*</\1>", "", heard.body.decode())

    def callback(self, content: Answer, *, key: str = "platform") -> tuple[dict[str, str], bytes]:
        fields = {"result_code": "0", "pay_result": "0", "trade_type": "pay.x.native", **content}
        return {"content-type": "text/xml"}, self.document(fields, key=key)

    def tampered(self, body: bytes) -> bytes:
        return body.replace(b"9551600037", b"9551600038")


@cache
def issued_pem(
    key: str, name: str, *, by: str, serial: int = 68759585092, days: tuple[int, int] = (-30, 30)
) -> str:
    """A certificate of one key, signed by another: an authority, or a key of its own."""
    now = datetime.now(UTC)  # noqa: TID251

    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    return (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(by))
        .public_key(rsa_key(key).public_key())
        .serial_number(serial)
        .not_valid_before(now + timedelta(days=days[0]))
        .not_valid_after(now + timedelta(days=days[1]))
        .sign(rsa_key(by), hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
        .decode()
    )


def _body(recorded: Answer) -> bytes:
    if "text" in recorded:
        return str(recorded["text"]).encode()
    return _json(recorded["json"]).encode() if "json" in recorded else b""


def _json(document: Any) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))


PEERS: dict[str, Peer] = {
    "wechat_pay": WechatPeer(),
    "alipay": AlipayPeer(),
    "unionpay": UnionPayPeer(),
    "unionpay_qra": QraPeer(),
}
