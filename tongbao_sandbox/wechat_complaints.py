"""WeChat Pay's complaints: what customers say, what merchants answer, and the news of both.

Pictures go both ways: a customer's stand in the history as addresses at the real host, and a
merchant's are uploaded before an answer names them.
"""

from __future__ import annotations

import secrets
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, Final
from urllib.parse import quote

from tongbao_sandbox.clock import china, rfc3339
from tongbao_sandbox.faults import allow
from tongbao_sandbox.seam import Refused, decode_object
from tongbao_sandbox.wechat_applyments import picture_of
from tongbao_sandbox.wechat_desk import NAME, Desk, Event
from tongbao_sandbox.wechat_orders import Orders
from tongbao_sandbox.wechat_wire import (
    Call,
    Handler,
    Outcome,
    Problem,
    Rule,
    checked,
    parameter_error,
    spoilt,
)

KIND: Final = "complaint"
_LIST: Final = "/v3/merchant-service/complaints-v2"
_ADDRESS: Final = "/v3/merchant-service/complaint-notifications"
IMAGES: Final = "/v3/merchant-service/images"
UPLOAD: Final = f"{IMAGES}/upload"
_HOST: Final = "https://api.mch.weixin.qq.com"
_IMAGE: Final = "complaint-image"
_IMAGES_MAX: Final = 4
_REPLY: Final = (
    Rule("/complainted_mchid", str, length_max=64),
    Rule("/response_content", str, length_max=500),
    Rule("/response_images", list, required=False),
)
_COMPLETE: Final = (Rule("/complainted_mchid", str, length_max=64),)
allow(
    "complaint",
    *("time_out_done", "time_out_not_done", "http_500_done", "http_500_not_done"),
    *("http_502_done", "http_503_not_done", "bad_signature_done", "reset"),
)
SPAN_MAX: Final = timedelta(days=30)


