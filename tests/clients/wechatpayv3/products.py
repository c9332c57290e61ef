"""Drives the simulated WeChat Pay's further products with wechatpayv3; see drive.py.

Pages and apps, a service provider's orders, combined orders, profit sharing, payouts, parking, and
a change of the platform certificate while the client is at work.
"""

import json
import sys
import tempfile
from urllib.parse import quote

from drive import Control, Notices, answered, with_certificates
from wechatpayv3 import WeChatPayType

OPENID = "oUpF8uMuAJO_M2pxb1Q9zNjWeS6o"
INFOS = [{"info_type": "活动名称", "info_content": "有礼"}]
NAMED = {"account_type": "MERCHANT_ID", "account": "86693852"}


def main():
    given = json.load(sys.stdin)
    keys, control, notices = given["credentials"], Control(given["url"]), Notices()
    gateway = f"{given['url']}/wechat"

    with tempfile.TemporaryDirectory() as folder:
        given = (keys, notices.url, gateway, folder)
        client = with_certificates(*given)
        provider = with_certificates(*given, partner_mode=True)
        heard = drive(client, provider, (keys, control, notices))
    json.dump(heard, sys.stdout, ensure_ascii=False)


def drive(client, provider, world):
    keys, control, notices = world
    heard = {"opened": opened(client, control, keys)}
    heard["h5"] = answered(h5(client))
    heard["partner"] = partner(provider, control, notices, keys["sub_mchid"])
    heard["combined"] = combined(client, control, notices, keys["mchid"])
    heard["splits"] = splits(client, control, notices)
    heard["transfer"] = transfer(client, control, notices)
    heard["stuck"] = stuck(client, control)
    heard["parking"] = parking(provider, control, keys)
    heard["rotation"] = rotation(client, control)
    return heard


def heard_of(client, notices, event_type, name=""):
    """The next callback of this type, and with this name in it; others may come between."""
    while True:
        callback = client.callback(*notices.next())
        if callback["event_type"] == event_type and name in callback["resource"] | {"": 1}:
            return callback


def order(number, total=1999, **more):
    return {"description": "点心", "out_trade_no": number, "amount": {"total": total}, **more}


def opened(client, control, keys):
    """What a page and an app hand to WeChat, signed by the client's own code."""
    asked = order("products-jsapi", payer={"openid": OPENID})
    prepaid = answered(client.pay(**asked, pay_type=WeChatPayType.JSAPI))["body"]["prepay_id"]
    package = f"prepay_id={prepaid}"
    lines = [keys["appid"], "1414561699", "nonce", package]
    handed = {
        "appId": lines[0],
        "timeStamp": lines[1],
        "nonceStr": lines[2],
        "package": package,
        "signType": "RSA",
        "paySign": client.sign(lines),
    }
    page = control.post("wechat/open", parameters=handed)
    asked = order("products-app")
    prepaid = answered(client.pay(**asked, pay_type=WeChatPayType.APP))["body"]["prepay_id"]
    lines = [keys["appid"], "1414561699", "nonce", prepaid]
    handed = {
        "appid": lines[0],
        "partnerid": keys["mchid"],
        "prepayid": prepaid,
        "package": "Sign=WXPay",
        "noncestr": lines[2],
        "timestamp": lines[1],
        "sign": client.sign(lines),
    }
    app = control.post("wechat/open", parameters=handed)
    return {"page": page["trade_type"], "app": app["trade_type"], "state": app["trade_state"]}


def h5(client):
    scene = {"payer_client_ip": "127.0.0.1", "h5_info": {"type": "Wap"}}
    return client.pay(**order("products-h5"), scene_info=scene, pay_type=WeChatPayType.H5)


def partner(provider, control, notices, sub_mchid):
    number = "products-partner"
    placed = answered(provider.pay(**order(number), sub_mchid=sub_mchid))
    control.post("customer/scan", code_url=placed["body"]["code_url"], action="pay")
    callback = heard_of(provider, notices, "TRANSACTION.SUCCESS", "sp_mchid")
    refund = {"refund": 500, "total": 1999, "currency": "CNY"}
    return {
        "callback": callback["resource"],
        "query": answered(provider.query(out_trade_no=number, sub_mchid=sub_mchid))["body"],
        "refund": answered(
            provider.refund(
                "products-partner-refund", refund, out_trade_no=number, sub_mchid=sub_mchid
            )
        ),
        "close": answered(provider.close(number, sub_mchid=sub_mchid)),
    }


def combined(client, control, notices, mchid):
    parts = [
        {
            "mchid": mchid,
            "attach": "深圳分店",
            "amount": {"total_amount": total, "currency": "CNY"},
            "out_trade_no": f"products-part-{total}",
            "description": "一杯咖啡",
        }
        for total in (300, 700)
    ]
    placed = answered(client.combine_pay("products-combined", parts))
    control.post("customer/scan", code_url=placed["body"]["code_url"], action="pay")
    callback = heard_of(client, notices, "TRANSACTION.SUCCESS", "combine_out_trade_no")
    found = answered(client.combine_query("products-combined"))
    return {"callback": callback["resource"], "query": found["body"]}


