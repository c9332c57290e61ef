"""Applications of service providers for sub-merchants: pictures, audit, verification, signature.

An application is audited for `AUDIT_S` virtual seconds, waits for its merchant's signature, which
the sandbox gives after as long again, and is then finished. Faults on ``applyment`` change that:
``rejected`` (its argument names the field), ``stays`` in audit, ``verify`` waits for the account to
be verified, until the control API says how it goes on.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime, timedelta
from typing import Any, Final

from msgspec.json import decode

from tongbao_sandbox.faults import allow
from tongbao_sandbox.model import Fault
from tongbao_sandbox.seam import Refused
from tongbao_sandbox.wechat_desk import NAME, Desk
from tongbao_sandbox.wechat_wire import (
    Call,
    Handler,
    Outcome,
    Problem,
    Rule,
    at,
    checked,
    parameter_error,
    spoilt,
)

AUDIT_S: Final = 60.0
MEDIA_PATH: Final = "/v3/merchant/media/upload"
PICTURE_MAX: Final = 2 * 1024 * 1024
_PATH: Final = "/v3/applyment4sub/applyment"
_CODE: Final = re.compile(r"[0-9A-Za-z_]{1,124}")
_PART: Final = re.compile(rb'name="(meta|file)"')
_STATES: Final = {
    "AUDITING": "审核中",
    "REJECTED": "已驳回",
    "TO_BE_CONFIRMED": "待账户验证",
    "TO_BE_SIGNED": "待签约",
    "SIGNING": "开通权限中",
    "FINISHED": "已完成",
    "CANCELED": "已作废",
}
_SEALED: Final = (
    "/contact_info/contact_name",
    "/contact_info/mobile_phone",
    "/contact_info/contact_email",
    "/subject_info/identity_info/id_card_info/id_card_name",
    "/subject_info/identity_info/id_card_info/id_card_number",
    "/bank_account_info/account_name",
    "/bank_account_info/account_number",
)
_PICTURES: Final = (
    "/subject_info/business_license_info/license_copy",
    "/subject_info/identity_info/id_card_info/id_card_copy",
    "/subject_info/identity_info/id_card_info/id_card_national",
)
_SUBJECTS: Final = frozenset(
    f"SUBJECT_TYPE_{kind}"
    for kind in ("INDIVIDUAL", "ENTERPRISE", "INSTITUTIONS", "OTHERS", "GOVERNMENT")
)
_RULES: Final = (
    Rule("/business_code", str, check=lambda value: _CODE.fullmatch(value) is not None),
    Rule("/contact_info", dict),
    Rule("/contact_info/contact_type", str, check=lambda value: value in {"LEGAL", "SUPER"}),
    Rule("/subject_info", dict),
    Rule("/subject_info/subject_type", str, check=lambda value: value in _SUBJECTS),
    Rule("/subject_info/business_license_info/license_number", str, length_max=18),
    Rule("/subject_info/business_license_info/merchant_name", str, length_max=110),
    Rule("/subject_info/business_license_info/legal_person", str, length_max=64),
    Rule("/subject_info/identity_info/id_doc_type", str),
    Rule("/subject_info/identity_info/id_card_info/card_period_begin", str),
    Rule("/subject_info/identity_info/id_card_info/card_period_end", str),
    Rule("/business_info/merchant_shortname", str, length_max=64),
    Rule("/business_info/service_phone", str, length_max=32),
    Rule("/business_info/sales_info/sales_scenes_type", list),
    Rule("/settlement_info", dict),
    Rule("/bank_account_info/bank_account_type", str),
    Rule("/bank_account_info/account_bank", str, length_max=128),
    Rule("/bank_account_info/bank_address_code", str, length_max=6),
    *(Rule(pointer, str) for pointer in (*_SEALED, *_PICTURES)),
)
allow(
    "applyment",
    *("rejected", "stays", "verify", "reset", "http_429"),
    *("time_out_done", "time_out_not_done", "http_500_done", "http_500_not_done"),
    "bad_signature_done",
)
allow("applyment_query", "http_500", "http_502", "time_out", "bad_signature")
allow("media", "http_500_not_done", "time_out_not_done", "reset")


class Applyments:
    """Keeps the applications' rules; every method runs inside the request's transaction."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._world = desk.world

    def routes(self) -> tuple[tuple[str, str, Handler], ...]:
        """Return every call about applications."""
        return (
            ("POST", MEDIA_PATH, self.upload),
            ("POST", f"{_PATH}/", self.submit),
            ("GET", f"{_PATH}/business_code/{{number}}", self.by_code),
            ("GET", f"{_PATH}/applyment_id/{{number}}", self.by_id),
        )

    def upload(self, call: Call) -> Outcome:
        """Take a picture; the same picture has the same id."""
        fault = self._world.faults.take(NAME, "media", "")
        digest, picture = picture_of(call.body)

        def do() -> Outcome:
            media_id = f"media_{digest[:48]}"
            self._desk.keep("media", media_id, {"size": len(picture)})
            return Outcome({"media_id": media_id})

        return spoilt(fault, do)

    def submit(self, call: Call) -> Outcome:
        """Take an application; only one that was rejected is replaced."""
        body = checked(call.body, _RULES)
        opened = self._opened(body, call.wanted_serial)
        code = body["business_code"]
        fault = self._world.faults.take(NAME, "applyment", code)

        def do() -> Outcome:
            return Outcome({"applyment_id": self._take(code, body, opened, fault)})

        return spoilt(fault, do)

    def by_code(self, call: Call) -> Outcome:
        """Say how an application stands, by the provider's own code."""
        return self._shown(call.variables["number"])

    def by_id(self, call: Call) -> Outcome:
        """Say how an application stands, by the id it was given."""
        found = self._desk.kept("applyment_id", call.variables["number"])
        if found is None:
            raise Problem(404, "RESOURCE_NOT_EXISTS", "申请单不存在")
        return self._shown(found["business_code"])

    def decide(self, code: str, action: str, argument: str = "") -> dict[str, Any]:
        """Let an application go on: pass, verify, sign, finish, reject or cancel."""
        kept = self._desk.kept("applyment", code)
        states = {
            "pass": "TO_BE_SIGNED",
            "verify": "TO_BE_CONFIRMED",
            "sign": "SIGNING",
            "finish": "FINISHED",
            "reject": "REJECTED",
            "cancel": "CANCELED",
        }
        if kept is None or action not in states:
            raise Refused(f"an application can be told: {', '.join(states)}")
        return _public(self._move(kept, states[action], argument or "id_card_copy"))

    def act(self, code: str, turn: str, now: datetime) -> None:
        """Do what was put on the agenda, unless somebody else has decided meanwhile."""
        kept = self._desk.kept("applyment", code)
        if kept is None or str(kept["turn"]) != turn:
            return
        following = {"AUDITING": "TO_BE_SIGNED", "TO_BE_SIGNED": "FINISHED"}.get(kept["state"])
        if following is not None:
            kept = self._move(kept, following, "")
            self._later(kept, now)

    def _take(self, code: str, body: dict[str, Any], opened: dict[str, str], fault: Fault) -> int:
        known = self._desk.kept("applyment", code)
        if known is not None and known["state"] != "REJECTED":
            raise Problem(400, "RESOURCE_ALREADY_EXISTS", "存在流程进行中的申请单，请检查是否重入")
        number = 2000002100000000 + self._world.state.next_number("wechat.applyment")
        kept = {
            "business_code": code,
            "applyment_id": known["applyment_id"] if known else number,
            "state": "AUDITING",
            "turn": known["turn"] + 1 if known else 1,
            "field": "",
            "sub_mchid": "",
            "name": at(body, "/subject_info/business_license_info/merchant_name"),
            "id_tail": opened["/subject_info/identity_info/id_card_info/id_card_number"][-4:],
            "account_tail": opened["/bank_account_info/account_number"][-4:],
        }
        self._desk.keep("applyment", code, kept)
        index = {"business_code": code}
        self._desk.keep("applyment_id", str(kept["applyment_id"]), index)
        if fault.name == "rejected":
            self._move(kept, "REJECTED", fault.argument or "id_card_copy")
        elif fault.name == "verify":
            self._move(kept, "TO_BE_CONFIRMED", "")
        elif fault.name != "stays":
            self._later(kept, self._world.clock.now())
        return int(kept["applyment_id"])

    def _later(self, kept: dict[str, Any], now: datetime) -> None:
        when = now + timedelta(seconds=AUDIT_S)
        code, turn = kept["business_code"], str(kept["turn"])
        self._world.courier.at(NAME, "applyment", code, when=when, argument=turn)

    def _move(self, kept: dict[str, Any], state: str, field: str) -> dict[str, Any]:
        moved = {**kept, "state": state, "turn": kept["turn"] + 1, "field": field}
        if state == "FINISHED" and not kept["sub_mchid"]:
            number = 1700000000 + self._world.state.next_number("wechat.sub_mchid")
            moved["sub_mchid"] = str(number)
            self._desk.keep("sub_mchid", str(number), {"business_code": kept["business_code"]})
        self._desk.keep("applyment", kept["business_code"], moved)
        return moved

    def _shown(self, code: str) -> Outcome:
        fault = self._world.faults.take(NAME, "applyment_query", code)
        kept = self._desk.kept("applyment", code)
        if kept is None:
            raise Problem(404, "RESOURCE_NOT_EXISTS", "申请单不存在")
        return spoilt(fault, lambda: Outcome(_public(kept)))

    def _opened(self, body: dict[str, Any], serial: str) -> dict[str, str]:
        """Return what was encrypted for us, or say which field was not."""
        opened = {}
        for pointer in _SEALED:
            opened[pointer] = self._desk.vault.reads(at(body, pointer), serial)
            if not opened[pointer]:
                raise parameter_error(pointer, "", "敏感信息解密失败")
        for pointer in _PICTURES:
            if self._desk.kept("media", at(body, pointer)) is None:
                raise parameter_error(pointer, at(body, pointer), "图片MediaID不存在")
        return opened


