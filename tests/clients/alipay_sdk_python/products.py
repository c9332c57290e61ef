"""Drives the sandbox's further products with Alipay's own client.

Agreements on a page and in the app, receivers of shares, parking, and a bill.

Every field goes through the client's own models, and every answer through its own responses; it
verifies each reply's signature and raises when it is wrong.
"""

import io
import json
import sys
import urllib.request
import zipfile
from datetime import datetime, timedelta
from urllib.parse import quote

from alipay.aop.api.AlipayClientConfig import AlipayClientConfig
from alipay.aop.api.DefaultAlipayClient import DefaultAlipayClient
from connecting import mend_connections

PLAN = {
    "personal_product_code": "GENERAL_WITHHOLDING_P",
    "product_code": "GENERAL_WITHHOLDING",
    "sign_scene": "INDUSTRY|CARRENTAL",
    "access_params": {"channel": "ALIPAYAPP"},
}
PERIODIC = {
    "personal_product_code": "CYCLE_PAY_AUTH_P",
    "product_code": "CYCLE_PAY_AUTH",
    "sign_scene": "INDUSTRY|DIGITAL_MEDIA",
    "access_params": {"channel": "ALIPAYAPP"},
}
SCHEME = (
    "alipays://platformapi/startapp?appId=60000157&appClearTop=false&startMultApp=YES&sign_params="
)
PLATE = {"car_number": "浙A00001", "parking_id": "PI1501317472942184881"}


def main():
    given = json.load(sys.stdin)
    mend_connections()
    shop = Shop(given)
    heard = {
        "agreement": agreement(shop),
        "periodic": periodic(shop),
        "in_app": in_app(shop),
        "shares": shares(shop),
        "parking": parking(shop),
        "bill": account_bill(shop),
    }
    json.dump(heard, sys.stdout, ensure_ascii=False)


