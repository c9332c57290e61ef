"""The command line: what whoever runs the machine types, and what comes back."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import sleep
from typing import Any

import click
import pytest

from tests.surfaces.commands import Cli, account_file
from tongbao.__main__ import main
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.settings import default_socket_dir
from tongbao.infra.tasks import Task, enqueue
from tongbao.kernel.ids import parse
from tongbao.parties.identity.keys import KeysOnRecord
from tongbao_sandbox.launch import RunningSandbox

SLOW_S = 60


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
    }


# Taking a merchant on


async def test_a_merchant_is_taken_on_and_its_key_works(
    cli: Cli, db: Db, environment: dict[str, str], tmp_path: Path, sandbox: RunningSandbox
) -> None:
    opened = await cli(
        *("--json", "merchant", "open", "--name", "街角书店"),
        *("--bank-holder", "街角书店", "--bank-number", "6222020200112233445"),
    )
    merchant = opened.json["merchant"]
    assert opened.json["bank_account"] == "•••• 3445"
    added = await cli("--json", "channel", "add", str(account_file(tmp_path, sandbox)))
    account = added.json["account"]
    assert added.json["notify_url"].startswith("http://127.0.0.1:8000/callbacks/wechat_pay/")
    priced = await cli(
        *("merchant", "prices", merchant, "--line", "wechat_pay", "qr", "8000"),
        *("--line", "wechat_pay", "payment_code", "7000"),
    )
    assert priced.code == 0, priced.err
    connected = await cli("--json", "merchant", "connect", merchant, account)
    assert connected.json["channel"] == "wechat_pay"
    made = await cli("--json", "key", "create", merchant, "--name", "till")

    keyring = Keyring.from_file(Path(environment["TONGBAO_DATA_DIR"]) / "kek")
    key = await KeysOnRecord(db, keyring).find(parse("key", made.json["key"]))
    assert key is not None
    assert key.secret.reveal() == made.json["secret"]
    assert "payments:write" in key.caller.scopes
    listed = await cli("--json", "merchant", "list")
    assert [each["merchant"] for each in listed.json] == [merchant]
    accounts = await cli("channel", "list")
    assert account in accounts.out
    assert "key" not in accounts.out.lower().replace("key_", "")

    stopped = await cli("--json", "merchant", "suspend", merchant, "--because", "no answer")
    assert stopped.json["state"] == "suspended"
    again = await cli("--json", "merchant", "reinstate", merchant, "--because", "they called")
    assert again.json["approval"].startswith("apv_")
    rows = await db.fetch("select distinct actor from audit_entry where action like 'merch%'", ())
    assert [row["actor"].startswith("cli:") for row in rows] == [True]


async def test_a_merchant_and_its_keys_get_limits_of_their_own(cli: Cli) -> None:
    merchant = (await cli("--json", "merchant", "open", "--name", "店")).json["merchant"]
    units = ("--units-per-s", "50", "--burst", "100", "--units-per-day", "10000")
    told = await cli("--json", "merchant", "rate-limit", merchant, *units)
    assert told.json == {
        "merchant": merchant,
        "mode": "sandbox",
        "key": None,
        "units_per_s": 50,
        "burst": 100,
        "units_per_day": 10000,
    }
    made = await cli("--json", "key", "create", merchant, "--scope", "payments:read")
    of_key = await cli(
        "--json", "merchant", "rate-limit", merchant, "--key", made.json["key"], *units
    )
    assert of_key.json["key"] == made.json["key"]
    other = (await cli("--json", "merchant", "open", "--name", "另店")).json["merchant"]
    refused = await cli("merchant", "rate-limit", other, "--key", made.json["key"], *units)
    assert "api_key.not_found" in refused.err


async def test_a_key_may_be_given_less_and_more_and_be_ended(cli: Cli) -> None:
    merchant = (await cli("--json", "merchant", "open", "--name", "店")).json["merchant"]

    made = await cli("--json", "key", "create", merchant, "--scope", "payments:read")
    refused = await cli("key", "create", merchant, "--scope", "everything")
    more = await cli("key", "scopes", made.json["key"], "--scope", "events:read")
    ended = await cli("key", "revoke", made.json["key"])

    assert made.json["secret"].startswith("sk_sandbox_")
    assert refused.code == 1
    assert "api_key.scope_unknown" in refused.err
    assert "state=active  scopes=events:read" in more.out
    assert "state=revoked" in ended.out


async def test_a_live_key_waits_for_a_second_person(cli: Cli) -> None:
    merchant = (await cli("--json", "merchant", "open", "--name", "店")).json["merchant"]

    asked = await cli("--json", "key", "create", merchant, "--mode", "live")
    repeated = await cli("key", "create", merchant, "--mode", "live")
    early = await cli("key", "collect", asked.json["approval"])

    assert (asked.json["act"], asked.json["state"]) == ("api_key.create", "proposed")
    assert "sk_live" not in asked.out
    assert "approval.waiting" in repeated.err
    assert "api_key.not_made_yet" in early.err


async def test_a_live_channel_account_waits_for_a_second_person(
    cli: Cli, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    live = {"mode": "live", "gateway": "https://api.mch.weixin.qq.com"}
    file = str(account_file(tmp_path, sandbox, **live))

    asked = await cli("--json", "channel", "add", file)
    marks = await cli("--json", "channel", "fingerprints", file)
    shown = await cli("approvals", "show", asked.json["approval"])

    assert (asked.json["act"], asked.json["state"]) == ("channel_account.add", "proposed")
    assert marks.json["api_v3_key"] in shown.out
    assert (await cli("--json", "channel", "list")).json == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("merchant", "connect", "mch_x", "chn_x"), "id.unknown"),
        (("merchant", "suspend", "mch_" + "0" * 26, "--because", "x"), "merchant.not_found"),
        (
            ("merchant", "open", "--name", "x", "--bank-holder", "x"),
            "merchant.bank_account_incompl",
        ),
        (("key", "create", "mch_" + "0" * 26), "merchant.not_found"),
        (("tasks", "replay", "tsk_" + "0" * 26), "task.dead_letter_unknown"),
        (("tasks", "discard", "x", "--because", "y"), "id.unknown"),
    ],
)
async def test_a_refusal_is_one_line_with_its_code(
    cli: Cli, words: tuple[str, ...], code: str
) -> None:
    said = await cli(*words)

    assert said.code == 1
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert code in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("fee_ppm", "fee"),
        lambda text: text.replace("6000", '"0.6%"'),
        lambda text: text.replace("apiclient_key.pem", "not_there.pem"),
        lambda text: text + "\n[",
        lambda text: text.replace("[keys]", "[secrets]"),
    ],
)
async def test_a_spoilt_account_file_is_refused_without_repeating_it(
    cli: Cli, db: Db, tmp_path: Path, sandbox: RunningSandbox, spoil: Callable[[str], str]
) -> None:
    file = account_file(tmp_path, sandbox)
    file.write_text(spoil(file.read_text()))

    said = await cli("channel", "add", str(file))

    assert said.code == 1
    assert "channel_account.file_malformed" in said.err
    assert sandbox.credentials["wechat"]["api_v3_key"] not in said.err
    assert await db.fetch("select 1 from channel_account", ()) == []


# Looking after it


async def test_settings_are_shown_without_secrets(cli: Cli, dsn: str) -> None:
    said = await cli("--json", "settings")

    assert said.json["dsn"] == "********"
    assert said.json["licence"] == "payment_institution"
    assert dsn not in (await cli("settings")).out
    wrong = await cli("settings", TONGBAO_PROT="1")
    assert (wrong.code, "nearest=TONGBAO_PORT" in wrong.err) == (1, True)


async def test_migrating_again_changes_nothing(cli: Cli) -> None:
    first, second = await cli("--json", "migrate"), await cli("--json", "migrate")

    assert first.json == second.json
    assert first.json["licence"] == "payment_institution"


async def test_the_wrong_licence_is_refused(cli: Cli) -> None:
    said = await cli("migrate", TONGBAO_LICENCE="aggregator")

    assert said.code == 1
    assert "licence" in said.err


class Doomed(Task, frozen=True, tag="tests.doomed"):
    """A task nobody does."""

    because: str


async def bury(db: Db, because: str) -> None:
    async with db.begin("tests") as tx:
        await enqueue(tx, Doomed(because))
        await tx.execute(
            "with gone as (delete from task returning id, type, args, key, attempt)"
            " insert into dead_letter (id, type, args, key, attempts, reason, died_at)"
            " select id, type, args, key, 15, 'Traceback' || chr(10) || 'ValueError: no', $1"
            " from gone",
            (tx.now,),
        )


async def test_dead_tasks_are_listed_and_tried_again(cli: Cli, db: Db) -> None:
    await cli("migrate")
    await bury(db, "one")
    await bury(db, "two")

    listed = await cli("--json", "tasks", "dead")
    assert [each["args"] for each in listed.json] == [{"because": "two"}, {"because": "one"}]
    assert listed.json[0]["reason"] == "ValueError: no"
    two, one = [each["task"] for each in listed.json]
    assert (await cli("tasks", "replay", one)).code == 0
    assert (await cli("tasks", "discard", two, "--because", "sent by hand")).code == 0

    assert (await cli("--json", "tasks", "dead")).json == []
    assert (await cli("--json", "tasks", "dead", "--type", "tests.other")).json == []
    [row] = await db.fetch("select type, args from task where type = 'tests.doomed'", ())
    assert row["args"] == {"because": "one"}


async def doctor(cli: Cli) -> dict[str, str]:
    said = await cli("--json", "doctor")
    troubles = {each["part"]: each["trouble"] for each in said.json if each["trouble"]}
    assert said.code == (1 if troubles else 0)
    return troubles


async def test_the_doctor_finds_what_is_broken(
    cli: Cli, db: Db, tmp_path: Path, sandbox: RunningSandbox
) -> None:
    assert await doctor(cli) == {}
    assert "ledger    ok" in (await cli("doctor")).out

    await cli("channel", "add", str(account_file(tmp_path, sandbox)))
    (tmp_path / "kek").chmod(0o644)
    [(part, trouble)] = (await doctor(cli)).items()
    assert part == "start"
    assert "others may read it" in trouble
    (tmp_path / "kek").chmod(0o600)

    await bury(db, "lost")
    assert await doctor(cli) == {"tasks": "1 dead letters"}
    await db.execute("delete from dead_letter", ())

    await db.execute("update ledger_book set last_seq = last_seq + 1 where book = 1", ())
    assert list(await doctor(cli)) == ["ledger"]
    await db.execute("update ledger_book set last_seq = last_seq - 1 where book = 1", ())

    (tmp_path / "kek").unlink()
    [(part, trouble)] = (await doctor(cli)).items()
    assert part == "channels"
    assert "cannot be opened" in trouble


@pytest.mark.parametrize(
    "dsn",
    ["postgresql://127.0.0.1:1/none", "postgresql://u:hunter2@/none?host=/nowhere", "hunter2://"],
)
async def test_a_database_that_is_not_there_is_told_in_one_line(cli: Cli, dsn: str) -> None:
    said = await cli("migrate", TONGBAO_DSN=dsn)

    assert said.code == 1
    assert said.err.count("\n") == 1
    assert "service.database_unavailable" in said.err
    assert "hunter2" not in said.err
    examined = await cli("--json", "doctor", TONGBAO_DSN=dsn)
    assert [each["part"] for each in examined.json if each["trouble"]] == ["start"]


async def test_the_ledger_is_verified_and_a_breach_is_named(cli: Cli, db: Db) -> None:
    sound = await cli("--json", "ledger", "verify")
    assert sound.code == 0
    assert {each["breaches"] for each in sound.json} == {0}
    assert {each["book"] for each in sound.json} == {1, 2}

    await db.execute("update ledger_book set last_seq = last_seq + 1 where book = 2", ())
    broken = await cli("--json", "ledger", "verify")
    assert broken.code == 1
    assert {each["book"] for each in broken.json if each["breaches"]} == {2}
    assert [each["first"] for each in broken.json if each["breaches"]] != [""]
    assert (await cli("ledger", "verify", "--book", "1")).code == 0


async def test_the_first_operator_is_made_once(cli: Cli, db: Db) -> None:
    answers = "chen.yu\n陈羽\ncorrect horse battery\ncorrect horse battery\n"

    made = await cli("operator", "create-first", given=answers)
    again = await cli("operator", "create-first", given=answers.replace("chen.yu", "li.na"))

    assert made.code == 0, made.err
    assert "otpauth://totp/" in made.out
    assert "correct horse" not in made.out
    assert again.code == 1
    assert "operator.not_the_first" in again.err
    [row] = await db.fetch("select login, name, role from operator", ())
    assert tuple(row) == ("chen.yu", "陈羽", "admin")


# Serving


def start(environment: dict[str, str], *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tongbao", *words],
        env={**os.environ, **environment, "TONGBAO_LOG_LEVEL": "info"},
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_until_started(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{") and json.loads(line)["event"] == "started":
            said: dict[str, Any] = json.loads(line)
            return said
    raise AssertionError(f"it ended with {process.wait()}")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_told_to_stop_and_ends_cleanly(
    environment: dict[str, str], number: signal.Signals
) -> None:
    """An open connection does not hold it up, and the last line says that it stopped."""
    process = start({**environment, "TONGBAO_PORT": "0"}, "serve")
    try:
        started = wait_until_started(process)
        assert started["roles"] == ["api", "worker", "poster"]
        with socket.create_connection(("127.0.0.1", started["port"])) as idle:
            idle.sendall(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert idle.recv(4096).startswith(b"HTTP/1.1 200")
            process.send_signal(number)
            _, rest = process.communicate(timeout=SLOW_S)
    finally:
        process.kill()

    assert process.returncode == 0, rest
    assert json.loads(rest.splitlines()[-1])["event"] == "stopped"
    assert '"level":"error"' not in rest


def test_a_request_that_is_under_way_is_answered_first(environment: dict[str, str]) -> None:
    process = start({**environment, "TONGBAO_PORT": "0"}, "serve")
    try:
        port = wait_until_started(process)["port"]
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.settimeout(SLOW_S)
            slow.sendall(b"POST /v1/payments HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{")
            wait_until_read(port)
            process.terminate()
            wait_until_closed(port)
            slow.sendall(b"}")
            answer = slow.recv(65_536)
        _, rest = process.communicate(timeout=SLOW_S)
    finally:
        process.kill()

    assert answer.startswith(b"HTTP/1.1 401")
    assert process.returncode == 0, rest


def wait_until_read(port: int) -> None:
    """A later request is answered, so the one before it was read."""
    with socket.create_connection(("127.0.0.1", port)) as other:
        other.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        assert other.recv(65_536).startswith(b"HTTP/1.1 200")


def wait_until_closed(port: int) -> None:
    """Nobody new is let in."""
    for _ in range(SLOW_S * 20):
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            return
        sleep(0.05)
    raise TimeoutError("the server still takes connections")


def test_a_worker_alone_needs_no_port(environment: dict[str, str]) -> None:
    process = start({**environment, "TONGBAO_PORT": "1"}, "serve", "--role", "worker")
    try:
        started = wait_until_started(process)
        process.terminate()
        _, rest = process.communicate(timeout=SLOW_S)
    finally:
        process.kill()

    assert (started["roles"], started["port"]) == (["worker"], None)
    assert process.returncode == 0, rest


async def test_a_poster_keeps_the_books_for_the_other_roles(
    db: Db, environment: dict[str, str], tmp_path: Path
) -> None:
    async def holders() -> set[str]:
        return {row["holder"] for row in await db.fetch("select holder from ledger_book", ())}

    both = ("--role", "api", "--role", "worker")
    others = start({**environment, "TONGBAO_PORT": "0"}, "serve", *both)
    poster = start(environment, "serve", "--role", "poster")
    try:
        assert wait_until_started(others)["roles"] == ["api", "worker"]
        assert wait_until_started(poster)["roles"] == ["poster"]
        for _ in range(SLOW_S * 20):
            if "" not in await holders():
                break
            await asyncio.sleep(0.05)
        [address] = await holders()
        assert Path(address).parent == default_socket_dir(tmp_path)
        for process in (poster, others):
            process.terminate()
            _, rest = process.communicate(timeout=SLOW_S)
            assert process.returncode == 0, rest
            assert '"level":"error"' not in rest
    finally:
        poster.kill()
        others.kill()
    assert await holders() == {address}  # whoever may not keep a book does not, and nobody is there
    assert not Path(address).exists()


def test_a_port_that_is_taken_is_told_before_anything_is_done(
    environment: dict[str, str],
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        nowhere = {"TONGBAO_PORT": str(port), "TONGBAO_DSN": "postgresql://127.0.0.1:1/none"}
        process = start({**environment, **nowhere}, "serve")
        _, said = process.communicate(timeout=SLOW_S)

    assert process.returncode == 1
    assert "serve.address_not_free" in said
    assert f"port={port}" in said
    assert "Traceback" not in said


def test_the_module_and_the_script_are_one_program(environment: dict[str, str]) -> None:
    said = subprocess.run(
        [sys.executable, "-m", "tongbao", "--version"],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )

    assert said.stdout.startswith("tongbao, version ")


# Its page


def commands(
    group: click.Group, words: tuple[str, ...] = ()
) -> Iterator[tuple[str, click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*words, name))
        yield " ".join((*words, name)), command


def test_every_command_and_option_says_what_it_is() -> None:
    silent = [
        f"{name} {parameter.opts[0]}"
        for name, command in commands(main)
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]

    assert silent == []
    assert [name for name, command in commands(main) if not (command.help or "").strip()] == []


def test_every_command_and_option_is_on_its_page() -> None:
    page = (Path(__file__).parents[2] / "docs" / "reference" / "cli.md").read_text("utf-8")
    sections = {part.partition("`")[0]: part for part in page.split("\n## `tongbao ")[1:]}

    assert set(sections) == {name for name, _ in commands(main)}
    for name, command in commands(main):
        for parameter in command.params:
            is_option = isinstance(parameter, click.Option)
            shown = f"`{parameter.opts[0]}" if is_option else f" {str(parameter.name).upper()}"
            assert shown in sections[name], f"{name} {shown}"
