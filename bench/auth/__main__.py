"""What it costs to know who asks: the same route with and without signature, key, once, and limit.

    python -m bench.auth

Requests go straight into the application, in one process, many at a time; that process runs its
loop and its collector of garbage as `serve` does, and PostgreSQL is started as the platform starts
it, with everything durable. Each arm adds one thing to the one before. The arms take turns, a few
hundred requests each. What is counted is processor time, of this process and of the database, per
request; what an arm adds is the middle of what it took more than the bare one in the same turn.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gc
import hashlib
import os
import statistics
import time
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

import uvloop
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from litestar import Response, post
from msgspec import Struct

from bench.auth.database import LICENCE, own_database
from bench.payments import processors
from tongbao.infra.admission.rate_limits import RateLimit
from tongbao.infra.admission.rate_shares import RateLimits
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, Statement
from tongbao.infra.public_keys import read_public_key
from tongbao.infra.serving.app import App
from tongbao.infra.serving.asgi import Receive, Scope, Send
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.infra.web.caller import Caller, needs
from tongbao.infra.web.idempotency import Idempotency, answer_once
from tongbao.infra.web.request import ApiRequest
from tongbao.kernel.clock import real_now
from tongbao.kernel.ids import new_id, show
from tongbao.kernel.licence import Mode
from tongbao.parties.identity.keys import RecentKeys, create_key, roll_key
from tongbao.parties.merchants.merchants import open_merchant

INSERT = Statement("insert into bench_thing (id, amount) values ($1, $2)")
ARMS = ("bare", "signed", "signed, once", "signed, once, limited")
"""Each is the one before with one thing more."""
_COLLECT_EVERY = 100_000  # as `serve` has it


class Make(Struct, frozen=True):
    """What is asked for."""

    amount: int


@post("/v1/plain", opt=needs("payments:write"))
async def plain(data: Make, db: Db, caller: Caller) -> Response[dict[str, str]]:
    """Write one row in a commit."""
    made = new_id()
    async with db.begin(caller.actor) as tx:
        await INSERT.run(tx, made, data.amount)
    return Response({"id": str(made)}, status_code=201)


@post("/v1/once", opt=needs("payments:write", idempotent=True))
async def once(data: Make, request: ApiRequest, db: Db, caller: Caller) -> Response[dict[str, str]]:
    """Write one row in a commit, once for ever."""

    async def fresh(use: Idempotency) -> dict[str, str]:
        made = new_id()
        async with db.begin(caller.actor) as tx:
            await use.take(tx, made)
            await INSERT.run(tx, made, data.amount)
        return {"id": str(made)}

    async def resume(made: UUID) -> dict[str, str]:
        return {"id": str(made)}

    return await answer_once(request, db, fresh=fresh, resume=resume)


class Unsigned(App):
    """The same application for a caller that nobody asks to prove anything."""

    anybody: Caller

    async def _signed_api(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] |= {"caller": self.anybody, "limits": None, "given": self._given}
        await self._api(scope, receive, send)  # type: ignore[arg-type]


class Merchant(Struct):
    """Who sends the requests."""

    key_id: str
    private: Ed25519PrivateKey
    caller: Caller

    def request(self, path: str, number: int) -> tuple[Scope, bytes]:
        """A request with everything on it, whoever looks at it."""
        body = b'{"amount":%d}' % number
        digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
        fields = {
            "@method": "POST",
            "@target-uri": f"http://pay.example{path}",
            "content-digest": f"sha-256=:{digest}:",
            "idempotency-key": f"k{number}{os.urandom(8).hex()}",
        }
        covered = " ".join(f'"{name}"' for name in fields)
        signed_as = (
            f'({covered});created={int(real_now().timestamp())};keyid="{self.key_id}";'
            f'nonce="{os.urandom(16).hex()}";tag="tongbao"'
        )
        base = "\n".join(
            [*(f'"{n}": {v}' for n, v in fields.items()), f'"@signature-params": {signed_as}']
        )
        signature = base64.b64encode(self.private.sign(base.encode())).decode()
        headers = {
            "host": "pay.example",
            "content-type": "application/json",
            "content-digest": fields["content-digest"],
            "idempotency-key": fields["idempotency-key"],
            "signature-input": f"ours={signed_as}",
            "signature": f"ours=:{signature}:",
        }
        return _scope(path, headers), body


class Spent(Struct):
    """Microseconds of a processor per request."""

    ours: float
    database: float


def main() -> None:
    """Run all arms, several times in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--requests", type=int, default=500, help="in each turn of each arm")
    parser.add_argument("--rounds", type=int, default=40, help="turns of each arm")
    parser.add_argument("--together", type=int, default=64, help="requests under way at once")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_bench(parser.parse_args()))


