"""Duties of clearing: what follows once money was taken, and how often each task is tried."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

from tongbao.clearing.batches.batches import (
    BATCHES_POLICY,
    COMPARE_POLICY,
    CloseBatches,
    CompareBatch,
    run_close_batches,
    run_compare_batch,
)
from tongbao.clearing.commissions.commissions import (
    COMMISSION_POLICY,
    PayCommissions,
    run_pay_commissions,
)
from tongbao.clearing.complaints import images
from tongbao.clearing.complaints.complaints import (
    PULL_POLICY,
    PullComplaints,
    run_pull_complaints,
)
from tongbao.clearing.complaints.replies import (
    REPLY_POLICY,
    SendReply,
    run_send_reply,
)
from tongbao.clearing.context import (
    Clearing,
)
from tongbao.clearing.daily import (
    DAILY_POLICY,
    ReconcileDaily,
    SettleDaily,
    run_reconcile_daily,
    run_settle_daily,
)
from tongbao.clearing.disputes.chargebacks import (
    WatchDispute,
)
from tongbao.clearing.disputes.deadlines import (
    WATCH_POLICY as DISPUTE_POLICY,
)
from tongbao.clearing.disputes.deadlines import (
    run_watch_dispute,
)
from tongbao.clearing.disputes.debts import (
    DEBTS_POLICY,
    CollectDebts,
    run_collect_debts,
)
from tongbao.clearing.payouts.chasing import (
    FILE_POLICY,
    ChaseFile,
    run_chase_file,
)
from tongbao.clearing.payouts.payouts import (
    PAYOUT_POLICY,
    SubmitPayout,
    run_submit_payout,
)
from tongbao.clearing.recon_rules import (
    fetching,
)
from tongbao.clearing.recon_rules import (
    running as statements,
)
from tongbao.clearing.reconciliation.days import (
    RECONCILE_POLICY,
    ReconcileDay,
    run_reconcile_day,
)
from tongbao.clearing.reserve.proving import (
    RESERVE_POLICY,
    ProveReserve,
    Reserve,
    run_prove_reserve,
)
from tongbao.clearing.settlement_batches.batches import (
    BATCH_POLICY,
    DrawBatch,
    DropBatch,
    ReleaseBatch,
    run_draw_batch,
    run_drop_batch,
    run_release_batch,
)
from tongbao.clearing.suspense import (
    items as suspense,
)
from tongbao.clearing.transfers.paying import (
    TRANSFER_POLICY,
    SubmitTransfer,
    run_submit_transfer,
)
from tongbao.clearing.transfers.transfers import (
    RunTransferBatch,
    run_transfer_batch,
)
from tongbao.infra.blobs.store import Blobs
from tongbao.infra.tasks import Again, Lease, RetryPolicy, Task
from tongbao.ledger.proofs.model import Proofs
from tongbao.payments.collecting.outcomes import Flow

Handler = Callable[[Any, Lease], Awaitable[Again | None]]

POLICIES: Final[Mapping[type[Task], RetryPolicy]] = {
    **statements.POLICIES,
    fetching.FetchFurtherBills: fetching.FETCH_DAILY_POLICY,
    fetching.FetchFurtherBill: fetching.FETCH_POLICY,
    ReconcileDaily: DAILY_POLICY,
    ReconcileDay: RECONCILE_POLICY,
    CloseBatches: BATCHES_POLICY,
    CompareBatch: COMPARE_POLICY,
    SettleDaily: DAILY_POLICY,
    RunTransferBatch: TRANSFER_POLICY,
    SubmitTransfer: TRANSFER_POLICY,
    DrawBatch: BATCH_POLICY,
    ReleaseBatch: BATCH_POLICY,
    DropBatch: BATCH_POLICY,
    SubmitPayout: PAYOUT_POLICY,
    ChaseFile: FILE_POLICY,
    WatchDispute: DISPUTE_POLICY,
    CollectDebts: DEBTS_POLICY,
    PullComplaints: PULL_POLICY,
    SendReply: REPLY_POLICY,
    images.FetchImages: images.FETCH_POLICY,
    suspense.WatchSuspense: suspense.WATCH_POLICY,
    ProveReserve: RESERVE_POLICY,
    PayCommissions: COMMISSION_POLICY,
}


def work_of(flow: Flow, clearing: Clearing, blobs: Blobs) -> Mapping[type[Task], Handler]:
    """Return who does what any firm's clearing does."""
    return {
        **statements.work_of(clearing),
        fetching.FetchFurtherBills: partial(fetching.run_fetch_further_bills, clearing),
        fetching.FetchFurtherBill: partial(fetching.run_fetch_further_bill, clearing),
        PullComplaints: partial(run_pull_complaints, flow),
        SendReply: partial(run_send_reply, flow, blobs),
        images.FetchImages: partial(images.run_fetch_images, flow, blobs),
        ReconcileDaily: partial(run_reconcile_daily, clearing),
        ReconcileDay: partial(run_reconcile_day, clearing),
        CloseBatches: partial(run_close_batches, clearing),
        CompareBatch: partial(run_compare_batch, clearing),
    }


def settling_work_of(flow: Flow, clearing: Clearing) -> Mapping[type[Task], Handler]:
    """Return who does what a firm does that keeps merchants' money."""
    reserve = Reserve(flow.db, Proofs(flow.db, clearing.keyring))
    return {
        suspense.WatchSuspense: partial(suspense.run_watch_suspense, clearing.db),
        SettleDaily: partial(run_settle_daily, clearing),
        PayCommissions: partial(run_pay_commissions, clearing),
        ProveReserve: partial(run_prove_reserve, reserve),
        RunTransferBatch: partial(run_transfer_batch, clearing),
        SubmitTransfer: partial(run_submit_transfer, clearing),
        DrawBatch: partial(run_draw_batch, clearing),
        ReleaseBatch: partial(run_release_batch, clearing),
        DropBatch: partial(run_drop_batch, clearing),
        SubmitPayout: partial(run_submit_payout, clearing),
        ChaseFile: partial(run_chase_file, clearing),
        WatchDispute: partial(run_watch_dispute, flow),
        CollectDebts: partial(run_collect_debts, flow),
    }