class Complaints:
    """Keeps the rules of complaints; every method runs inside the request's transaction."""

    def __init__(self, desk: Desk, orders: Orders) -> None:
        self._desk = desk
        self._world = desk.world
        self._orders = orders

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """Return every call about complaints."""
        one = f"{_LIST}/{{ref}}"
        return (
            ("GET", _LIST, self.find),
            ("GET", one, self.read),
            ("GET", f"{one}/negotiation-historys", self.history),
            ("POST", f"{one}/response", self.reply),
            ("POST", f"{one}/complete", self.complete),
            ("POST", _ADDRESS, self.set_address),
            ("POST", UPLOAD, self.upload),
            ("GET", f"{IMAGES}/{{ref}}", self.image),
        )

    def find(self, call: Call) -> Outcome:
        """List the complaints of some days, a page at a time."""
        query = call.query
        first, last = query.get("begin_date", ""), query.get("end_date", "")
        try:
            span = datetime.fromisoformat(last) - datetime.fromisoformat(first)
        except ValueError:
            raise parameter_error("/begin_date", first, "日期格式错误", "query") from None
        if not timedelta() <= span <= SPAN_MAX:
            raise parameter_error("/end_date", last, "查询日期跨度不超过30天", "query")
        limit, offset = int(query.get("limit", 10)), int(query.get("offset", 0))
        kept = [
            each
            for each in self._all()
            if first <= f"{china(datetime.fromisoformat(each['complaint_time'])):%Y-%m-%d}" <= last
            and query.get("complainted_mchid", each["mchid"]) == each["mchid"]
        ]
        return Outcome(
            {
                "data": [_shown(each) for each in kept[offset : offset + limit]],
                "limit": limit,
                "offset": offset,
                "total_count": len(kept),
            }
        )

    def read(self, call: Call) -> Outcome:
        """Say how a complaint stands."""
        ref = call.variables["ref"]
        fault = self._world.faults.take(NAME, "query", ref)
        return spoilt(fault, lambda: Outcome(_shown(self._existing(ref))))

    def history(self, call: Call) -> Outcome:
        """Say what was said, the newest first."""
        said = self._existing(call.variables["ref"])["history"][::-1]
        limit, offset = int(call.query.get("limit", 10)), int(call.query.get("offset", 0))
        page = said[offset : offset + limit]
        return Outcome({"data": page, "limit": limit, "offset": offset, "total_count": len(said)})

    def reply(self, call: Call) -> Outcome:
        """Take the merchant's answer; the first one moves the complaint on."""
        body = checked(call.body, _REPLY)
        images = body.get("response_images", [])
        unknown = [each for each in images if self._desk.kept(_IMAGE, each) is None]
        if len(images) > _IMAGES_MAX or unknown:
            raise parameter_error("/response_images", "", "图片不存在或超过4张")
        return self._told(call, body, "MERCHANT_RESPONSE", images, "PROCESSING")

    def complete(self, call: Call) -> Outcome:
        """Take the merchant's word that it is dealt with."""
        body = checked(call.body, _COMPLETE)
        return self._told(call, body, "MERCHANT_CONFIRM_COMPLETE", [], "PROCESSED")

    def upload(self, call: Call) -> Outcome:
        """Take a merchant's picture; the same picture has the same id."""
        fault = self._world.faults.take(NAME, "media", "")
        digest, picture = picture_of(call.body)
        return spoilt(fault, lambda: Outcome({"media_id": self._keep_image(digest, picture)}))

    def image(self, call: Call) -> Outcome:
        """Return a picture as it is; files are not signed."""
        fault = self._world.faults.take(NAME, "media", call.variables["ref"])

        def do() -> Outcome:
            kept = self._desk.kept(_IMAGE, call.variables["ref"])
            if kept is None:
                raise Problem(404, "RESOURCE_NOT_EXISTS", "图片不存在")
            return Outcome(b64decode(kept["content"]), media="image/jpg")

        return spoilt(fault, do)

    def _keep_image(self, digest: str, picture: bytes) -> str:
        ref = f"Chsy{digest[:40]}ACA="
        self._desk.keep(_IMAGE, ref, {"content": b64encode(picture).decode()})
        return ref

    def set_address(self, call: Call) -> Outcome:
        """Note where news of complaints goes."""
        body = checked(call.body, (Rule("/url", str, length_max=255),))
        self._desk.keep("complaint-address", "url", {"url": body["url"]})
        return Outcome({"mchid": self._desk.vault.mchid, "url": body["url"]})

    def complain(
        self, number: str, detail: str, problem: str, images: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Let the customer who paid an order complain about it, or again, with pictures in base64.

        Raises:
            Refused
        """
        trade = self._orders.find(number)
        if trade is None or trade.paid_at is None:
            raise Refused("nobody has paid such an order")
        now = self._world.clock.now()
        known = next((each for each in self._all() if each["number"] == number), None)
        kept = known or {
            "id": f"2002018{china(now):%Y%m%d}{secrets.randbelow(10**12):012d}",
            "number": number,
            "transaction_id": trade.ref,
            "amount": trade.amount,
            "mchid": trade.extra.get("sub_mchid") or trade.extra.get("mchid", ""),
            "complaint_time": rfc3339(now),
            "detail": detail,
            "problem": problem,
            "state": "PENDING",
            "times": 0,
            "news": False,
            "url": trade.notify_url,
            "history": [],
        }
        kept |= {"times": kept["times"] + 1, "state": "PENDING", "news": known is not None}
        word = "USER_CREATE_COMPLAINT" if known is None else "USER_CONTINUE_COMPLAINT"
        shown = [b64decode(each) for each in images]
        refs = [self._keep_image(sha256(each).hexdigest(), each) for each in shown]
        self._say(kept, "投诉人", word, (detail, refs))
        self._keep(kept, "CREATE_COMPLAINT" if known is None else "CONTINUE_COMPLAINT")
        return {"complaint_id": kept["id"]}

    def _told(
        self, call: Call, body: dict[str, Any], word: str, images: list[str], state: str
    ) -> Outcome:
        ref = call.variables["ref"]
        fault = self._world.faults.take(NAME, "complaint", ref)

        def do() -> Outcome:
            kept = self._existing(ref)
            if body["complainted_mchid"] != kept["mchid"]:
                raise parameter_error("/complainted_mchid", body["complainted_mchid"], "不一致")
            if kept["state"] == "PROCESSED":
                raise Problem(400, "INVALID_REQUEST", "投诉单已处理完成")
            kept |= {"state": state, "news": False}
            self._say(kept, "商家", word, (body.get("response_content", ""), images))
            self._keep(kept, word)
            return Outcome(None, status=204)

        return spoilt(fault, do)

    def _existing(self, ref: str) -> dict[str, Any]:
        kept = self._desk.kept(KIND, ref)
        if kept is None:
            raise Problem(404, "RESOURCE_NOT_EXISTS", "投诉单不存在")
        return kept

    def _all(self) -> list[dict[str, Any]]:
        raws = self._world.state.documents(NAME, f"{KIND}:", 10_000)
        found = [decode_object(raw) for raw in raws]
        kept = [each for each in found if each is not None]
        return sorted(kept, key=lambda each: each["id"])

    def _say(self, kept: dict[str, Any], who: str, word: str, said: tuple[str, list[str]]) -> None:
        now, (text, images) = self._world.clock.now(), said
        kept["history"].append(
            {
                "log_id": secrets.token_hex(12),
                "operator": who,
                "operate_time": rfc3339(now),
                "operate_type": word,
                "operate_details": text,
                "image_list": [f"{_HOST}{IMAGES}/{quote(each, safe='')}" for each in images],
            }
        )

    def _keep(self, kept: dict[str, Any], action: str) -> None:
        self._desk.keep(KIND, kept["id"], kept)
        address = self._desk.kept("complaint-address", "url") or {"url": kept["url"]}
        is_new = action == "CREATE_COMPLAINT"
        name = "COMPLAINT.CREATE" if is_new else "COMPLAINT.STATE_CHANGE"
        news = {"complaint_id": kept["id"], "action_type": action}
        self._desk.notify(kept["id"], address["url"], Event(KIND, name, "投诉", news))


def _shown(kept: dict[str, Any]) -> dict[str, Any]:
    return {
        "complaint_id": kept["id"],
        "complaint_time": kept["complaint_time"],
        "complaint_detail": kept["detail"],
        "complaint_state": kept["state"],
        "complainted_mchid": kept["mchid"],
        "payer_phone": "",
        "complaint_order_info": [
            {
                "transaction_id": kept["transaction_id"],
                "out_trade_no": kept["number"],
                "amount": kept["amount"],
            }
        ],
        "complaint_full_refunded": False,
        "incoming_user_response": kept["news"],
        "user_complaint_times": kept["times"],
        "problem_type": kept["problem"],
        "problem_description": kept["detail"][:20],
    }
