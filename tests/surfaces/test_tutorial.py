"""The tutorial and the how-tos are run as they stand: commands, programs, what each prints."""

from __future__ import annotations

import asyncio
import contextlib
import io
import re
import shlex
import tomllib
import traceback
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from tests.stage import Stage
from tests.surfaces.commands import Cli, account_file
from tests.surfaces.receiver import receiving
from tongbao.controls.approvals.approvals import approve
from tongbao.controls.approvals.model import ApprovalState
from tongbao.controls.approvals.queries import approval_with_id
from tongbao.infra.settings import load_settings
from tongbao.kernel.ids import parse
from tongbao.surfaces.cli.channels import AccountFile
from tongbao.wiring import SECRETS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
NOT_RUN = {
    "make demo",  # has a test of its own
    'alias tongbao=".venv/bin/tongbao --config .tongbao/demo/tongbao.toml"',
    ".venv/bin/python",
    "tongbao operator create-first",  # asks questions; it has a test too
}
NOT_FOLLOWED = {"toml", "ini", "nginx", "sh"}  # read by other programs, or of processes that stay


class Block(Struct, frozen=True):
    """One fenced block of the page."""

    line: int
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    return [
        Block(text.count("\n", 0, found.start()) + 2, found[1], found[2])
        for found in re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    ]


@pytest.fixture
def environment(stage: Stage, dsn: str) -> dict[str, str]:
    """What the demo writes into its settings file, for the stage."""
    settings = stage.platform.settings
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(settings.data_dir),
        "TONGBAO_LICENCE": settings.licence,
        "TONGBAO_TEST_CLOCK": "true",
        "TONGBAO_SANDBOX_URL": str(settings.sandbox_url),
        "TONGBAO_PUBLIC_URL": settings.public_url,
        "TONGBAO_LOG_LEVEL": "warning",
    }


class Reader:
    """Somebody who follows the page: types, pastes, and puts in what they were shown."""

    def __init__(self, stage: Stage, cli: Cli, **session: Any) -> None:
        self.stage = stage
        self.cli = cli
        self.shown = ""
        self.files: dict[str, Path] = {}  # as the page calls them
        self.session = {"__name__": "__main__", **session}

    async def type(self, line: str) -> None:
        if line in NOT_RUN or line.startswith("tongbao approvals approve "):
            return  # somebody else approves, as soon as it is proposed
        command, _, remark = line.partition("  # ")
        words = [str(self.files.get(each, each)) for each in shlex.split(command)]
        words = [self.filled_in(each, remark) for each in words]
        assert words[0] == "tongbao", command
        said = await self.cli(*words[1:])
        assert said.code == 0, f"{command}: {said.err}"
        self.shown += said.out
        for shown in re.findall(r"\bapv_\w{26}\b", said.out):
            await self.approved(shown)

    async def approved(self, proposal: str) -> None:
        """Let another person approve what was just proposed, as the page says."""
        acts, db = self.stage.platform.approvals.acts, self.stage.db
        asked = await approval_with_id(db, parse("apv", proposal))
        if asked.state is ApprovalState.PROPOSED:
            async with db.begin("cli:another") as tx:
                may = {acts[asked.act].act.checker}
                await approve(tx, acts, asked.id, digest=asked.digest.hex(), may=may)
            await self.stage.platform.worker.run_until_idle(raise_failures=True)

    def filled_in(self, command: str, remark: str) -> str:
        """Put in the ids that earlier commands printed; a remark says which of several."""
        for prefix in ("mch", "chn", "apv"):
            if f"{prefix}_…" in command:
                channel = re.search(r"the one of (\w+)", remark)
                after = rf".*channel={channel[1]} " if channel and prefix == "chn" else ""
                found = re.findall(rf"\b({prefix}_\w{{26}})\b{after}", self.shown)
                command = command.replace(f"{prefix}_…", found[-1])
        return command

    async def paste(self, block: Block) -> str:
        text = block.text.replace("http://127.0.0.1:8000", self.stage.url)
        text = text.replace("http://127.0.0.1:40000", self.stage.sandbox.url)
        for placeholder, shown in (("key_…", r"key=(\S+)"), ("sk_sandbox_…", r"secret=(\S+)")):
            if placeholder in text:
                text = text.replace(placeholder, re.findall(shown, self.shown)[-1])
        return await asyncio.to_thread(self.execute, "\n" * (block.line - 1) + text)

    def execute(self, text: str) -> str:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(text, "page", "exec"), self.session)
        return printed.getvalue()


