"""Who applies: firms that were never founded, with numbers that could be, and their pictures."""

from __future__ import annotations

import itertools
from base64 import b64encode
from typing import Any

import msgspec

from tests.infra.signed_client import SignedClient
from tests.kernel.test_document_types import jpeg, png
from tests.stage import Stage, new_number
from tongbao.acts import approvals
from tongbao.controls.approvals.approvals import approve
from tongbao.controls.approvals.model import Approval
from tongbao.kernel.ids import parse
from tongbao.parties.identity.model import Permission
from tongbao.parties.onboarding.applications import ApplicationMoved
from tongbao.parties.onboarding.model import Application
from tongbao.parties.onboarding.openings import OpeningTerms, open_approved, propose_opening
from tongbao.parties.onboarding.queries import application_with_id
from tongbao.payments.registrations import _store as registrations
from tongbao.payments.registrations.model import Registration
from tongbao.payments.registrations.registrations import on_application_moved

MAKER, CHECKER = "opr_maker", "opr_checker"
MAY = frozenset({Permission.ONBOARDING_ACT})
PICTURES = {
    "business_license": png(),
    "legal_id_front": jpeg(),
    "legal_id_back": jpeg(3, 2),
    "store_front": png(3, 3),
    "store_inside": png(4, 3),
}
_serials = itertools.count(1)
_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"


def credit_code() -> str:
    """A unified social credit code that nobody has been given."""
    organisation = f"{next(_serials):08d}"
    weights = (3, 7, 9, 10, 5, 8, 4, 2)
    check = 11 - sum(w * int(d) for w, d in zip(weights, organisation, strict=True)) % 11
    body = f"91330100{organisation}{ {10: 'X', 11: '0'}.get(check, check) }"
    total = sum(_ALPHABET.index(sign) * pow(3, place, 31) for place, sign in enumerate(body))
    return body + _ALPHABET[-total % 31]


def body(**changes: Any) -> dict[str, Any]:
    """What a firm applies with; a change names its part: ``firm={"license_ends": …}``."""
    parts: dict[str, Any] = {
        "firm": {
            "kind": "enterprise",
            "legal_name": "杭州西溪茶叶有限公司",
            "short_name": "西溪茶叶",
            "credit_code": credit_code(),
            "address": "浙江省杭州市西湖区文三路1号",
            "license_begins": "2020-01-01",
        },
        "legal_person": {
            "name": "张三丰",
            "id_number": "11010519491231002X",
            "id_begins": "2020-01-01",
            "id_ends": "2040-01-01",
        },
        "contact": {"name": "张三丰", "phone": "13800001234", "email": "zhang@tea.example"},
        "account": {
            "kind": "corporate",
            "holder": "杭州西溪茶叶有限公司",
            "number": "6222020200112233445",
            "bank": "工商银行",
            "bank_number": "102100099996",
            "area_code": "330100",
        },
        "trade": {
            "mcc": "5812",
            "service_phone": "0571-88886666",
            "store_name": "西溪茶馆",
            "area_code": "330106",
            "address": "文三路1号一层",
        },
        "channels": [{"channel": "wechat_pay", "terms": {"settlement_id": "719"}}],
        "prices": [{"channel": "wechat_pay", "pay_mode": "qr", "rate_ppm": 6000}],
    }
    for name, change in changes.items():
        parts[name] = parts[name] | change if isinstance(change, dict) else change
    return parts


class Applicant:
    """An agent's program, and the operators it waits for."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.db = stage.db
        self.client = SignedClient(stage.app, stage.shop.key_id, stage.shop.secret.reveal())

    async def ask(self, method: str, path: str, said: Any = None, **headers: str) -> Any:
        """Return the answer's status and JSON."""
        raw = b"" if said is None else msgspec.json.encode(said)
        all_headers = {"idempotency-key": new_number(), **headers} if method == "POST" else headers
        if raw:
            all_headers = {"content-type": "application/json", **all_headers}
        reply = await self.client.send(method, path, body=raw, headers=all_headers)
        return reply.status, msgspec.json.decode(reply.body)

    async def apply(self, **changes: Any) -> dict[str, Any]:
        """Return a new draft."""
        said = body(**changes) | {"application_no": new_number()}
        status, made = await self.ask("POST", "/v1/applications", said)
        assert status == 201, made
        return dict(made)

    async def add(self, made: dict[str, Any], kind: str, content: bytes) -> Any:
        path = f"/v1/applications/{made['id']}/documents"
        return await self.ask("POST", path, {"kind": kind, "content": b64encode(content).decode()})

    async def submit(self, made: dict[str, Any]) -> Any:
        return await self.ask("POST", f"/v1/applications/{made['id']}/submit")

    async def submitted(self, **changes: Any) -> dict[str, Any]:
        """Return an application with all its documents, handed in."""
        made = await self.apply(**changes)
        for kind, content in PICTURES.items():
            status, said = await self.add(made, kind, content)
            assert status == 200, said
        status, said = await self.submit(made)
        assert (status, said.get("status")) == (200, "submitted"), said
        return dict(said)

    async def row(self, made: dict[str, Any]) -> Application:
        return await application_with_id(self.db, parse("app", made["id"]))

    async def propose(self, made: dict[str, Any], actor: str = MAKER) -> Approval:
        """One operator proposes to open the merchant, as the application stands."""
        row = await self.row(made)
        async with self.db.begin(actor) as tx:
            return await propose_opening(
                tx, row.id, version=row.version, reason="seen the shop", may=MAY
            )

    async def approve(self, proposed: Approval, actor: str = CHECKER) -> None:
        platform = self.stage.platform
        acts = approvals(platform.flow, platform.clearing).acts
        async with self.db.begin(actor) as tx:
            await approve(tx, acts, proposed.id, digest=proposed.digest.hex(), may=MAY)

    async def opened(self, **changes: Any) -> dict[str, Any]:
        """Return an application whose merchant two operators have opened; channels go on."""
        made = await self.submitted(**changes)
        await self.approve(await self.propose(made))
        await self.stage.platform.worker.run_until_idle(raise_failures=True)
        return await self.read(made)

    async def begun(self, made: dict[str, Any]) -> Registration:
        """Open the merchant and begin its registration, with nobody there to go on with it."""
        platform, row = self.stage.platform, await self.row(made)
        terms = msgspec.json.decode((await self.propose(made)).terms, type=OpeningTerms)
        licence = platform.settings.licence
        async with self.db.begin("test") as tx:
            await open_approved(tx, platform.keyring, licence, terms, row.id)
        event = ApplicationMoved(
            merchant_id=row.merchant_id,
            mode=row.mode,
            resource_id=made["id"],
            application_id=row.id,
            state="opened",
        )
        await on_application_moved(platform.registrar, event, row.id)
        return await self.registration(made)

    async def read(self, made: dict[str, Any]) -> dict[str, Any]:
        status, said = await self.ask("GET", f"/v1/applications/{made['id']}")
        assert status == 200, said
        return dict(said)

    async def registration(self, made: dict[str, Any], channel: str = "wechat_pay") -> Registration:
        row = await self.row(made)
        return await registrations.FIND_REGISTRATION.one(self.db, row.id, channel)
