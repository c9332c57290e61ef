"""Acts: everything dangerous in the house, and who does it once two people have said so."""

from __future__ import annotations

from tongbao.clearing.cases import cases as differences
from tongbao.clearing.context import Clearing
from tongbao.clearing.disputes.debts import bound_write_off
from tongbao.clearing.payouts import files as payout_files
from tongbao.clearing.recon_rules import rules as recon_rules
from tongbao.clearing.reserve import custody as reserve_custody
from tongbao.clearing.settlement_batches import batches as settlement_batches
from tongbao.clearing.settlement_terms import terms as settlement_terms
from tongbao.clearing.suspense import desk as suspense
from tongbao.clearing.transfers import transfers
from tongbao.controls.approvals import licence, seconds
from tongbao.controls.approvals.model import Approvals, Bound, acts_of
from tongbao.controls.calendar import changes as calendar
from tongbao.controls.dated_rows.logins import LOGINS
from tongbao.controls.dated_rows.rows import bound_rows
from tongbao.controls.keys import ceremonies
from tongbao.controls.limits.changes import LIMITS
from tongbao.controls.opening.rules import OPENING
from tongbao.controls.retention import terms as retention_terms
from tongbao.infra.kms.opening import KeyDesk
from tongbao.parties.agents import approving as agents
from tongbao.parties.barring import barring
from tongbao.parties.e_accounts import freezes as e_account_freezes
from tongbao.parties.live_keys import changes as live_keys
from tongbao.parties.onboarding.openings import bound_acts as onboarding_acts
from tongbao.parties.partners.partners import bound_acts as partner_acts
from tongbao.parties.price_plans import approving as price_plans
from tongbao.parties.standing import standing
from tongbao.parties.step_up_risk import rules as step_up_rules
from tongbao.parties.terminals import limits as terminal_limits
from tongbao.parties.user_wallets import changed_terms as wallet_terms
from tongbao.parties.user_wallets import programmes as wallet_programmes
from tongbao.payments.channel_keys import changes as channel_keys
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.splits import receivers as split_terms
from tongbao.products.red_packets import hall as red_packet_limits
from tongbao.surfaces.retention import asked as erasing


def approvals(flow: Flow, clearing: Clearing, keys: KeyDesk | None = None) -> Approvals:
    """Return every dangerous act of the house, each with who does it once it is approved.

    Those on master keys are there where ``keys`` are.
    """
    always: tuple[Bound, ...] = (
        *calendar.bound(flow.db),
        *bound_rows(flow.db, retention_terms.TERMS, LOGINS),
        *erasing.bound_acts(flow.db),
        *seconds.bound_acts(flow.db),
        *licence.bound_acts(flow.db),
        *price_plans.bound(flow.db),
        *split_terms.bound(flow.db),
        *channel_keys.bound_acts(flow.db, clearing.keyring),
        *live_keys.bound_acts(flow.db, clearing.keyring, flow.licence),
        *standing.bound_acts(flow.db),
        *agents.bound_acts(flow.db),
        *differences.bound_closings(flow.db),
        *recon_rules.bound(flow.db),
        *terminal_limits.bound_acts(flow.db),
        *(ceremonies.bound_acts(flow.db, keys.kms, keys.wrap_lines) if keys else ()),
    )
    licensed: tuple[Bound, ...] = (
        *suspense.bound_acts(flow),
        *differences.bound_postings(flow),
        *reserve_custody.bound_acts(flow.db),
        bound_write_off(flow),
        *onboarding_acts(flow.db, clearing.keyring, flow.licence),
        *partner_acts(flow.db, clearing.keyring),
        *wallet_programmes.bound_acts(flow.db),
        *wallet_terms.bound_acts(flow.db),
        *settlement_terms.bound_acts(flow.db),
        *settlement_batches.bound_acts(flow.db),
        *payout_files.bound_acts(flow.db),
        *transfers.bound_acts(flow.db),
        *red_packet_limits.bound_acts(flow.db),
        *e_account_freezes.bound_acts(flow.db),
        *barring.bound_acts(flow.db),
        *bound_rows(flow.db, LIMITS, OPENING, step_up_rules.BY_AMOUNT, step_up_rules.BY_SIGNAL),
    )
    return Approvals(flow.db, acts_of(*always, *(licensed if flow.licence.may_hold_funds else ())))