def splits(client, control, notices):
    shared = order("products-split", settle_info={"profit_sharing": True})
    code_url = answered(client.pay(**shared))["body"]["code_url"]
    control.post("customer/scan", code_url=code_url, action="pay")
    ref = answered(client.query(out_trade_no="products-split"))["body"]["transaction_id"]
    added = client.profitsharing_add_receiver(
        **NAMED, relation_type="STORE", name="示例商贸有限公司"
    )
    share = {"type": "MERCHANT_ID", "account": "86693852", "amount": 300, "description": "佣金"}
    heard = {
        "receiver": answered(added),
        "begun": answered(client.profitsharing_order(ref, "products-shares", [share], False)),
    }
    control.post("clock", advance_s=2)
    heard["callback"] = heard_of(client, notices, "PROFITSHARING")
    heard["done"] = answered(client.profitsharing_order_query(ref, "products-shares"))["body"]
    heard["left"] = answered(client.profitsharing_amount_query(ref))["body"]["unsplit_amount"]
    back = {"return_mchid": "86693852", "amount": 100, "description": "退"}
    heard["back"] = answered(
        client.profitsharing_return("products-back", out_order_no="products-shares", **back)
    )
    heard_of(client, notices, "PROFITSHARING_RETURN")
    heard["back_query"] = answered(
        client.profitsharing_return_query("products-shares", "products-back")
    )
    heard["freed"] = answered(client.profitsharing_unfreeze(ref, "products-freed", "解冻"))
    control.post("settle")
    heard["nothing_left"] = answered(client.profitsharing_amount_query(ref))["body"]
    heard["deleted"] = answered(client.profitsharing_delete_receiver(**NAMED))
    return heard


def transfer(client, control, notices):
    number = "productstransfer1"
    heard = {
        "offered": answered(
            client.mch_transfer_bills(
                number,
                "1000",
                OPENID,
                5000,
                "报销",
                user_name="张三",
                transfer_scene_report_infos=INFOS,
            )
        )
    }
    control.post("wechat/transfer", number=number)
    heard["callback"] = heard_of(client, notices, "MCHTRANSFER.BILL.FINISHED")
    heard["done"] = answered(client.mch_transfer_bills_query(number))["body"]
    client.mch_transfer_bills(
        "productstransfer2", "1000", OPENID, 100, "报销", transfer_scene_report_infos=INFOS
    )
    heard["cancelled"] = answered(client.mch_transfer_bills_cancel("productstransfer2"))["body"]
    return heard


def stuck(client, control):
    """A refund that the customer's card refuses goes to another, its number encrypted."""
    number, refund_number = "products-stuck", "products-stuck-refund"
    code_url = answered(client.pay(**order(number)))["body"]["code_url"]
    control.post("customer/scan", code_url=code_url, action="pay")
    control.post("faults", channel="wechat", on="refund", fault="abnormal", number=refund_number)
    amount = {"refund": 500, "total": 1999, "currency": "CNY"}
    refund = answered(client.refund(refund_number, amount, out_trade_no=number))["body"]
    control.post("clock", advance_s=2)
    control.post("settle")
    sent = client.abnormal_refund(
        refund["refund_id"],
        refund_number,
        "USER_BANK_CARD",
        bank_type="ICBC_DEBIT",
        bank_account="6222000000000000",
        real_name="张三",
    )
    return answered(sent)


def parking(provider, control, keys):
    sub_mchid = keys["sub_mchid"]
    plate = ("粤B888888", "BLUE")
    # The client signs the path as it is given, and its HTTP library encodes it afterwards.
    found = provider.parking_service_find(quote(plate[0]), plate[1], OPENID, sub_mchid=sub_mchid)
    heard = {"found": answered(found)}
    at = "2026-01-01T10:00:00+08:00"
    place = ("欢乐海岸停车场", 3600)
    entered = provider.parking_enter("products-in", *plate, at, *place, sub_mchid=sub_mchid)
    heard["entered"] = answered(entered)
    parking_id = heard["entered"]["body"]["id"]
    stay = (*plate, at, "2026-01-01T11:00:00+08:00", *place, "12313")
    taken = provider.parking_order(
        "停车场扣费",
        "productsparking",
        888,
        parking_id,
        *stay,
        sub_appid=keys["sub_appid"],
        sub_mchid=sub_mchid,
    )
    heard["taken"] = answered(taken)
    control.post("clock", advance_s=2)
    control.post("settle")
    asked = provider.parking_order_query("productsparking", sub_mchid=sub_mchid)
    heard["paid"] = answered(asked)["body"]
    return heard


def rotation(client, control):
    control.post("settings", **{"wechat.rotation": "switched"})
    answer = answered(client.pay(**order("products-rotated")))
    serials = {f"{one.serial_number:040X}" for one in client._core._certificates}
    return {"status": answer["status"], "certificates": len(serials)}


main()
