"""A merchant's user at a browser who opens a wallet on our pages; and wallets made without."""

from __future__ import annotations

from itertools import count
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.infra.signed_client import Reply, call
from tests.parties.card_people import resident_id
from tests.parties.phones import PASSWORD, address, newest_code
from tests.stage import Stage
from tests.surfaces.test_wallet_app import SandboxOffice
from tongbao.kernel.ids import new_id
from tongbao.parties.consents.model import new_secret
from tongbao.parties.people import dossier
from tongbao.parties.user_wallets import applications, sittings
from tongbao.surfaces.user_wallets.api import PAGES
from tongbao_sdk import Tongbao

RETURN = "https://shop.example/wallet"
TERMS = {
    "name": "会员钱包",
    "return_urls": [RETURN],
    "account_class": 3,
    "grants": ["balance", "statement", "propose"],
    "each_max": 50_000,
    "day_max": 80_000,
}
_numbers = count(10_000)


class Visitor:
    """Somebody's browser: keeps cookies, follows our own redirects only."""

    def __init__(self, stage: Stage, phone: str, *, language: str = "en") -> None:
        self.stage, self.phone, self.language = stage, phone, language
        self.office = SandboxOffice(stage)
        self.jar: dict[str, str] = {}

    async def send(
        self, method: str, path: str, fields: dict[str, str] | None = None, **headers: str
    ) -> Reply:
        sent = {"accept-language": self.language, **headers}
        if self.jar:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.jar.items())
        body = b""
        if fields is not None:
            sent["content-type"] = "application/x-www-form-urlencoded"
            body = urlencode(fields).encode()
        reply = await call(self.stage.app, method, path, sent, [body])
        if "set-cookie" in reply.headers:
            name, _, value = reply.headers["set-cookie"].partition(";")[0].partition("=")
            self.jar[name] = value
        if reply.headers.get("location", "").startswith("/"):
            return await self.send("GET", reply.headers["location"])
        return reply

    async def post(self, step: str, **fields: str) -> Reply:
        return await self.send("POST", f"{PAGES}/{step}", fields)

    async def look(self) -> Reply:
        return await self.send("GET", PAGES)

    async def begin(self, link: str) -> Reply:
        """Follow a link and press the button."""
        parts = urlsplit(link)
        page = await self.send("GET", f"{parts.path}?{parts.query}")
        if page.status != 200:
            return page
        return await self.post("begin", link=parse_qs(parts.query)["link"][0])

    async def code(self) -> str:
        await self.office.deliver()
        to = address(self.phone)
        return newest_code([each.text for each in self.office.messages if each.to == to])

    async def prove_phone(self, **agreed: str) -> Reply:
        await self.office.wait()
        page = await self.post("phone", contact=self.phone, **agreed)
        assert page.status == 200, page.body.decode()
        return await self.post("code", code=await self.code())

    async def open(self, link: str, *, name: str = "张三", number: int = 0) -> dict[str, str]:
        """Go through all pages as somebody new; return what the merchant is told in the address."""
        await self.begin(link)
        await self.prove_phone()
        page = await self.post("password", password=PASSWORD)
        if b'name="resident_id"' in page.body:
            identity = resident_id(number or next(_numbers) % 1000)
            page = await self.post("name", name=name, resident_id=identity)
        assert page.status == 200, page.body.decode()
        return told(await self.post("open"))

    async def agree(self, link: str) -> dict[str, str]:
        """Log in, ask for a code and confirm a proposal."""
        await self.begin(link)
        page = await self.post("log_in", contact=self.phone, password=PASSWORD)
        assert page.status == 200, page.body.decode()
        await self.office.wait()
        await self.post("send")
        return told(await self.post("confirm", code=await self.code()))


def told(reply: Reply) -> dict[str, str]:
    """What stands in the address at the merchant's that the browser is sent to."""
    assert reply.status == 303, reply.body.decode()
    parts = urlsplit(reply.headers["location"])
    assert f"{parts.scheme}://{parts.netloc}{parts.path}" == RETURN
    return {name: value for name, [value] in parse_qs(parts.query).items()}


async def wallet_of_user(stage: Stage, client: Tongbao, user_id: str) -> Any:
    """An application whose wallet somebody new has opened, made without the pages."""
    await stage.call(client.wallet_programmes.set, **TERMS)
    made = await stage.call(client.wallet_applications.create, user_id)
    db, person_id = stage.db, new_id()
    await db.fetch(
        "insert into person (id, mode, state, language, real_name_level, failures, created_at)"
        " values ($1, 'sandbox', 'active', 'zh', 3, 0, $2)",
        (person_id, db.clock.now()),
    )
    link = await stage.call(client.wallet_applications.link, made["id"], RETURN)
    secret = parse_qs(urlsplit(link["url"]).query)["link"][0]
    licence = stage.platform.settings.licence
    async with db.begin("test") as tx:
        person = await dossier.person_with_id(tx, person_id)
        sitting = await sittings.sit_down(tx, secret, new_secret(), new_secret())
        assert sitting is not None
        await applications.open_wallet(tx, licence, sitting, person)
    return await stage.call(client.wallet_applications.get, made["id"])
