"""`tongbao demo`: a payment company in one command, with one trading day played through it."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from contextlib import ExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Final

import click
import msgspec
import pyotp
from rich.console import Console

from tongbao.infra import test_clock
from tongbao.infra.embedded import default_data_dir
from tongbao.infra.settings import Settings
from tongbao.kernel.clock import BUSINESS_ZONE, business_date, monotonic
from tongbao.kernel.ids import show
from tongbao.parties.identity.operators import create_first_operator
from tongbao.surfaces.cli.context import Context, Platform
from tongbao.surfaces.demo.play import play
from tongbao.surfaces.demo.programme import Programme
from tongbao.surfaces.demo.stage import (
    DEMO_FEES,
    account_orders,
    further_orders,
    open_accounts,
    open_shop,
)
from tongbao.surfaces.demo.theatre import Receiver, Sandbox, answers, child, free_port, until
from tongbao_sdk import Tongbao

_OPENS_AT: Final = 9  # Shanghai
_SETTINGS_FILE: Final = "tongbao.toml"


class Login(msgspec.Struct, frozen=True):
    """The demo's operator, kept in the data folder for the next start."""

    login: str
    password: str
    totp_secret: str


class Wishes(msgspec.Struct, frozen=True):
    """What the command line asked for, and when."""

    customers: int
    seed: int
    leave: bool
    began: float


@click.command()
@click.option("--exit", "leave", is_flag=True, help="End after the day instead of serving on.")
@click.option("--customers", default=200, show_default=True, help="How many come.")
@click.option("--seed", default=20261121, show_default=True, help="Another seed, another day.")
@click.option("--port", default=8000, show_default=True, help="Where to serve, if it is free.")
@click.pass_obj
def demo(context: Context, *, leave: bool, customers: int, seed: int, port: int) -> None:
    """Start everything, play a trading day, show that all of it is right, and go on serving."""
    console = Console(highlight=False)
    folder = Path(os.environ.get("TONGBAO_DATA_DIR") or default_data_dir() / "demo").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port(port)
    wishes = Wishes(customers, seed, leave, began=monotonic())
    with ExitStack() as stack:
        command = ["tongbao_sandbox", "--data-dir", str(folder / "sandbox"), "--port", "0"]
        command += ["--parent-pid", str(os.getpid())]
        sandbox = Sandbox(stack.enter_context(child(command)))
        environment = _environment(folder, port, sandbox.url)
        _keep_settings(folder / _SETTINGS_FILE, environment)
        settings = context.settings(**environment)

        async def work(platform: Platform) -> bool:
            return await _whole_day(platform, sandbox, console, environment, wishes)

        right = context.run(work, settings)
    if not right:
        raise SystemExit(1)


def _environment(folder: Path, port: int, sandbox_url: str) -> dict[str, str]:
    return {
        "TONGBAO_DATA_DIR": str(folder),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_TEST_CLOCK": "true",
        "TONGBAO_TEST_CLOCK_SHARED": "true",
        "TONGBAO_SANDBOX_URL": sandbox_url,
        "TONGBAO_SANDBOX_SIGN_UP": "true",
        "TONGBAO_PORT": str(port),
        "TONGBAO_PUBLIC_URL": f"http://127.0.0.1:{port}",
        "TONGBAO_LOG_LEVEL": "warning",
        "TONGBAO_WORKER_CONCURRENCY": "16",
        "TONGBAO_DB_CONNECTIONS_MAX": "20",
    }


def _keep_settings(file: Path, environment: dict[str, str]) -> None:
    """Let other commands be pointed at the demo: ``tongbao --config …``."""
    lines = [
        f"{name.removeprefix('TONGBAO_').lower()} = {msgspec.json.encode(value).decode()}\n"
        for name, value in environment.items()
    ]
    file.write_text("".join(lines), encoding="utf-8")


