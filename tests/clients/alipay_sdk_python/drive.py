"""Drives the sandbox with alipay-sdk-python, Alipay's own client; runs in its own environment.

Reads ``{"url", "credentials", "private_key"}`` from standard input and prints what the client made
of each answer as one JSON object. The client verifies every reply's signature itself and raises
when it is wrong. Nothing in it is bent but where it connects to.
"""

import json
import sys
import urllib.request

from alipay.aop.api.AlipayClientConfig import AlipayClientConfig
from alipay.aop.api.DefaultAlipayClient import DefaultAlipayClient
from alipay.aop.api.domain.AlipayTradeAppPayModel import AlipayTradeAppPayModel
from alipay.aop.api.domain.AlipayTradeCreateModel import AlipayTradeCreateModel
from alipay.aop.api.domain.AlipayTradePagePayModel import AlipayTradePagePayModel
from alipay.aop.api.domain.AlipayTradePrecreateModel import AlipayTradePrecreateModel
from alipay.aop.api.domain.AlipayTradeQueryModel import AlipayTradeQueryModel
from alipay.aop.api.domain.AlipayTradeRefundModel import AlipayTradeRefundModel
from alipay.aop.api.exception.Exception import ResponseException
from alipay.aop.api.request.AlipayTradeAppPayRequest import AlipayTradeAppPayRequest
from alipay.aop.api.request.AlipayTradeCreateRequest import AlipayTradeCreateRequest
from alipay.aop.api.request.AlipayTradePagePayRequest import AlipayTradePagePayRequest
from alipay.aop.api.request.AlipayTradePrecreateRequest import AlipayTradePrecreateRequest
from alipay.aop.api.request.AlipayTradeQueryRequest import AlipayTradeQueryRequest
from alipay.aop.api.request.AlipayTradeRefundRequest import AlipayTradeRefundRequest
from alipay.aop.api.response.AlipayTradeCreateResponse import AlipayTradeCreateResponse
from alipay.aop.api.response.AlipayTradePrecreateResponse import AlipayTradePrecreateResponse
from alipay.aop.api.response.AlipayTradeQueryResponse import AlipayTradeQueryResponse
from alipay.aop.api.response.AlipayTradeRefundResponse import AlipayTradeRefundResponse
from connecting import mend_connections


def main():
    mend_connections()
    given = json.load(sys.stdin)
    merchant = given["credentials"]
    config = AlipayClientConfig()
    config.server_url = f"{given['url']}/alipay/gateway.do"
    config.app_id = merchant["app_id"]
    config.app_private_key = given["private_key"]
    config.alipay_public_key = merchant["alipay_public_key_pem"]
    client = DefaultAlipayClient(alipay_client_config=config)

    def control(path, **body):
        request = urllib.request.Request(
            f"{given['url']}/control/{path}",
            json.dumps(body).encode(),
            {"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as reply:
            return json.load(reply)

    def call(request_type, model, response_type):
        answer = response_type()
        answer.parse_response_content(client.execute(request_type(biz_model=model)))
        return answer

    heard = {}
    model = filled(AlipayTradePrecreateModel(), "QR-1", "12.30", "拿铁 中杯 & 茶")
    made = call(AlipayTradePrecreateRequest, model, AlipayTradePrecreateResponse)
    heard["precreate"] = {"ok": made.is_success(), "qr_code": made.qr_code}
    heard["unscanned"] = query(call, "QR-1")
    control("customer/scan", qr_code=made.qr_code, action="pay")
    heard["query"] = query(call, "QR-1")

    model = filled(AlipayTradeCreateModel(), "JS-1", "5.00", "茶")
    model.buyer_id = "2088722000000017"
    model.product_code = "JSAPI_PAY"
    model.op_app_id = merchant["app_id"]
    created = call(AlipayTradeCreateRequest, model, AlipayTradeCreateResponse)
    heard["create"] = {"ok": created.is_success(), "trade_no": created.trade_no}

    model = AlipayTradeRefundModel()
    model.out_trade_no, model.refund_amount, model.out_request_no = "QR-1", "2.30", "R-1"
    back = call(AlipayTradeRefundRequest, model, AlipayTradeRefundResponse)
    heard["refund"] = {"ok": back.is_success(), "fund_change": back.fund_change}

    model = filled(AlipayTradePagePayModel(), "WEB-1", "7.00", "拿铁")
    model.product_code = "FAST_INSTANT_TRADE_PAY"
    address = client.page_execute(AlipayTradePagePayRequest(biz_model=model), http_method="GET")
    heard["page"] = control("alipay/visit", url=address)["state"]
    model = filled(AlipayTradeAppPayModel(), "APP-1", "8.00", "拿铁")
    model.product_code = "QUICK_MSECURITY_PAY"
    text = client.sdk_execute(AlipayTradeAppPayRequest(biz_model=model))
    heard["app"] = control("alipay/visit", url=text)["state"]

    control("faults", channel="alipay", on="query", fault="bad_signature")
    try:
        query(call, "QR-1")
    except ResponseException as refusal:
        heard["bad_signature"] = "sign verify failed" in str(refusal)
    json.dump(heard, sys.stdout, ensure_ascii=False)


def filled(model, number, amount, subject):
    model.out_trade_no, model.total_amount, model.subject = number, amount, subject
    return model


def query(call, number):
    model = AlipayTradeQueryModel()
    model.out_trade_no = number
    answer = call(AlipayTradeQueryRequest, model, AlipayTradeQueryResponse)
    return {
        "ok": answer.is_success(),
        "sub_code": answer.sub_code,
        "trade_status": answer.trade_status,
        "total_amount": answer.total_amount,
    }


if __name__ == "__main__":
    main()
