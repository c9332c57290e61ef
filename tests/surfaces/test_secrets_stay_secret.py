"""A busy day at the most talkative log level, and then a search for everything that is secret."""

from __future__ import annotations

import io
import json
import logging
import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx2 as httpx
import pytest

from tests.infra.signed_client import Reply, SignedClient
from tests.stage import Stage
from tests.surfaces.everything import pay_by_wallet, something_of_everything
from tests.surfaces.receiver import receiving
from tests.surfaces.visitors import PASSWORD, hire, reader
from tongbao.infra.telemetry import exposition, set_up_logging
from tongbao.kernel.ids import new_id, show

CARD = "4929420573595709"  # Luhn-valid, of a documented test range
CARD_SPELT = "4929 4205 7359 5709"


class Day:
    """What happened, what was said about it, and what must not have been."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.log = io.StringIO()
        self.problems: list[bytes] = []
        self.secrets: dict[str, str] = {}

    def keep(self, name: str, secret: str) -> str:
        self.secrets[name] = secret
        return secret


@pytest.fixture
def log(stage: Stage) -> Iterator[io.StringIO]:
    """Every log line of the process, at debug level, as production writes them."""
    root = logging.getLogger()
    before = (root.handlers[:], root.level)
    stream = io.StringIO()
    set_up_logging("debug", "json", stream)
    yield stream
    root.handlers, root.level = before


async def busy_day(stage: Stage, log: io.StringIO) -> Day:
    """The day itself."""
    day = Day(stage)
    day.log = log
    know_what_is_secret(day)
    await trade(day)
    await blunder(day)
    await operate(day)
    return day


def know_what_is_secret(day: Day) -> None:
    stage = day.stage
    day.keep("API secret", stage.shop.secret.reveal())
    day.keep("bank account", "6222020200112233445")
    day.keep("key of keys", stage.platform.settings.kek_file.read_bytes().decode("latin-1").strip())
    for channel, credentials in stage.sandbox.credentials.items():
        for name, value in credentials.items():
            if "private" in name or name in {"api_v3_key", "token"}:
                for number, line in enumerate(value.splitlines()):
                    if not line.startswith("-----"):
                        day.keep(f"{channel} {name} {number}", line)


async def trade(day: Day) -> None:
    """Everything a shop does, signed by a client whose signatures are noted."""
    stage = day.stage

    def note(request: httpx.Request) -> None:
        signed = request.headers["authorization"]
        day.keep(f"signature {len(day.secrets)}", signed.rpartition("signature=")[2])

    await stage.control("settings", hold_s=1)
    async with receiving() as receiver:
        await something_of_everything(stage, stage.shop, receiver.url)
        with httpx.Client(trust_env=False, event_hooks={"request": [note]}) as http:
            client = stage.client_of(stage.shop, client=http)
            for channel in ("wechat_pay", "alipay"):
                for behaviour in ("pay", "ask", "decline"):
                    code = await stage.code(channel, behaviour)
                    day.keep(f"{channel} code {behaviour}", code)
                    await stage.scan_code(code, client=client)
                paid = await stage.paid(channel, client=client)
                await stage.refund(paid, 500, client=client)
                stage.fault(channel, "pay", "time_out_paid" if channel == "alipay" else "reset")
                day.keep(f"{channel} code lost", code := await stage.code(channel))
                await stage.scan_code(code, client=client)
                stage.fault(channel, "callback", "forged")
                await stage.paid(channel, client=client)
            wallet = await stage.call(client.wallets.open, holder_name="张三丰")
            await stage.call(client.wallets.top_up, wallet["id"], amount=10_000)
            shown = await stage.call(client.wallets.payment_code, wallet["id"])
            day.keep("wallet code", shown["code"])
            await stage.scan_code(shown["code"], client=client)
            await pay_by_wallet(stage, client, wallet["id"])
            for number in range(2):
                endpoint = await stage.call(client.webhook_endpoints.create, receiver.url)
                day.keep(f"webhook secret {number}", endpoint["secret"])
            rotated = await stage.call(client.webhook_endpoints.rotate_key, endpoint["id"])
            day.keep("rotated webhook secret", rotated["secret"])
            rolled = await stage.call(client.api_keys.roll, stage.shop.key_id, overlap_s=86_400)
            day.keep("rolled API secret", rolled["secret"])
            receiver.statuses = [500, 302, 429]
            await stage.advance(days=1)  # retries, expiries, and the payout at noon


async def blunder(day: Day) -> None:
    """Mistakes that put a secret or a card number where none belongs."""
    stage = day.stage
    secret = stage.shop.secret.reveal()
    client = SignedClient(stage.app, stage.shop.key_id, secret)
    order: dict[str, Any] = {
        "merchant_order_no": "A-1",
        "amount": 1999,
        "subject": "tea",
        "method": {"channel": "wechat_pay", "mode": "qr"},
    }
    code = {"mode": "payment_code", "auth_code": CARD}
    for wrong in (
        {**order, "card_number": CARD},
        {**order, CARD: 1},
        {**order, "amount": CARD},
        {**order, "amount": int(CARD) * 1000},
        {**order, "currency": CARD},
        {**order, "method": {"mode": CARD}},
        {**order, "method": {"mode": "qr", "channel": CARD}},
        {**order, "method": code},
        {**order, "method": {**code, "channel": CARD_SPELT}},
        {**order, "merchant_order_no": CARD_SPELT},
        {**order, "metadata": {CARD_SPELT * 3: ""}},
        {**order, "api_secret": secret},
        {**order, "method": {"mode": secret}},
    ):
        note(day, await client.post("/v1/payments", wrong, key=show("req", new_id())))
    for target in (
        f"/v1/payments/{CARD}",
        f"/v1/payments?cursor={CARD}",
        f"/v1/payments?status={CARD}",
        f"/v1/payments?{CARD}=1",
        f"/v1/payments?limit={CARD}",
        f"/v1/payments?api_secret={secret}",
        f"/{CARD}/{secret}",
        f"/callbacks/wechat_pay/{CARD}",
    ):
        note(day, await client.get(target))
    for authorization in (
        f"Bearer {secret}",
        f"TONGBAO-HMAC-SHA256 key={secret},timestamp=1,nonce={'n' * 16},signature=AAAA",
        f"TONGBAO-HMAC-SHA256 key={stage.shop.key_id},timestamp=1,nonce={CARD},signature=AAAA",
    ):
        note(day, await client.get("/v1/payments", authorization=authorization))
    note(day, await client.post("/v1/payments", order, key=f"{CARD}é"))
    for url in (f"https://user:{secret}@shop.example/", f"ftp://shop.example/?card={CARD}"):
        made = await client.post("/v1/webhook_endpoints", {"url": url}, key=show("req", new_id()))
        note(day, made)


def note(day: Day, reply: Reply) -> None:
    assert 400 <= reply.status < 500, reply
    day.problems.append(reply.body)


async def operate(day: Day) -> None:
    """People log in, wrongly and rightly, and look around."""
    person = await hire(day.stage)
    day.keep("password", PASSWORD)
    day.keep("second factor", person.totp.secret)
    async with reader(day.stage) as visitor:
        day.keep("wrong password", wrong := "wrong horse battery staple")
        await visitor.log_in(person, password=wrong)
        await visitor.follow(await visitor.log_in(person))
        day.keep("session", next(iter(visitor.client.cookies.values())))
        await visitor.get("/console/payments")


def found_in(text: str, secrets: dict[str, str]) -> list[str]:
    return sorted(
        {re.sub(r" \d+$", "", name) for name, secret in secrets.items() if secret in text}
    )


async def test_nothing_secret_is_told_or_stored(stage: Stage, log: io.StringIO) -> None:
    day = await busy_day(stage, log)

    lines = day.log.getvalue()
    assert {"http_request", "callback_refused"} <= {
        json.loads(line)["event"] for line in lines.splitlines()
    }
    assert len(day.secrets) > 90
    told = {
        "log": lines,
        "metrics": exposition()[0].decode(),
        "problems": b"\n".join(day.problems).decode(),
        **await every_column(stage),  # the sealed ones must not show it either
    }
    found = {place: [*found_in(text, day.secrets), *cards_in(text)] for place, text in told.items()}
    assert {place: what for place, what in found.items() if what} == {}


async def every_column(stage: Stage) -> dict[str, str]:
    """Everything the database holds, by table and column."""
    columns: dict[str, list[str]] = defaultdict(list)
    tables = await stage.db.fetch("select tablename from pg_tables where schemaname = 'public'", ())
    for (table,) in tables:
        for row in await stage.db.fetch(f"select * from {table}", ()):
            for column, value in row.items():
                columns[f"{table}.{column}"].append(searchable(value))
    assert {"exchange.request", "payout_exchange.request", "inbound_callback.body"} <= set(columns)
    return {name: "\n".join(values) for name, values in columns.items()}


def searchable(value: Any) -> str:
    """The content of a column as text: bytes as the letters they are, JSON with all its values."""
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def cards_in(text: str) -> list[str]:
    """Digits that could be a card number: 13 to 19 of them, as people space them, Luhn-valid."""
    runs = (
        re.sub(r"[ -]", "", run) for run in re.findall(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)", text)
    )
    return [run for run in runs if run == CARD]


def test_the_search_would_find_them() -> None:
    """The search itself is tried on a text that has everything."""
    secrets = {"code 1": "280000000000000001", "key": "line+of/key=="}

    assert found_in('{"auth_code": "280000000000000001"}', secrets) == ["code"]
    assert found_in(searchable(b"\x00line+of/key==\xff"), secrets) == ["key"]
    assert found_in(searchable({"a": ["280000000000000001"]}), secrets) == ["code"]
    assert cards_in(f"paid with {CARD_SPELT}, thanks") == [CARD]
    assert cards_in(f"1{CARD}0000") == []
    assert not found_in(str([new_id(), UUID(int=1), timedelta(1)]), secrets)