async def _whole_day(
    platform: Platform,
    sandbox: Sandbox,
    console: Console,
    environment: dict[str, str],
    wishes: Wishes,
) -> bool:
    settings = platform.settings
    login = await _operator(platform)
    await _open_the_day(platform, sandbox)
    orders = account_orders(sandbox.url, sandbox.credentials)
    orders += further_orders(sandbox.url, sandbox.hosts["cards"], sandbox.credentials)
    accounts = await open_accounts(platform.db, platform.keyring, platform.secret_types, orders)
    day = business_date(platform.db.clock.now()).strftime("%Y%m%d")
    shop = await open_shop(
        platform.db,
        platform.keyring,
        settings.licence,
        accounts,
        name=f"通宝示范店 {day}",
        fees=DEMO_FEES,
    )
    log = settings.data_dir / "serve.log"
    receiver = Receiver()
    with child(["tongbao", "serve"], environment, log=log) as server:
        await until(
            lambda: server.poll() is not None or answers(settings.public_url),
            what=f"the server; see {log}",
        )
        if server.poll() is not None:
            raise click.ClickException(f"the server did not start; see {log}")
        client = Tongbao(settings.public_url, key_id=shop.key_id, secret=shop.secret.reveal())
        endpoint = await asyncio.to_thread(client.webhook_endpoints.create, receiver.url)
        receiver.public_keys = endpoint["public_keys"]
        programme = Programme(
            db=platform.db,
            sandbox=sandbox,
            receiver=receiver,
            shop=client,
            merchant_id=show("mch", shop.merchant.id),
            url=settings.public_url,
            day=day,
            console=console,
        )
        waited = monotonic() - wishes.began
        name, url = shop.merchant.name, settings.public_url
        console.print(f"[dim]{name} is open at {url}, {waited:.1f} s after the start[/]")
        following = asyncio.create_task(platform.follow_clock(asyncio.Event()))
        try:
            right = await play(programme, customers=wishes.customers, seed=wishes.seed)
            if not wishes.leave:
                _tell_addresses(console, settings, login)
                await _until_told_to_stop()
        finally:
            following.cancel()
            receiver.close()
    return right


async def _open_the_day(platform: Platform, sandbox: Sandbox) -> None:
    """Move both worlds to nine in the morning of the next day that neither has seen."""
    there = sandbox.control("clock", method="GET")["now"]
    latest = max(datetime.fromisoformat(there), platform.db.clock.now()).astimezone(BUSINESS_ZONE)
    opens = (latest + timedelta(days=1)).replace(hour=_OPENS_AT, minute=0, second=0, microsecond=0)
    ahead = (opens - datetime.fromisoformat(there)).total_seconds()
    sandbox.control("clock", advance_s=ahead)
    await test_clock.advance(platform.db, opens - platform.db.clock.now(), "demo")


async def _operator(platform: Platform) -> Login:
    """Create the demo's operator, or remember the one of an earlier start."""
    kept = platform.settings.data_dir / "operator.json"
    if kept.exists():
        return msgspec.json.decode(kept.read_bytes(), type=Login)
    password = secrets.token_urlsafe(12)
    async with platform.db.begin("demo") as tx:
        made = await create_first_operator(
            tx, platform.keyring, login="demo", name="Demo", password=password
        )
        login = Login("demo", password, made.totp_secret.reveal())
        kept.touch(mode=0o600)
        kept.write_bytes(msgspec.json.encode(login))
    return login


def _tell_addresses(console: Console, settings: Settings, login: Login) -> None:
    code = pyotp.TOTP(login.totp_secret).now()
    console.print(f"\n[bold]Serving until Ctrl-C[/]\n  console  {settings.public_url}/console")
    console.print(f"           login {login.login}, password {login.password}")
    console.print(f"           code {code} now; for an authenticator app: {login.totp_secret}")
    console.print(f"  API      {settings.public_url}/docs")
    console.print(f"  portal   {settings.public_url}/portal, codes at {settings.sandbox_url}/panel")
    console.print(f"  sandbox  {settings.sandbox_url}/panel")
    console.print(f"  commands tongbao --config {settings.data_dir / _SETTINGS_FILE} --help")


async def _until_told_to_stop() -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()
