"""Drives the sandbox with wechatpayv3, a client written by others; runs in its own environment.

Reads ``{"url", "credentials"}`` from standard input and prints what the client made of each answer
as one JSON object. The client verifies every 2xx answer's signature itself and raises when it is
wrong; its gateway is a private attribute, which is the one thing bent here.
"""

import gzip
import hashlib
import json
import pathlib
import sys
import tempfile
import threading
import time
import urllib.request
from datetime import datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

from wechatpayv3 import WeChatPay, WeChatPayType

PAY_TYPE = WeChatPayType.NATIVE


def main():
    given = json.load(sys.stdin)
    keys = given["credentials"]
    notices = Notices()
    control = Control(given["url"])
    gateway = f"{given['url']}/wechat"
    # Start early in a day of China, so that everything below is on one bill.
    control.post("clock", advance_s=control.seconds_until(hour=1))
    with tempfile.TemporaryDirectory() as folder:
        client = with_certificates(keys, notices.url, gateway, folder)
        heard = {"certificates": fetch_certificates(client)}
        heard |= trade(client, control, notices)
        heard |= charge(client, control)
        heard |= bills(client, control)
        heard |= forgeries(client, control, notices)
    heard["public_key_mode"] = order_in_public_key_mode(keys, notices.url, gateway)
    json.dump(heard, sys.stdout, ensure_ascii=False)


def common(keys, notify_url):
    return {
        "wechatpay_type": PAY_TYPE,
        "mchid": keys["mchid"],
        "private_key": keys["merchant_private_key_pem"],
        "cert_serial_no": keys["merchant_serial"],
        "appid": keys["appid"],
        "apiv3_key": keys["api_v3_key"],
        "notify_url": notify_url,
        "timeout": 10,
    }


def with_certificates(keys, notify_url, gateway, folder, **more):
    """The client as it is after its first download: the platform certificate in its folder."""
    certificate = pathlib.Path(folder) / f"{keys['platform_serial']}.pem"
    certificate.write_text(keys["platform_certificate_pem"])
    client = WeChatPay(**common(keys, notify_url), cert_dir=folder, **more)
    client._core._gate_way = gateway
    return client


def fetch_certificates(client):
    """Forget the certificates and have the client fetch and decrypt them."""
    client._core._cert_dir = None
    client._core._update_certificates()
    return [f"{one.serial_number:040X}" for one in client._core._certificates]


def order_in_public_key_mode(keys, notify_url, gateway):
    client = WeChatPay(
        **common(keys, notify_url),
        public_key=keys["public_key_pem"],
        public_key_id=keys["public_key_id"],
    )
    client._core._gate_way = gateway
    return answered(client.pay(description="公钥模式", out_trade_no="pubkey1", amount={"total": 1}))


def answered(pair):
    status, text = pair
    return {"status": status, "body": json.loads(text) if text else None}


def trade(client, control, notices):
    number, heard = "driver-native-1", {}
    order = {"description": "扫码 & 点心", "out_trade_no": number, "amount": {"total": 1999}}
    heard["native"] = answered(client.pay(**order))
    heard["native_again"] = answered(client.pay(**order))
    heard["query_unpaid"] = answered(client.query(out_trade_no=number))
    control.post("customer/scan", code_url=heard["native"]["body"]["code_url"], action="pay")
    headers, body = notices.next()
    heard["callback"] = client.callback(headers, body)
    heard["query_paid"] = answered(client.query(out_trade_no=number))
    transaction_id = heard["query_paid"]["body"]["transaction_id"]
    heard["query_by_id"] = answered(client.query(transaction_id=transaction_id))
    heard["close_paid"] = answered(client.close(number))
    heard["refund"] = answered(
        client.refund(
            out_refund_no="driver-refund-1",
            out_trade_no=number,
            reason="商品已售完",
            amount={"refund": 500, "total": 1999, "currency": "CNY"},
        )
    )
    control.post("clock", advance_s=3)
    headers, body = notices.next()
    heard["refund_callback"] = client.callback(headers, body)
    heard["refund_query"] = answered(client.query_refund("driver-refund-1"))
    client.pay(description="关单", out_trade_no="driver-native-2", amount={"total": 1})
    heard["close"] = answered(client.close("driver-native-2"))
    heard["close_unknown"] = answered(client.close("driver-native-3"))
    return heard


def charge(client, control):
    heard = {}
    for behaviour in ("pay", "ask", "decline"):
        code = control.post("customer/payment-code", channel="wechat", behaviour=behaviour)
        heard[f"codepay_{behaviour}"] = answered(
            client.pay(
                description="付款码",
                out_trade_no=f"driver-code-{behaviour}",
                amount={"total": 100},
                payer={"auth_code": code["auth_code"]},
                scene_info={"store_info": {"id": "0001"}},
                pay_type=WeChatPayType.CODEPAY,
            )
        )
    return heard


def bills(client, control):
    day = str(control.china().date())
    control.post("clock", advance_s=control.seconds_until(hour=10))
    heard = {}
    for name, call in (
        ("trade_bill", lambda: client.trade_bill(day)),
        ("trade_bill_plain", lambda: client._core.request(f"/v3/bill/tradebill?bill_date={day}")),
        ("fund_bill", lambda: client.fundflow_bill(day)),
    ):
        offered = answered(call())
        status, content = client.download_bill(offered["body"]["download_url"])
        content = content.encode() if isinstance(content, str) else content
        plain = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
        heard[name] = {
            "status": (offered["status"], status),
            "zipped": plain is not content,
            "digest_fits": hashlib.sha1(plain).hexdigest() == offered["body"]["hash_value"],
            "lines": plain.decode("utf-8-sig").splitlines(),
        }
    heard["no_bill"] = answered(client.trade_bill("2000-01-01"))
    return heard


def forgeries(client, control, notices):
    heard = {}
    for fault in ("forged", "signtest"):
        control.post("faults", channel="wechat", on="callback", fault=fault)
        number = f"driver-{fault}"
        order = client.pay(description=fault, out_trade_no=number, amount={"total": 1})
        code_url = json.loads(order[1])["code_url"]
        control.post("customer/scan", code_url=code_url, action="pay")
        seen = [client.callback(*notices.next()) for _ in range(2)]
        heard[fault] = sorted(bool(one) for one in seen)
    return heard


class Control:
    def __init__(self, url):
        self.url = url

    def post(self, path, **body):
        return self._read(
            urllib.request.Request(f"{self.url}/control/{path}", json.dumps(body).encode())
        )

    def china(self):
        now = self._read(urllib.request.Request(f"{self.url}/control/clock"))["now"]
        return datetime.fromisoformat(now) + timedelta(hours=8)

    def seconds_until(self, hour):
        """The seconds until that hour of the sandbox's next day."""
        now = self.china()
        wanted = (now + timedelta(days=1)).replace(hour=hour, minute=0, second=0, microsecond=0)
        return (wanted - now).total_seconds()

    def _read(self, request):
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


class Notices:
    """Where callbacks arrive."""

    def __init__(self):
        self.waiting = waiting = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                waiting.append((dict(self.headers.items()), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_args):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}/notify"

    def next(self):
        for _ in range(1000):
            if self.waiting:
                headers, body = self.waiting.pop(0)
                # The client knows the header names as WeChat Pay documents them, or all lower.
                return {name.lower(): value for name, value in headers.items()}, body
            time.sleep(0.01)
        raise TimeoutError("no callback came")


if __name__ == "__main__":
    main()
