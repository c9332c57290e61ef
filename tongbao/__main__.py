"""`tongbao` and `python -m tongbao`: the command line."""

from __future__ import annotations

from pathlib import Path

import click

from tongbao.surfaces.auditing.commands import COMMANDS as AUDITING
from tongbao.surfaces.card_bins.commands import COMMANDS as CARD_BINS
from tongbao.surfaces.cli.books import gl
from tongbao.surfaces.cli.channels import channel
from tongbao.surfaces.cli.clearing import batches, reconcile
from tongbao.surfaces.cli.context import Context
from tongbao.surfaces.cli.demo import demo
from tongbao.surfaces.cli.merchants import merchant
from tongbao.surfaces.cli.operate import doctor, ledger, migrate, settings, tasks
from tongbao.surfaces.cli.serve import serve
from tongbao.surfaces.connector_kit.commands import new_channel
from tongbao.surfaces.database.commands import db
from tongbao.surfaces.disputes_desk.commands import COMMANDS as DISPUTES
from tongbao.surfaces.fees.commands import fees
from tongbao.surfaces.four_eyes.commands import COMMANDS as FOUR_EYES
from tongbao.surfaces.four_eyes.keys import key
from tongbao.surfaces.four_eyes.limits import limits, red_packets, rules_group
from tongbao.surfaces.invariants.commands import invariants
from tongbao.surfaces.keys.commands import kms
from tongbao.surfaces.keys.vault import vault
from tongbao.surfaces.onboarding_desk.commands import COMMANDS as ONBOARDING
from tongbao.surfaces.own_factors.commands import operator
from tongbao.surfaces.partners_desk.commands import partners
from tongbao.surfaces.people_desk.commands import people
from tongbao.surfaces.portal.commands import COMMANDS as PORTAL
from tongbao.surfaces.proofs.audit_log import audit
from tongbao.surfaces.proofs.cli import COMMANDS as PROOFS
from tongbao.surfaces.recon_desk.commands import sources_group
from tongbao.surfaces.reserve.commands import COMMANDS as RESERVE
from tongbao.surfaces.retention.commands import retention
from tongbao.surfaces.routing.cli import routing
from tongbao.surfaces.settlement_desk.commands import payouts, settle, settlement
from tongbao.surfaces.terminals.commands import COMMANDS as TERMINALS
from tongbao.wiring import open_platform


@click.group()
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    envvar="TONGBAO_CONFIG",
    help="A TOML file of settings; the environment wins over it.",
)
@click.option("--json", "as_json", is_flag=True, help="Print facts as JSON.")
@click.version_option(package_name="tongbao")
@click.pass_context
def main(click_context: click.Context, config: Path | None, as_json: bool) -> None:
    """Tongbao (通宝): mobile payment and financial services on one ledger."""
    click_context.obj = Context(open_platform=open_platform, config=config, as_json=as_json)


COMMANDS = (
    *ONBOARDING,
    *(*TERMINALS, *RESERVE, *CARD_BINS, *DISPUTES),
    *(demo, serve, migrate, settings, doctor, db),
    *(people, partners),
    *(operator, merchant, key, kms, vault, channel, new_channel, fees),
    *(reconcile, sources_group, batches, settle, settlement, payouts, gl, ledger, tasks, routing),
    *(*FOUR_EYES, red_packets, limits, rules_group, invariants, retention, audit),
    *PORTAL,
)
for command in COMMANDS:
    main.add_command(command)
for command in AUDITING:
    ledger.add_command(command)
for command in PROOFS:
    ledger.add_command(command)


if __name__ == "__main__":
    main(prog_name="tongbao")