async def follow(page: Path, reader: Reader) -> int:
    """Run every block in order and compare what it prints with the page."""
    printed, count = "", 0
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        match block.language:
            case "console":
                for command in block.text.splitlines():
                    await reader.type(command)
            case "python":
                assert printed == "", f"{where}: the page does not show what is printed before"
                try:
                    printed = await reader.paste(block)
                except Exception:  # noqa: BLE001 - whatever the page's reader would see
                    pytest.fail(f"{where}\n{traceback.format_exc()}", pytrace=False)
            case "text":
                assert printed == block.text, where
                printed = ""
            case other:
                assert other in NOT_FOLLOWED, f"{where}: nobody runs {other}"
        count += 1
    assert printed == ""
    return count


async def test_the_tutorial_works_as_it_is_written(stage: Stage, cli: Cli) -> None:
    stop = asyncio.Event()
    working = asyncio.create_task(stage.platform.worker.run(stop))
    try:
        reader = Reader(stage, cli)
        assert await follow(DOCS / "tutorial" / "first-payment.md", reader) > 25
    finally:
        stop.set()
        await working


async def test_a_merchant_is_connected_as_the_how_to_says(
    stage: Stage, cli: Cli, tmp_path: Path
) -> None:
    reader = Reader(stage, cli)
    reader.files["wechat.toml"] = account_file(tmp_path, stage.sandbox, app_id="wx_of_the_how_to")

    await follow(DOCS / "how-to" / "connect-a-merchant.md", reader)

    assert "channel=wechat_pay" in reader.shown
    assert "secret=sk_live_" in reader.shown


def test_the_account_files_of_the_how_to_have_the_fields_there_are() -> None:
    files = [each for each in blocks(DOCS / "how-to" / "connect-a-merchant.md") if toml(each)]

    assert {each["channel"] for each in map(toml, files)} == {"wechat_pay", "alipay"}
    for said in map(toml, files):
        account = msgspec.convert(said, AccountFile)
        wanted = SECRETS[account.channel].__struct_fields__
        assert {name.removesuffix("_file") for name in account.keys} <= set(wanted)
        assert account.gateway.startswith("https://")


def toml(block: Block) -> dict[str, Any]:
    return tomllib.loads(block.text) if block.language == "toml" else {}


async def test_webhooks_are_verified_as_the_how_to_says(stage: Stage, cli: Cli) -> None:
    async with receiving() as receiver:
        endpoint = await stage.call(stage.client.webhook_endpoints.create, receiver.url)
        reader = Reader(stage, cli, shop=stage.client, endpoint=endpoint)
        await follow(DOCS / "how-to" / "verify-a-webhook.md", reader)
        await stage.idle()
    [got] = receiver.received
    public_key = endpoint["public_keys"][0]

    by_hand, take = reader.session["is_genuine"], reader.session["take"]
    assert by_hand(got.headers, got.body, endpoint["secret"])
    assert not by_hand(got.headers, got.body + b" ", endpoint["secret"])
    reader.session["PUBLIC_KEYS"][:] = [public_key]
    status, event = take(got.headers, got.body, set())
    assert (status, event["type"]) == (204, "webhook.test")
    assert take(got.headers, got.body, {event["id"]}) == (204, None)
    assert take(got.headers, got.body + b" ", set()) == (401, None)


async def test_production_is_looked_after_as_the_how_to_says(
    stage: Stage, cli: Cli, tmp_path: Path
) -> None:
    page = DOCS / "how-to" / "run-in-production.md"

    await follow(page, Reader(stage, cli))

    [settings] = [each for each in blocks(page) if each.language == "toml"]
    (tmp_path / "settings.toml").write_text(settings.text)
    assert load_settings({}, tmp_path / "settings.toml").licence.may_hold_funds
    known = (DOCS / "reference" / "metrics.md").read_text("utf-8")
    for name in re.findall(r"`(tongbao_\w+)`", page.read_text("utf-8")):
        assert f"`{name.removesuffix('_total')}`" in known, name