class Shop:
    def __init__(self, given):
        self.url, merchant = given["url"], given["credentials"]
        self.seller = given["seller"]
        config = AlipayClientConfig()
        config.server_url = f"{self.url}/alipay/gateway.do"
        config.app_id = merchant["app_id"]
        config.app_private_key = given["private_key"]
        config.alipay_public_key = merchant["alipay_public_key_pem"]
        self.client = DefaultAlipayClient(alipay_client_config=config)

    def control(self, path, **body):
        request = urllib.request.Request(f"{self.url}/control/{path}", json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def asked(self, name, **fields):
        """The client's request of this name, filled in through its own model."""
        model = part("domain", f"{name}Model").from_alipay_dict(fields)
        return part("request", f"{name}Request")(biz_model=model)

    def call(self, name, *seen, **fields):
        answer = part("response", f"{name}Response")()
        answer.parse_response_content(self.client.execute(self.asked(name, **fields)))
        told = {"ok": answer.is_success(), "sub_code": answer.sub_code}
        return told | {field: getattr(answer, field) for field in seen}

    def sign(self, number, plan, **more):
        request = self.to_sign(number, plan, **more)
        address = self.client.page_execute(request, http_method="GET")
        return self.control("alipay/visit", url=address, action="pay")

    def to_sign(self, number, plan, **more):
        request = self.asked(
            "AlipayUserAgreementPageSign", external_agreement_no=number, **plan, **more
        )
        request.return_url = "https://shop.example/signed"
        return request

    def agreed(self, number, plan):
        return self.call(
            "AlipayUserAgreementQuery",
            *("agreement_no", "status", "external_agreement_no", "sign_time"),
            external_agreement_no=number,
            personal_product_code=plan["personal_product_code"],
            sign_scene=plan["sign_scene"],
        )

    def charge(self, number, amount, agreement_no, product):
        return self.call(
            "AlipayTradePay",
            *("trade_no", "total_amount"),
            out_trade_no=number,
            total_amount=amount,
            subject="月费",
            product_code=product,
            agreement_params={"agreement_no": agreement_no},
        )


def part(kind, name):
    """The client's class of this name; each has a module of its own."""
    return getattr(__import__(f"alipay.aop.api.{kind}.{name}", fromlist=[name]), name)


def agreement(shop):
    heard = {"unknown": shop.agreed("nobody", PLAN), "signed": shop.sign("AG-1", PLAN)}
    heard["query"] = shop.agreed("AG-1", PLAN)
    number = heard["query"]["agreement_no"]
    heard["charge"] = shop.charge("AG-PAY-1", "12.30", number, "GENERAL_WITHHOLDING")
    heard["ended"] = shop.call("AlipayUserAgreementUnsign", agreement_no=number)
    heard["late"] = shop.charge("AG-PAY-2", "12.30", number, "GENERAL_WITHHOLDING")
    return heard


def periodic(shop):
    today = datetime.fromisoformat(shop.control("clock", advance_s=0)["now"]) + timedelta(hours=8)
    rules = {
        "period_type": "DAY",
        "period": 30,
        "execute_time": f"{today:%Y-%m-%d}",
        "single_amount": "10.00",
    }
    heard = {"signed": shop.sign("AG-2", PERIODIC, period_rule_params=rules)}
    heard["query"] = shop.agreed("AG-2", PERIODIC)
    number = heard["query"]["agreement_no"]
    heard["charge"] = shop.charge("AG-PAY-3", "10.00", number, "CYCLE_PAY_AUTH")
    heard["too_much"] = shop.charge("AG-PAY-4", "10.01", number, "CYCLE_PAY_AUTH")
    return heard


def in_app(shop):
    """Sign in Alipay's app out of the merchant's, and out of a mini-program."""
    heard = {}
    for kind, before in {"app": SCHEME, "mini_program": ""}.items():
        number = f"AG-{kind}"
        text = quote(shop.client.sdk_execute(shop.to_sign(number, PLAN)), safe="")
        heard[kind] = shop.control("alipay/visit", url=before + text, action="pay")
        heard[f"{kind}_query"] = shop.agreed(number, PLAN)
    return heard


def shares(shop):
    """Bind a receiver, give it a share, forget it, and try to give it another."""
    shop.sign("AG-4", PLAN)
    agreement_no = shop.agreed("AG-4", PLAN)["agreement_no"]
    paid = shop.charge("SH-1", "10.00", agreement_no, "GENERAL_WITHHOLDING")
    receiver = {"receiver_list": [{"type": "userId", "account": "2088722000000888"}]}
    heard = {"stranger": give(shop, paid, "S0")}
    bind, unbind = "AlipayTradeRoyaltyRelationBind", "AlipayTradeRoyaltyRelationUnbind"
    heard["bound"] = shop.call(bind, "result_code", out_request_no="B1", **receiver)
    heard["given"] = give(shop, paid, "S1")
    heard["unbound"] = shop.call(unbind, "result_code", out_request_no="B2", **receiver)
    heard["late"] = give(shop, paid, "S2")
    heard["query"] = shop.call(
        "AlipayTradeOrderSettleQuery",
        "out_request_no",
        out_request_no="S1",
        trade_no=paid["trade_no"],
    )
    return heard


def give(shop, paid, number):
    share = {
        "royalty_type": "transfer",
        "trans_in": "2088722000000888",
        "trans_in_type": "userId",
        "amount": "1.00",
    }
    return shop.call(
        "AlipayTradeOrderSettle",
        "trade_no",
        out_request_no=number,
        trade_no=paid["trade_no"],
        royalty_parameters=[share],
    )


def parking(shop):
    shop.sign("AG-3", PLAN)
    heard = {"unbound": plate_status(shop)}
    shop.control("alipay/plate", plate=PLATE["car_number"], number="AG-3")
    times = {"in_time": "2030-01-01 08:00:00", "car_color": "blue"}
    heard["entered"] = shop.call("AlipayEcoMycarParkingEnterinfoSync", **PLATE, **times)
    heard["bound"] = plate_status(shop)
    heard["fee"] = shop.call(
        "AlipayEcoMycarParkingOrderPay",
        *("out_trade_no", "trade_no", "total_fee"),
        **PLATE,
        out_trade_no="PARK-1",
        total_fee="6.00",
        subject="停车费",
        car_number_color="blue",
        out_parking_id="west-gate",
        seller_id=shop.seller,
        agent_id=shop.seller,
    )
    left = {"out_time": "2030-01-01 09:00:00", "car_color": "blue"}
    heard["left"] = shop.call("AlipayEcoMycarParkingExitinfoSync", **PLATE, **left)
    return heard


def plate_status(shop):
    return shop.call("AlipayEcoMycarParkingAgreementQuery", "agreement_status", **PLATE)


def account_bill(shop):
    now = datetime.fromisoformat(shop.control("clock", advance_s=0)["now"])
    day = f"{now + timedelta(hours=8):%Y-%m-%d}"
    shop.control("clock", advance_s=36 * 3600)
    name = "AlipayDataDataserviceBillDownloadurlQuery"
    heard = shop.call(name, "bill_download_url", bill_type="signcustomer", bill_date=day)
    with urllib.request.urlopen(heard["bill_download_url"], timeout=10) as reply:
        archive = zipfile.ZipFile(io.BytesIO(reply.read()), metadata_encoding="gbk")
    [detail] = [one for one in archive.namelist() if one.endswith("账务明细.csv")]
    return {"ok": heard["ok"], "lines": archive.read(detail).decode("gbk").split("\r\n")}


if __name__ == "__main__":
    main()
