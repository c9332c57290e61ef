"""The console's routes of this room; wiring hands them to the console."""

from __future__ import annotations

from typing import Final

from tongbao.parties.identity.model import Permission
from tongbao.surfaces.four_eyes import calendar, inbox, rules, suspense
from tongbao.surfaces.operator_console.visit import Route

_VIEW: Final = Permission.VIEW
_ADJUST: Final = Permission.ADJUSTMENTS_ACT
_SETTLE: Final = Permission.SETTLEMENT_ACT

# Who may decide depends on the act, so the address itself is open to everybody who may look.
ROUTES: Final = (
    Route("GET", "/inbox", inbox.show_inbox, _VIEW),
    Route("GET", "/inbox/{approval_id}", inbox.show_approval, _VIEW),
    Route("POST", "/inbox/{approval_id}/approve", inbox.approve_one, _VIEW),
    Route("POST", "/inbox/{approval_id}/reject", inbox.reject_one, _VIEW),
    Route("POST", "/inbox/{approval_id}/withdraw", inbox.withdraw_one, _VIEW),
    Route("GET", "/calendar", calendar.show_calendar, _VIEW),
    Route("POST", "/calendar/preview", calendar.preview_file, _SETTLE),
    Route("POST", "/calendar/propose", calendar.propose_file, _SETTLE),
    Route("POST", "/calendar/cut-off", calendar.propose_cut_off_time, _SETTLE),
    Route("GET", "/rules", rules.show_rules, _VIEW),
    Route("POST", "/rules/{kind}", rules.propose_one, Permission.DEPLOYMENT_ACT),
    Route("GET", "/suspense", suspense.show_suspense, _VIEW, is_licensed=True),
    Route(
        "POST",
        "/suspense/{book}/{currency}/{item_id}",
        suspense.propose_item,
        _ADJUST,
        is_licensed=True,
    ),
    Route(
        "POST",
        "/suspense/{book}/{currency}/{item_id}/stop",
        suspense.propose_no_refund,
        _ADJUST,
        is_licensed=True,
    ),
    Route("POST", "/adjustments", suspense.propose_by_hand, _ADJUST, is_licensed=True),
)
