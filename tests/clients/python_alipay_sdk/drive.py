"""Drives the sandbox with python-alipay-sdk, a client written by others; runs in its own env.

Reads ``{"url", "credentials"}`` from standard input and prints what the client made of each answer
as one JSON object. The client verifies every reply's signature itself and raises when it is wrong.
"""

import json
import sys
import threading
import urllib.request
from base64 import b64decode
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qsl, urlsplit

from alipay import AliPay, DCAliPay
from alipay.exceptions import AliPayException, AliPayValidationError


def main():
    given = json.load(sys.stdin)
    merchant = given["credentials"]
    notices = Notices()
    client = AliPay(
        appid=merchant["app_id"],
        app_notify_url=notices.url,
        app_private_key_string=merchant["app_private_key_pem"],
        alipay_public_key_string=merchant["alipay_public_key_pem"],
    )
    client._gateway = f"{given['url']}/alipay/gateway.do"

    def control(path, **body):
        request = urllib.request.Request(
            f"{given['url']}/control/{path}",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    heard = {}
    heard["precreate"] = client.api_alipay_trade_precreate("拿铁 中杯 & 茶", "QR-1", "12.30")
    heard["query_unscanned"] = client.api_alipay_trade_query("QR-1")
    control("customer/scan", qr_code=heard["precreate"]["qr_code"], action="pay")
    heard["query"] = client.api_alipay_trade_query("QR-1")

    code = control("customer/payment-code", channel="alipay", behaviour="pay")["auth_code"]
    heard["pay"] = client.api_alipay_trade_pay(
        "CODE-1", "bar_code", code, "咖啡", total_amount="100.00"
    )
    heard["refund"] = client.api_alipay_trade_refund("30.00", "CODE-1", out_request_no="R-1")
    heard["refund_again"] = client.api_alipay_trade_refund("30.00", "CODE-1", out_request_no="R-1")
    heard["refund_query"] = client.api_alipay_trade_fastpay_refund_query(
        "R-1", out_trade_no="CODE-1"
    )
    heard["cancel"] = client.api_alipay_trade_cancel("QR-1")
    heard["close"] = client.api_alipay_trade_close("CODE-1")

    bill = {"bill_type": "trade", "bill_date": given["day"]}
    bill_method = "alipay.data.dataservice.bill.downloadurl.query"
    heard["bill_too_early"] = client.server_api(bill_method, bill)
    control("clock", advance_s=36 * 3600)
    heard["bill"] = client.server_api(bill_method, bill)
    with urllib.request.urlopen(heard["bill"]["bill_download_url"], timeout=10) as reply:
        heard["bill_begins"] = reply.read(2).decode()

    control("settle", timeout_s=10)
    heard["notices"] = [
        {"fields": dict(fields), "verified": client.verify(dict(fields), sign)}
        for fields, sign in notices.received
    ]
    fields, sign = notices.received[0]
    heard["tampered_verified"] = client.verify({**fields, "total_amount": "0.01"}, sign)

    heard["pages"] = pages(client, control, given["url"])
    heard["certificate"] = in_certificate_mode(merchant, control, given["url"])

    control("faults", channel="alipay", on="query", fault="bad_signature")
    heard["bad_signature"] = refusal_of(lambda: client.api_alipay_trade_query("QR-1"))
    client._appid = "1"
    heard["stranger"] = refusal_of(lambda: client.api_alipay_trade_query("QR-1"))
    json.dump(heard, sys.stdout, ensure_ascii=False)


def pages(client, control, url):
    """Pay on every page that the client can sign, and check what comes back to the merchant."""
    address = f"{url}/alipay/gateway.do?"
    kinds = {
        "web": client.api_alipay_trade_page_pay,
        "h5": client.api_alipay_trade_wap_pay,
        "app": client.api_alipay_trade_app_pay,
    }
    heard = {}
    for kind, sign in kinds.items():
        back = {} if kind == "app" else {"return_url": "https://shop.example/paid"}
        signed = sign(subject="拿铁 & 茶", out_trade_no=f"PAGE-{kind}", total_amount="6.60", **back)
        told = control("alipay/visit", url=signed if kind == "app" else address + signed)
        heard[kind] = {"state": told["state"]}
        if back:
            fields = dict(parse_qsl(urlsplit(told["returned"]).query))
            sign_of = fields.pop("sign")
            heard[kind]["returned"] = client.verify(dict(fields), sign_of)
            changed = {**fields, "total_amount": "0.01"}
            heard[kind]["tampered"] = client.verify(changed, sign_of)
        else:
            heard[kind]["result"] = client._verify_and_return_sync_response(
                told["result"]["result"], "alipay_trade_app_pay_response"
            )
    return heard


def in_certificate_mode(merchant, control, url):
    """Ask with certificates instead of a bare key: trades, shares, payouts, and a certificate."""
    client = DCAliPay(
        appid=merchant["app_id"],
        app_notify_url=None,
        app_private_key_string=merchant["app_private_key_pem"],
        app_public_key_cert_string=merchant["app_certificate_pem"],
        alipay_public_key_cert_string=merchant["alipay_certificate_pem"],
        alipay_root_cert_string=merchant["root_certificates_pem"],
    )
    client._gateway = f"{url}/alipay/gateway.do"
    heard = {}
    shown = client.api_alipay_trade_precreate("拿铁", "CERT-1", "10.00")
    control("customer/scan", qr_code=shown["qr_code"], action="pay")
    heard["query"] = client.api_alipay_trade_query("CERT-1")
    receiver = {"type": "userId", "account": "2088722000000101"}
    bound = {"receiver_list": [receiver], "out_request_no": "B1"}
    heard["bind"] = client.server_api("alipay.trade.royalty.relation.bind", bound)
    share = {
        "royalty_type": "transfer",
        "trans_in": receiver["account"],
        "trans_in_type": "userId",
        "amount": "3.00",
    }
    trade_no = heard["query"]["trade_no"]
    heard["settle"] = client.api_alipay_trade_order_settle("S1", trade_no, [share])
    heard["settle_query"] = client.server_api(
        "alipay.trade.order.settle.query", {"out_request_no": "S1", "trade_no": trade_no}
    )
    heard["transfer"] = client.api_alipay_fund_trans_uni_transfer(
        "T1", "ALIPAY_USER_ID", "2088722000000201", "8.80", order_title="佣金"
    )
    heard["transfer_query"] = client.server_api(
        "alipay.fund.trans.common.query",
        {
            "out_biz_no": "T1",
            "product_code": "TRANS_ACCOUNT_NO_PWD",
            "biz_scene": "DIRECT_TRANSFER",
        },
    )
    wanted = {"alipay_cert_sn": client.get_cert_sn(merchant["alipay_certificate_pem"])}
    found = client.server_api("alipay.open.app.alipaycert.download", wanted)
    heard["downloaded"] = b64decode(found["alipay_cert_content"]).decode()
    return heard


def refusal_of(call):
    """Return the name of what the client raises."""
    try:
        call()
    except (AliPayException, AliPayValidationError) as refusal:
        return type(refusal).__name__
    return None


class Notices:
    """The client's notify_url: keeps the fields and the signature of what arrives."""

    def __init__(self):
        received = self.received = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                fields = dict(parse_qsl(body))
                received.append((fields, fields.pop("sign")))
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"success")

            def log_message(self, *_):
                pass

        server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{server.server_address[1]}/notify"
        threading.Thread(target=server.serve_forever, daemon=True).start()


if __name__ == "__main__":
    main()
