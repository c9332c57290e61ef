"""Alipay's complaints (交易投诉): what customers say, what merchants answer, the news of both."""

from __future__ import annotations

import secrets
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, Final

import msgspec

from tongbao_sandbox.alipay_bill import yuan
from tongbao_sandbox.alipay_trade import NAME, tell_application
from tongbao_sandbox.alipay_wire import Ask, Refusal, invalid, need, success
from tongbao_sandbox.clock import plain
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import Refused, Reply, Request, World

NEWS: Final = "alipay.merchant.tradecomplain.changed"
IMAGES: Final = "/complaint-images/"
_IMAGE_MAX: Final = 5 * 1024 * 1024
_INDEX: Final = "complaints"
_HIDDEN: Final = frozenset({"number"})


def find(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """List the complaints of some days (alipay.merchant.tradecomplain.batchquery)."""
    del fault
    size, page = int(ask.text("page_size") or 10), int(ask.text("page_num") or 1)
    if not 1 <= size <= 20 or page < 1:
        raise invalid("page_size")
    first, last = ask.text("begin_time"), ask.text("end_time")
    kept = [
        each
        for each in (_kept(world, ref) for ref in _refs(world))
        if each is not None
        and (not first or each["gmt_create"] >= first)
        and (not last or each["gmt_create"] <= last)
    ]
    shown = [_shown(each, ask.origin) for each in kept[(page - 1) * size : page * size]]
    pages = -(-len(kept) // size)
    told = {"page_num": page, "page_size": size, "total_page_num": pages, "total_num": len(kept)}
    return success({**told, "trade_complain_infos": shown})


def read(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Say how a complaint stands, with all that was said (….query)."""
    del fault
    return success(_shown(_existing(world, ask), ask.origin))


def reply(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Take the merchant's words (….reply.submit)."""
    del fault
    kept, text = _existing(world, ask), need(ask, "reply_content")
    images = [each for each in ask.text("reply_images").split(",") if each]
    if any(world.state.document(NAME, f"image/{each}") is None for each in images):
        raise invalid("reply_images")
    _check_open(kept)
    _say(world, kept, "MERCHANT", (text, images))
    return success({"reply_submit_success": True})


def feedback(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Take the merchant's word that it is dealt with, once (….feedback.submit)."""
    del fault
    kept = _existing(world, ask)
    need(ask, "feedback_code")
    need(ask, "feedback_content")
    _check_open(kept)
    _keep(world, {**kept, "status": "MERCHANT_FEEDBACKED"})
    return success({})


def upload(world: World, ask: Ask, fault: Fault) -> dict[str, Any]:
    """Take a merchant's picture (alipay.merchant.image.upload); the same one has the same id."""
    del fault
    magic = {"jpg": b"\xff\xd8\xff", "png": b"\x89PNG"}.get(ask.params.get("image_type", ""))
    if magic is None or not ask.file.startswith(magic) or len(ask.file) > _IMAGE_MAX:
        raise invalid("image_content")
    return success({"image_id": _keep_image(world, ask.file)})


def image(world: World, request: Request) -> Reply:
    """Return a picture to whoever has its address."""
    found = world.state.document(NAME, f"image/{request.path.removeprefix(IMAGES)}")
    if found is None or not found[0]:
        return Reply(404)
    return Reply(200, (("content-type", "image/jpeg"),), found[0])


def _keep_image(world: World, content: bytes) -> str:
    image_id = f"A{sha256(content).hexdigest()[:40]}"
    world.state.put_document(NAME, f"image/{image_id}", content, world.clock.now())
    return image_id


def complain(world: World, number: str, detail: str, images: Sequence[str] = ()) -> dict[str, str]:
    """Let the customer who paid an order complain about it, or say more, with pictures in base64.

    Raises:
        Refused
    """
    trade = world.state.trade(NAME, number)
    if trade is None or trade.paid_at is None:
        raise Refused("nobody has paid such an order")
    shown = [_keep_image(world, b64decode(each)) for each in images]
    known = next(
        (each for ref in _refs(world) if (each := _kept(world, ref)) and each["number"] == number),
        None,
    )
    if known is not None:
        _say(world, known, "USER", (detail, shown))
        return {"complain_event_id": known["complain_event_id"]}
    now = world.clock.now()
    kept = {
        "complain_event_id": f"{now:%Y%m%d}{secrets.randbelow(10**14):014d}",
        "number": number,
        "status": "MERCHANT_PROCESSING",
        "trade_no": trade.ref,
        "merchant_order_no": number,
        "gmt_create": plain(now),
        "leaf_category_name": "未收到货",
        "complain_reason": "卖家未发货",
        "content": detail,
        "images": shown,
        "trade_amount": yuan(trade.amount),
        "reply_detail_infos": [],
    }
    refs = [*_refs(world), kept["complain_event_id"]]
    world.state.put_document(NAME, _INDEX, msgspec.json.encode(refs), now)
    _keep(world, kept)
    _tell(world, kept)
    return {"complain_event_id": str(kept["complain_event_id"])}


def _say(world: World, kept: dict[str, Any], role: str, what: tuple[str, Sequence[str]]) -> None:
    said: dict[str, Any] = {
        "replier_name": "商家" if role == "MERCHANT" else "买家",
        "replier_role": role,
        "gmt_create": plain(world.clock.now()),
        "content": what[0],
        "images": [*what[1]],
    }
    kept = {**kept, "reply_detail_infos": [*kept["reply_detail_infos"], said]}
    _keep(world, kept)
    if role == "USER":
        _tell(world, kept)


def _tell(world: World, kept: Mapping[str, Any]) -> None:
    ref = str(kept["complain_event_id"])
    tell_application(world, "complaint", ref, NEWS, {"complain_event_id": ref})


def _check_open(kept: Mapping[str, Any]) -> None:
    if kept["status"] != "MERCHANT_PROCESSING":
        raise Refusal("40004", "ACQ.INVALID_PARAMETER", "投诉单状态不允许操作")


def _existing(world: World, ask: Ask) -> dict[str, Any]:
    kept = _kept(world, need(ask, "complain_event_id"))
    if kept is None:
        raise Refusal("40004", "ACQ.INVALID_PARAMETER", "投诉单不存在")
    return kept


def _refs(world: World) -> list[str]:
    found = world.state.document(NAME, _INDEX)
    return [] if found is None else msgspec.json.decode(found[0], type=list[str])


def _kept(world: World, ref: str) -> dict[str, Any] | None:
    found = world.state.document(NAME, f"complaint/{ref}")
    return None if found is None else msgspec.json.decode(found[0], type=dict[str, Any])


def _keep(world: World, kept: Mapping[str, Any]) -> None:
    now = world.clock.now()
    content = msgspec.json.encode({**kept, "gmt_modified": plain(now)})
    world.state.put_document(NAME, f"complaint/{kept['complain_event_id']}", content, now)


def _shown(kept: Mapping[str, Any], origin: str) -> dict[str, Any]:
    """Return the document; pictures are told as addresses."""

    def addressed(told: Mapping[str, Any]) -> dict[str, Any]:
        return {**told, "images": [f"{origin}{IMAGES}{each}" for each in told["images"]]}

    said = [addressed(each) for each in kept["reply_detail_infos"]]
    shown = {name: value for name, value in kept.items() if name not in _HIDDEN}
    return {**addressed(shown), "reply_detail_infos": said}


_METHOD: Final = "alipay.merchant.tradecomplain"
METHODS: Final[Mapping[str, tuple[str, Callable[[World, Ask, Fault], dict[str, Any]]]]] = {
    f"{_METHOD}.batchquery": ("complaint_query", find),
    f"{_METHOD}.query": ("complaint_query", read),
    f"{_METHOD}.reply.submit": ("complaint", reply),
    f"{_METHOD}.feedback.submit": ("complaint", feedback),
    "alipay.merchant.image.upload": ("media", upload),
}
