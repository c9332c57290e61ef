"""Sub-merchants (直付通二级商户): pictures, applications, audit and the merchant's own word.

An application is in audit for `AUDIT_S` virtual seconds, waits as long again for its merchant to
agree, and is then finished with a number (smid) that orders may be for. Faults on ``applyment``
change that: ``rejected`` fails it, ``stays`` keeps it in audit until the control API says how it
goes on. An application that failed may be sent again under its number; no other may.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from hashlib import sha256
from typing import Any, Final

import msgspec

from tongbao_sandbox.alipay_trade import NAME
from tongbao_sandbox.alipay_wire import Ask, Refusal, invalid, need, success
from tongbao_sandbox.clock import plain
from tongbao_sandbox.faults import allow
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import Refused, World

AUDIT_S: Final = 60.0
PICTURE_MAX: Final = 10 * 1024 * 1024
_KINDS: Final = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG\r\n\x1a\n"}
_NEEDED: Final = (
    *("external_id", "name", "alias_name", "merchant_type", "mcc", "cert_no", "cert_type"),
    *("legal_name", "legal_cert_no", "service_phone", "sign_time_with_isv"),
)
_IMAGES: Final = ("cert_image", "legal_cert_front_image", "legal_cert_back_image")
allow("applyment", "rejected", "stays")
allow("media", "http_500_not_done", "time_out_not_done", "reset")


def upload(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Take a picture (ant.merchant.expand.indirect.image.upload); the same one has the same id."""
    del fault
    magic = _KINDS.get(ask.params.get("image_type", ""))
    if magic is None or not ask.file.startswith(magic) or len(ask.file) > PICTURE_MAX:
        raise invalid("image_content")
    image_id = f"oss_{sha256(ask.file).hexdigest()[:40]}"
    world.state.put_document(NAME, f"image/{image_id}", b"{}", world.clock.now())
    return success({"image_id": image_id})


def create(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Take an application (ant.merchant.expand.indirect.zft.create)."""
    for name in _NEEDED:
        need(ask, name)
    images = [ask.text(name) for name in _IMAGES]
    images += [*ask.biz.get("out_door_images", []), *ask.biz.get("in_door_images", [])]
    if any(world.state.document(NAME, f"image/{each}") is None for each in images):
        raise Refusal("40004", "INVALID_PARAMETER", "图片不存在")
    cards = ask.biz.get("biz_cards")
    if not isinstance(cards, list) or len(cards) != 1 or not cards[0].get("account_no"):
        raise Refusal("40004", "INVALID_PARAMETER", "结算卡信息缺失")
    number = need(ask, "external_id")
    known = _kept(world, number)
    if known is not None and known["status"] != "-1":
        # Which code Alipay has for this is not published; whoever hears this asks.
        raise Refusal("20000", "ACQ.SYSTEM_ERROR", "该商户编号已有进行中的申请单")
    serial = world.state.next_number("alipay.zft")
    kept = {
        "external_id": number,
        "order_id": f"{world.clock.now():%Y%m%d}0000000000000000{serial:010d}",
        "apply_time": plain(world.clock.now()),
        "merchant_name": ask.text("name"),
        "status": "031",
        "fk_audit": "CREATE",
        "kz_audit": "CREATE",
        "sub_confirm": "",
        "turn": known["turn"] + 1 if known else 1,
    }
    _keep(world, kept)
    if fault.name == "rejected":
        _move(world, kept, "reject")
    elif fault.name != "stays":
        _later(world, kept)
    return success({"order_id": kept["order_id"]})


def query(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Say how an application stands (ant.merchant.expand.indirect.zftorder.query)."""
    del fault
    kept = _kept(world, ask.text("external_id"))
    shown = [] if kept is None else [{n: v for n, v in kept.items() if n != "turn" and v}]
    return success({"orders": shown})


def decide(world: World, number: str, action: str) -> Mapping[str, Any]:
    """Let an application go on: pass, finish or reject."""
    kept = _kept(world, number)
    if kept is None or action not in {"pass", "finish", "reject"}:
        raise Refused("an application can be told: pass, finish, reject")
    return _move(world, kept, action)


def go_on(world: World, number: str, turn: str) -> None:
    """Do what was put on the agenda, unless somebody else has decided meanwhile."""
    kept = _kept(world, number)
    if kept is None or str(kept["turn"]) != turn or kept["status"] != "031":
        return
    if kept["sub_confirm"] == "NOT_CONFIRM":
        _move(world, kept, "finish")
    else:
        _later(world, _move(world, kept, "pass"))


def _move(world: World, kept: dict[str, Any], action: str) -> dict[str, Any]:
    moved = {**kept, "turn": kept["turn"] + 1}
    if action == "reject":
        moved |= {"status": "-1", "kz_audit": "REJECT", "kz_audit_memo": "营业执照照片不清晰"}
    elif action == "pass":
        url = f"https://render.alipay.com/p/zft/sign?order={kept['order_id']}"
        moved |= {"fk_audit": "PASS", "kz_audit": "PASS", "sub_confirm": "NOT_CONFIRM"}
        moved["sub_sign_qr_code_url"] = url
    else:
        smid = f"2088{world.state.next_number('alipay.smid'):012d}"
        moved |= {"status": "99", "fk_audit": "PASS", "kz_audit": "PASS", "smid": smid}
        moved |= {"sub_confirm": "FINISH", "card_alias_no": f"card{smid}"}
        world.state.put_document(NAME, f"smid/{smid}", b"{}", world.clock.now())
    _keep(world, moved)
    return moved


def _later(world: World, kept: dict[str, Any]) -> None:
    when = world.clock.now() + timedelta(seconds=AUDIT_S)
    number, turn = kept["external_id"], str(kept["turn"])
    world.courier.at(NAME, "applyment", number, when=when, argument=turn)


def _kept(world: World, number: str) -> dict[str, Any] | None:
    found = world.state.document(NAME, f"zft/{number}")
    return None if found is None else msgspec.json.decode(found[0], type=dict[str, Any])


def _keep(world: World, kept: dict[str, Any]) -> None:
    content = msgspec.json.encode(kept)
    world.state.put_document(NAME, f"zft/{kept['external_id']}", content, world.clock.now())


METHODS: Final[Mapping[str, tuple[str, Callable[[World, Ask, Fault], dict[str, Any]]]]] = {
    "ant.merchant.expand.indirect.image.upload": ("media", upload),
    "ant.merchant.expand.indirect.zft.create": ("applyment", create),
    "ant.merchant.expand.indirect.zftorder.query": ("applyment_query", query),
}
