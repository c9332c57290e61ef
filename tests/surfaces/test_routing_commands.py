"""Routing from the command line: check, draw up, put in force, replay, explain."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.stage import Stage, new_number
from tests.surfaces.commands import Cli
from tongbao.kernel.clock import BUSINESS_ZONE
from tongbao.kernel.ids import new_id, show

MAKER, CHECKER = {"LOGNAME": "maker"}, {"LOGNAME": "checker"}
RULES = """
name = "autumn"
mode = "sandbox"

[terms]
explore_ppm = 0

[[rule]]
name = "small"
when = { amount_below = 2000 }
to = ["alipay"]

[[rule]]
name = "the rest"
to = ["wechat_pay"]

[[limit]]
to = "alipay"
day_count = 2
"""


@pytest.fixture
def environment(dsn: str, tmp_path: Path) -> dict[str, str]:
    return {
        "TONGBAO_DSN": dsn,
        "TONGBAO_DATA_DIR": str(tmp_path / "cli"),
        "TONGBAO_KEK_FILE": str(tmp_path / "kek"),
        "TONGBAO_LICENCE": "payment_institution",
        "TONGBAO_LOG_LEVEL": "warning",
        "TONGBAO_TEST_CLOCK": "1",
    }


@pytest.fixture
def file(tmp_path: Path) -> str:
    written = tmp_path / "rules.toml"
    written.write_text(RULES)
    return str(written)


async def left_to_us(stage: Stage, amount: int = 1000) -> Any:
    terms = {"merchant_order_no": new_number(), "subject": "tea", "method": {"mode": "qr"}}
    return await stage.call(stage.client.payments.create, amount=amount, **terms)


async def test_a_file_is_checked_and_nothing_is_kept(cli: Cli, stage: Stage, file: str) -> None:
    good = await cli("--json", "routing", "check", file)
    Path(file).write_text(RULES.replace('"wechat_pay"', '"gold"'))
    bad = await cli("routing", "check", file)

    assert good.json == {"name": "autumn", "mode": "sandbox", "rules": 2, "limits": 1}
    assert bad.code == 1
    assert "routing.target_unknown" in bad.err
    assert "the rest" in bad.err
    assert (await cli("--json", "routing", "list")).json == []


async def test_two_people_put_rules_in_force(cli: Cli, stage: Stage, file: str) -> None:
    draft = (await cli("--json", "routing", "draft", file, **MAKER)).json["rule_set"]
    alone = await cli("routing", "activate", draft, **MAKER)
    both = await cli("--json", "routing", "activate", draft, **CHECKER)
    again = await cli("routing", "withdraw", draft, **CHECKER)

    assert "routing.own_draft" in alone.err
    assert both.json["state"] == "active"
    assert both.json["checker"] == "cli:checker"
    assert "routing.rule_set_decided" in again.err


async def test_rules_begin_at_the_moment_that_is_named(cli: Cli, stage: Stage, file: str) -> None:
    draft = (await cli("--json", "routing", "draft", file, **MAKER)).json["rule_set"]
    begins = (stage.db.clock.now() + timedelta(days=2)).astimezone(BUSINESS_ZONE)

    said = await cli(
        "--json", "routing", "activate", draft, "--from", f"{begins:%Y-%m-%dT%H:%M}", **CHECKER
    )

    begun = datetime.fromisoformat(said.json["valid_from"])
    assert begun == begins.replace(second=0, microsecond=0)
    payment = await left_to_us(stage)
    [why] = (await cli("--json", "routing", "explain", payment["id"])).json
    assert why["rule_set"] == ""


async def test_a_replay_compares_without_touching_anything(
    cli: Cli, stage: Stage, file: str
) -> None:
    for amount in (1000, 1000, 1000, 5000):
        await stage.show_qr("wechat_pay", amount)
    await stage.scan_code(await stage.wallet_code(), 500)
    day = stage.db.clock.now().astimezone(BUSINESS_ZONE)
    period = ("--from", f"{day:%Y-%m-%d}", "--to", f"{day + timedelta(days=1):%Y-%m-%d}")

    said = await cli("--json", "routing", "replay", file, *period)
    backwards = await cli("routing", "replay", file, "--from", "2026-11-22", "--to", "2026-11-22")

    assert said.code == 0, said.err
    *lines, summary = said.json
    by_name = {line["account"].partition(" ")[0]: line for line in lines}
    assert (by_name["wechat_pay"]["payments"], by_name["wechat_pay"]["would_be"]) == (4, 1)
    assert (by_name["alipay"]["payments"], by_name["alipay"]["would_be"]) == (0, 2)
    assert (by_name["all"]["cost"], by_name["all"]["cost_would_be"]) == (48, 42)
    assert (summary["payments"], summary["moved"]) == (4, 2)
    assert summary["unplaced"] == {"quota_used_up": 1}
    assert summary["rules"] == {"small": 3, "the rest": 1}
    assert await stage.db.fetch("select 1 from routing_decision", ()) == []
    assert "routing.period_empty" in backwards.err


async def test_a_payment_is_explained_and_accounts_are_shown(
    cli: Cli, stage: Stage, file: str
) -> None:
    draft = (await cli("--json", "routing", "draft", file, **MAKER)).json["rule_set"]
    await cli("routing", "shadow", draft, **MAKER)
    payment = await left_to_us(stage)
    watch = stage.platform.router.watch
    await watch.close()

    why = await cli("--json", "routing", "explain", payment["id"])
    shown = await cli("--json", "routing", "show")
    [listed] = (await cli("--json", "routing", "list")).json
    unknown = await cli("routing", "withdraw", show("rrs", new_id()))

    assert why.json[0]["rule"] == "(no rule)"
    assert why.json[0]["shadow"] == show("chn", stage.accounts["alipay"])
    assert {one["channel"] for one in why.json[0]["candidates"]} == {"wechat_pay", "alipay"}
    states = {line["channel"]: line["state"] for line in shown.json}
    assert states == {"wechat_pay": "up", "alipay": "up", "bank_transfer": "up"}
    assert (listed["state"], listed["decided"]) == ("shadow", 1)
    assert "routing.rule_set_unknown" in unknown.err
