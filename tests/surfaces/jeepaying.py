"""A merchant's program written for jeepay: it signs, calls and hears as that contract says.

The signature is written anew from the published rule (docs.jeequan.com/docs/jeepay/api_rule), in
its own words: fields that are not empty, in the order of their names' ASCII codes, joined by ``&``
as ``name=value``, then ``&key=`` and the secret, MD5, upper case. No code of ours has a part in it.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, urlsplit, urlunsplit
from uuid import uuid4

import httpx2 as httpx

from tests.payments.invariants import assert_money_is_conserved
from tests.sandbox.inbox import Inbox
from tests.stage import Stage, new_number, staged
from tongbao.infra import db as database
from tongbao.kernel.clock import Clock, real_now
from tongbao.kernel.licence import Mode
from tongbao.surfaces.demo.stage import Shop
from tongbao.surfaces.jeepay.apps import enable
from tongbao_sandbox.launch import RunningSandbox


def sign(fields: dict[str, Any], key: str) -> str:
    """The published rule."""
    meant = {
        name: str(value)
        for name, value in fields.items()
        if value is not None and value != "" and name != "sign"
    }
    joined = "&".join(f"{name}={meant[name]}" for name in sorted(meant))
    return hashlib.md5(f"{joined}&key={key}".encode()).hexdigest().upper()


def now_ms() -> int:
    return int(real_now().timestamp() * 1000)


class Said(NamedTuple):
    """An answer: its HTTP status, and its envelope."""

    http: int
    code: int
    msg: str
    data: dict[str, Any]
    sign: str | None


class Program:
    """Calls the façade at its usual paths."""

    def __init__(self, http: httpx.AsyncClient, mch_no: str, app_id: str, key: str) -> None:
        self._http = http
        self.mch_no = mch_no
        self.app_id = app_id
        self.key = key

    def signed(self, fields: dict[str, Any]) -> dict[str, Any]:
        """The fields with those that every call has, and the signature."""
        whole = {
            "mchNo": self.mch_no,
            "appId": self.app_id,
            "reqTime": str(now_ms()),
            "version": "1.0",
            "signType": "MD5",
            **fields,
        }
        return {**whole, "sign": sign(whole, self.key)}

    async def call(self, path: str, **fields: Any) -> Said:
        """Call as the Java SDK does, with JSON, and check the answer's signature."""
        return self.heard(await self._http.post(f"/api/{path}", json=self.signed(fields)))

    async def post(self, path: str, **how: Any) -> httpx.Response:
        """Post something by hand."""
        return await self._http.post(f"/api/{path}", **how)

    async def get(self, path: str) -> httpx.Response:
        return await self._http.get(path)

    def heard(self, reply: httpx.Response) -> Said:
        envelope = reply.json()
        data = envelope.get("data") or {}
        if envelope["code"] == 0:
            assert envelope["sign"] == sign(data, self.key)
        return Said(
            reply.status_code, envelope["code"], envelope["msg"], data, envelope.get("sign")
        )

    async def order(self, way: str, amount: int = 1999, **more: Any) -> Said:
        """Ask for an order."""
        fields = {
            "mchOrderNo": new_number(),
            "wayCode": way,
            "amount": amount,
            "currency": "cny",
            "subject": "两杯茶",
            "body": "two cups of tea",
            **more,
        }
        return await self.call("pay/unifiedOrder", **fields)

    async def state(self, order: dict[str, Any]) -> int:
        """Return the state a query says an order has."""
        said = await self.call("pay/query", payOrderId=order["payOrderId"])
        assert said.code == 0, said
        return int(said.data["state"])

    async def refund(self, order: dict[str, Any], amount: int, **more: Any) -> Said:
        """Ask for a refund."""
        fields = {
            "payOrderId": order["payOrderId"],
            "mchRefundNo": new_number(),
            "refundAmount": amount,
            "currency": "cny",
            "refundReason": "returned",
            **more,
        }
        return await self.call("refund/refundOrder", **fields)

    async def refund_state(self, refund: dict[str, Any]) -> int:
        said = await self.call("refund/query", refundOrderId=refund["refundOrderId"])
        assert said.code == 0, said
        return int(said.data["state"])


def payment_of(order: dict[str, Any]) -> dict[str, Any]:
    """An order as the stage knows payments."""
    return {"id": order["payOrderId"], "object": "payment"}


@asynccontextmanager
async def program_of(
    stage: Stage, shop: Shop | None = None, **names: Any
) -> AsyncIterator[Program]:
    """A program of a shop that was let in."""
    merchant = (shop or stage.shop).merchant
    async with stage.db.begin("tests") as tx:
        made = await enable(tx, stage.platform.keyring, merchant.id, Mode.SANDBOX, **names)
    async with httpx.AsyncClient(base_url=stage.url, timeout=30) as http:
        yield Program(http, made.app.mch_no, made.app.app_id, made.secret.reveal())


@asynccontextmanager
async def platform_with_facade(
    server: Any, admin: Any, template: str, folder: Path, sandbox: RunningSandbox
) -> AsyncIterator[Stage]:
    """A platform on a database of its own, for a whole module."""
    name = f"test_{uuid4().hex}"
    await admin.execute(f"create database {name} template {template} strategy file_copy")
    on = await database.connect(urlunsplit(urlsplit(server.dsn)._replace(path=f"/{name}")), Clock())
    async with staged(on, folder, sandbox, jeepay_facade=True) as ready:
        yield ready
        await assert_money_is_conserved(on)
    on.pool.terminate()
    await admin.execute(f"drop database {name} with (force)")


class Ear(Inbox):
    """A merchant's server at a notify URL: says success, or first what the test tells it to."""

    def __init__(self) -> None:
        super().__init__()
        self.otherwise = (200, b"success")

    @property
    def bodies(self) -> list[bytes]:
        """What came, as it came."""
        return [letter.body for letter in self.letters]

    @property
    def queries(self) -> list[str]:
        """What stood behind the addresses it came to."""
        return [urlsplit(letter.path).query for letter in self.letters]

    @property
    def heard(self) -> list[dict[str, str]]:
        """The fields, wherever they stood."""
        told = zip(self.bodies, self.queries, strict=True)
        return [dict(parse_qsl(body.decode() or query)) for body, query in told]