async def _bench(options: argparse.Namespace) -> None:
    async with own_database() as (db, keyring):
        await db.execute("create table bench_thing (id uuid primary key, amount int not null)", ())
        merchant = await _merchant(db, keyring)
        limits = RateLimits(db, RateLimit(1_000_000, 10_000_000))
        arms = _arms(db, RecentKeys(db, keyring), limits, merchant)
        rounds: dict[str, list[Spent]] = {arm: [] for arm in ARMS}
        gc.collect()
        gc.freeze()
        gc.set_threshold(_COLLECT_EVERY, 20, 20)
        for number in range(options.rounds + 1):
            for arm, (app, path) in arms.items():
                spent = await _drive(app, merchant, path, options)
                if number:  # the first one warms up
                    rounds[arm].append(spent)
                gc.collect()  # what was made for the requests is no part of serving them
        _tell(rounds, options)


async def _merchant(db: Db, keyring: Keyring) -> Merchant:
    private = Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    async with db.begin("bench") as tx:
        merchant = await open_merchant(tx, keyring, name="bench", bank_account=None)
        scopes, mode = ["payments:write"], Mode.SANDBOX
        first = await create_key(
            tx,
            keyring,
            merchant.id,
            mode,
            licence=LICENCE,
            name="bench",
            scopes=scopes,
        )
        public = read_public_key(pem.decode())
        key = await roll_key(tx, keyring, first.key, overlap=timedelta(), public_key=public)
    caller = Caller(key.key.id, merchant.id, mode, merchant.book(mode), frozenset(scopes))
    return Merchant(show("key", key.key.id), private, caller)


def _arms(
    db: Db, keys: RecentKeys, limits: RateLimits, merchant: Merchant
) -> Mapping[str, tuple[App, str]]:
    facts = ApiFacts(
        title="bench", version="1", description="", public_url="http://pay.example",
        docs_url="http://pay.example/docs", scopes={"payments:write": ""},
    )  # fmt: skip
    routes = [plain, once]
    unsigned = Unsigned(routes, db=db, keys=keys, facts=facts)
    unsigned.anybody = merchant.caller
    signed = App(routes, db=db, keys=keys, facts=facts)
    limited = App(routes, db=db, keys=keys, facts=facts, limits=limits)
    found = [(unsigned, "/v1/plain"), (signed, "/v1/plain"), (signed, "/v1/once")]
    return dict(zip(ARMS, [*found, (limited, "/v1/once")], strict=True))


async def _drive(app: App, merchant: Merchant, path: str, options: argparse.Namespace) -> Spent:
    """Send requests that were made beforehand, so many at once, and count the processors."""
    requests = [merchant.request(path, number) for number in range(options.requests)]
    server, began = processors.spent(os.getpid()), time.process_time()

    async def one_after_another() -> None:
        while requests:
            scope, body = requests.pop()
            status = await _ask(app, scope, body)
            if status != 201:
                raise RuntimeError(f"{path} answered {status}")

    await asyncio.gather(*[one_after_another() for _ in range(options.together)])
    ours = time.process_time() - began
    database = (processors.spent(os.getpid()) - server)["database"]
    return Spent(ours / options.requests * 1e6, database / options.requests * 1e6)


async def _ask(app: App, scope: Scope, body: bytes) -> int:
    status = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        nonlocal status
        status = message.get("status", status)

    await app(scope, receive, send)
    return status


def _scope(path: str, headers: Mapping[str, str]) -> Scope:
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
        "state": {},
    }


def _tell(rounds: Mapping[str, list[Spent]], options: argparse.Namespace) -> None:
    print(f"{options.requests} requests a turn, {options.together} at once, {options.rounds} turns")
    print()
    print("| the route | µs of this process | added | at best | added | of the database | added |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    bare = rounds[ARMS[0]]
    for arm, spent in rounds.items():
        more = [
            Spent(each.ours - beside.ours, each.database - beside.database)
            for each, beside in zip(spent, bare, strict=True)
        ]
        best = min(each.ours for each in spent)
        figures = [
            statistics.median(each.ours for each in spent),
            statistics.median(each.ours for each in more),
            best,
            best - min(each.ours for each in bare),
            statistics.fmean(each.database for each in spent),
            statistics.fmean(each.database for each in more),
        ]
        print(f"| {arm} |" + "".join(f" {figure:.0f} |" for figure in figures))


if __name__ == "__main__":
    main()
