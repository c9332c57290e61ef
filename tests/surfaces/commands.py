"""Type commands in a test, and read what they say."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import structlog
from click.testing import CliRunner
from msgspec import Struct

from tongbao.__main__ import main
from tongbao_sandbox.launch import RunningSandbox

# What the platform of an earlier test warns of, in this process, while a command has its output.
_LOGGED = re.compile(
    r"^(?:\x1b\[[0-9;]*m)*(?:\d{4}-\d\d-\d\d )?\d\d:\d\d:\d\d.{0,8} \[.*\n", re.MULTILINE
)


class Said(Struct):
    """What a command ended with."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Awaitable[Said]]


@contextmanager
def command_line(environment: dict[str, str]) -> Iterator[Cli]:
    """``await cli("merchant", "list")``: in this process, because starting one costs a second.

    Commands set up the logging of their process, which here is that of all tests, so it is put
    back at the end.
    """
    root = logging.getLogger()
    handlers, level, config = root.handlers[:], root.level, structlog.get_config()

    async def run(*words: str, given: str = "", **more: str) -> Said:
        def invoke() -> Said:
            done = CliRunner().invoke(main, words, input=given, env={**environment, **more})
            if done.exception is not None and not isinstance(done.exception, SystemExit):
                raise done.exception
            return Said(done.exit_code, _LOGGED.sub("", done.stdout), done.stderr)

        return await asyncio.to_thread(invoke)

    try:
        yield run
    finally:
        root.handlers, root.level = handlers, level
        structlog.configure(**config)


def account_file(folder: Path, sandbox: RunningSandbox, **changes: Any) -> Path:
    """A file as the how-to shows it, for the sandbox's WeChat Pay."""
    wechat = sandbox.credentials["wechat"]
    (folder / "apiclient_key.pem").write_text(wechat["merchant_private_key_pem"])
    (folder / "platform.pem").write_text(wechat["platform_certificate_pem"])
    said = {
        "channel": "wechat_pay",
        "mode": "sandbox",
        "gateway": f"{sandbox.url}/wechat",
        "merchant_number": wechat["mchid"],
        "app_id": wechat["appid"],
        "fee_ppm": 6000,
        **changes,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in said.items()]
    keys = [
        "[keys]",
        f'api_v3_key = "{wechat["api_v3_key"]}"',
        f'merchant_serial = "{wechat["merchant_serial"]}"',
        'merchant_private_key_pem_file = "apiclient_key.pem"',
        "[keys.platform_keys]",
        f'{wechat["platform_serial"]} = """\n{wechat["platform_certificate_pem"]}"""',
    ]
    file = folder / "wechat.toml"
    file.write_text("\n".join([*lines, *keys]))
    return file
