"""A merchant who speaks WeChat Pay v3 by hand, with signing code of its own."""

import itertools
import json
import secrets
import uuid
from base64 import b64decode, b64encode
from typing import Any, NamedTuple, Self

import httpx2
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP, PKCS1v15
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from tests.sandbox.inbox import Letter
from tongbao.kernel.clock import real_now
from tongbao_sandbox.launch import RunningSandbox

_count = itertools.count(1)


class Answer(NamedTuple):
    status: int
    headers: httpx2.Headers
    content: bytes
    signed: bool

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def code(self) -> str:
        return str(self.json["code"])


class WechatMerchant:
    def __init__(self, sandbox: RunningSandbox, notify_url: str) -> None:
        self.sandbox = sandbox
        self.notify_url = notify_url
        self.keys = sandbox.credentials["wechat"]
        self.mchid, self.appid = self.keys["mchid"], self.keys["appid"]
        self._key = load_pem_private_key(self.keys["merchant_private_key_pem"].encode(), None)
        certificate = x509.load_pem_x509_certificate(self.keys["platform_certificate_pem"].encode())
        self._platform = certificate.public_key()
        self._http = httpx2.Client(trust_env=False, timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._http.close()

    # The wire ---------------------------------------------------------------------------------

    def authorization(
        self,
        method: str,
        target: str,
        body: bytes,
        *,
        age_s: int = 0,
        mchid: str = "",
    ) -> str:
        timestamp, nonce = int(real_now().timestamp()) - age_s, secrets.token_hex(16)
        lines = f"{method}\n{target}\n{timestamp}\n{nonce}\n".encode() + body + b"\n"
        signature = b64encode(self._key.sign(lines, PKCS1v15(), hashes.SHA256())).decode()
        items = {
            "mchid": mchid or self.mchid,
            "nonce_str": nonce,
            "signature": signature,
            "timestamp": str(timestamp),
            "serial_no": self.keys["merchant_serial"],
        }
        listed = ",".join(f'{name}="{value}"' for name, value in items.items())
        return f"WECHATPAY2-SHA256-RSA2048 {listed}"

    def raw(
        self, method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> Answer:
        url = f"{self.sandbox.url}/wechat{target}"
        request = self._http.build_request(method, url, content=body)
        for name in ("accept", "user-agent"):
            request.headers.pop(name, None)
        request.headers.update(headers or {})
        answer = self._http.send(request)
        return Answer(
            answer.status_code,
            answer.headers,
            answer.content,
            self.verifies(answer.headers, answer.content),
        )

    def call(self, method: str, target: str, content: Any = None, **headers: str) -> Answer:
        body = b"" if content is None else json.dumps(content, ensure_ascii=False).encode()
        return self.raw(
            method,
            target,
            body,
            {
                "Accept": "application/json",
                "User-Agent": "tongbao tests",
                "Content-Type": "application/json",
                "Authorization": self.authorization(method, target, body),
                **headers,
            },
        )

    def verifies(self, headers: Any, body: bytes) -> bool:
        if "wechatpay-signature" not in headers:
            return False
        lines = f"{headers['wechatpay-timestamp']}\n{headers['wechatpay-nonce']}\n".encode()
        try:
            signature = b64decode(headers["wechatpay-signature"], validate=True)
            self._platform.verify(signature, lines + body + b"\n", PKCS1v15(), hashes.SHA256())
        except (InvalidSignature, ValueError):
            return False
        return True

    def opened(self, letter: Letter) -> dict[str, Any]:
        """Return a callback with its resource decrypted."""
        content = json.loads(letter.body)
        resource = content["resource"]
        plain = AESGCM(self.keys["api_v3_key"].encode()).decrypt(
            resource["nonce"].encode(),
            b64decode(resource["ciphertext"]),
            resource["associated_data"].encode(),
        )
        return {**content, "resource": json.loads(plain)}

    def sealed(self, text: str) -> str:
        """A name or number as only the platform can read it."""
        padding = OAEP(MGF1(hashes.SHA1()), hashes.SHA1(), None)
        return b64encode(self._platform.encrypt(text.encode(), padding)).decode()

    # Business ---------------------------------------------------------------------------------

    def number(self) -> str:
        return f"t{next(_count)}x{uuid.uuid4().hex[:20]}"

    def native_body(self, number: str, total: int = 100, **more: Any) -> dict[str, Any]:
        return {
            "appid": self.appid,
            "mchid": self.mchid,
            "description": "Image形象店-深圳腾大-QQ公仔",
            "out_trade_no": number,
            "notify_url": self.notify_url,
            "amount": {"total": total, "currency": "CNY"},
            **more,
        }

    def native(self, number: str, total: int = 100, **more: Any) -> Answer:
        return self.call(
            "POST", "/v3/pay/transactions/native", self.native_body(number, total, **more)
        )

    def codepay(self, number: str, auth_code: str, total: int = 100) -> Answer:
        body = self.native_body(number, total)
        del body["notify_url"]
        body["payer"] = {"auth_code": auth_code}
        body["scene_info"] = {"device_id": "till-7", "store_info": {"id": "0001"}}
        return self.call("POST", "/v3/pay/transactions/codepay", body)

    def auth_code(self, behaviour: str = "pay", after_s: float = 5) -> str:
        answer = self.sandbox.post(
            "customer/payment-code", channel="wechat", behaviour=behaviour, after_s=after_s
        )
        return str(answer["auth_code"])

    def query(self, number: str) -> Answer:
        return self.call("GET", f"/v3/pay/transactions/out-trade-no/{number}?mchid={self.mchid}")

    def close(self, number: str) -> Answer:
        return self.call(
            "POST", f"/v3/pay/transactions/out-trade-no/{number}/close", {"mchid": self.mchid}
        )

    def reverse(self, number: str) -> Answer:
        body = {"appid": self.appid, "mchid": self.mchid}
        return self.call("POST", f"/v3/pay/transactions/out-trade-no/{number}/reverse", body)

    def refund(self, number: str, refund_number: str, refund: int, total: int = 100) -> Answer:
        body = {
            "out_trade_no": number,
            "out_refund_no": refund_number,
            "reason": "商品已售完",
            "notify_url": self.notify_url,
            "amount": {"refund": refund, "total": total, "currency": "CNY"},
        }
        return self.call("POST", "/v3/refund/domestic/refunds", body)

    def query_refund(self, refund_number: str) -> Answer:
        return self.call("GET", f"/v3/refund/domestic/refunds/{refund_number}")

    def scan(self, code_url: str, action: str = "pay", after_s: float = 0) -> Any:
        return self.sandbox.post("customer/scan", code_url=code_url, action=action, after_s=after_s)

    def paid(self, total: int = 100, **more: Any) -> str:
        """Place a Native order, have it paid, and return its number."""
        number = self.number()
        self.scan(self.native(number, total, **more).json["code_url"])
        self.sandbox.settle()
        return number