def picture_of(body: bytes) -> tuple[str, bytes]:
    """Return an uploaded picture with its digest, or the refusal of what is none."""
    parts = parts_of(body)
    try:
        meta = decode(parts["meta"], type=dict[str, str])
    except (KeyError, ValueError):
        raise parameter_error("/meta", "", "文件元信息缺失") from None
    picture = parts.get("file", b"")
    digest = hashlib.sha256(picture).hexdigest()
    if digest != meta.get("sha256", "").lower():
        raise parameter_error("/meta/sha256", meta.get("sha256", ""), "文件摘要不一致")
    if not 0 < len(picture) <= PICTURE_MAX:
        raise parameter_error("/file", len(picture), "图片大小不能超过2M")
    if not picture.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM")):
        raise parameter_error("/file", meta.get("filename", ""), "图片格式不正确")
    return digest, picture


def parts_of(body: bytes) -> dict[str, bytes]:
    """Return the parts ``meta`` and ``file`` of a multipart body, byte for byte."""
    boundary = body.split(b"\r\n", 1)[0]
    parts = {}
    for part in body.split(b"\r\n" + boundary) if boundary.startswith(b"--") else ():
        head, found, content = part.partition(b"\r\n\r\n")
        name = _PART.search(head)
        if found and name:
            parts[name.group(1).decode()] = content
    return parts


def _public(kept: dict[str, Any]) -> dict[str, Any]:
    state = kept["state"]
    shown: dict[str, Any] = {
        "business_code": kept["business_code"],
        "applyment_id": kept["applyment_id"],
        "applyment_state": f"APPLYMENT_STATE_{state}",
        "applyment_state_msg": _STATES[state],
    }
    if state == "FINISHED":
        shown["sub_mchid"] = kept["sub_mchid"]
    if state in {"AUDITING", "TO_BE_CONFIRMED", "TO_BE_SIGNED"}:
        number = kept["applyment_id"]
        shown["sign_url"] = f"https://pay.weixin.qq.com/public/apply4ec_sign/s?applymentId={number}"
    if state == "REJECTED":
        detail = {
            "field": kept["field"],
            "field_name": "资料",
            "reject_reason": "资料不清晰，请重新上传",
        }
        shown["audit_detail"] = [detail]
    return shown
