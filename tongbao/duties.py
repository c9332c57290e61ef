"""Duties: what follows from every task and event of the house, and how often a task is tried.

What is declared anywhere and is not in these tables fails a test.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from tongbao.acts import approvals
from tongbao.clearing import duties as afterwards
from tongbao.clearing.complaints.complaints import (
    take_complaint,
)
from tongbao.clearing.complaints.model import (
    ComplaintOpened,
    ComplaintUpdated,
)
from tongbao.clearing.context import (
    Clearing,
)
from tongbao.clearing.disputes.model import (
    DisputeClosed,
    DisputeDue,
    DisputeOpened,
    DisputeUpdated,
)
from tongbao.clearing.payouts.model import (
    PayoutFailed,
    PayoutReturned,
    PayoutSucceeded,
)
from tongbao.clearing.reconciliation.model import (
    DayReconciled,
)
from tongbao.clearing.reserve.proving import (
    ReserveGapFound,
)
from tongbao.clearing.settlement.model import (
    SettlementClosed,
)
from tongbao.clearing.settlement.settlements import (
    on_payout_ended,
)
from tongbao.clearing.transfers.model import (
    TransferEnded,
)
from tongbao.clearing.transfers.paying import take_transfer
from tongbao.controls.approvals import approvals as four_eyes
from tongbao.controls.approvals.model import ApprovalMoved
from tongbao.controls.audit_log import watching as audit_watching
from tongbao.controls.audit_log.watching import ProveAuditLog, prove_audit_log
from tongbao.infra.kms.opening import KeyDesk
from tongbao.infra.kms.rewrapping import REWRAP_POLICY, RewrapSealingKeys, run_rewrap
from tongbao.infra.notify.sending import (
    SEND_POLICY,
    Gateways,
    SendNotification,
    run_send_notification,
)
from tongbao.infra.outbox import Event, Subscriber
from tongbao.infra.tasks import DEFAULT_POLICY, Again, Lease, RetryPolicy, Task
from tongbao.infra.webhooks.courier import Courier
from tongbao.infra.webhooks.deliveries import DELIVER_POLICY, DeliverWebhook
from tongbao.infra.webhooks.model import WebhookEndpointDisabled, WebhookTest
from tongbao.ledger.general.vouchers import BUILD_POLICY, BuildVouchers, run_build_vouchers
from tongbao.ledger.movements.crossings import (
    COMPLETE_POLICY,
    CompleteMovement,
    run_complete_movement,
)
from tongbao.ledger.movements.queries import WATCH_POLICY, WatchMovements, run_watch_movements
from tongbao.ledger.movements.splits import (
    REBALANCE_POLICY,
    RebalanceSplits,
    run_rebalance_splits,
)
from tongbao.ledger.proofs.checkpoints import PROVE_POLICY, ProveLedger, prove_ledger
from tongbao.ledger.proofs.model import Proofs
from tongbao.parties.accounts.wallets import WalletToppedUp
from tongbao.parties.consents.consents import on_partner_moved, on_person_moved
from tongbao.parties.consents.holdings import ClaimedWallets
from tongbao.parties.consents.model import (
    ConsentAuthorised,
    ConsentExpired,
    ConsentResumed,
    ConsentRevoked,
    ConsentSuspended,
)
from tongbao.parties.e_accounts import bank_orders
from tongbao.parties.e_accounts import orders as e_accounts
from tongbao.parties.notices import telling
from tongbao.parties.notices.model import TellPerson
from tongbao.parties.onboarding.applications import ApplicationMoved
from tongbao.parties.partners.model import PartnerMoved
from tongbao.parties.people.contacts import reach_of as reach_of_person
from tongbao.parties.people.model import PersonMoved
from tongbao.parties.standing.standing import STANDING_POLICY, FinishExit, run_finish_exit
from tongbao.parties.terminals.watch import (
    TERMINALS_POLICY,
    TerminalOffline,
    TerminalOnline,
    WatchTerminals,
    run_watch_terminals,
)
from tongbao.parties.user_wallets import proposals as user_wallets
from tongbao.parties.user_wallets.model import ApplicationUpdated, ProposalUpdated
from tongbao.parties.vault.model import TokenMoved, UseKeyShort
from tongbao.payments.agreements.agreements import (
    AGREEMENT_POLICY,
    AgreementEndedEvent,
    AgreementFailed,
    AgreementSignedEvent,
    ChaseAgreement,
    Reach,
    chase_agreement,
)
from tongbao.payments.authorisations.completions import (
    COMPLETION_POLICY,
    chase_completion,
    expire_authorisation,
    let_go,
)
from tongbao.payments.authorisations.outcomes import (
    ChaseCompletion,
    PaymentCaptured,
    PaymentCaptureFailed,
    PaymentVoided,
)
from tongbao.payments.callbacks.inbox import (
    BelieveCallback,
    TakeKept,
    believe_callback,
    take_kept,
)
from tongbao.payments.callbacks.model import Takers
from tongbao.payments.callbacks.takers import take_agreement, take_payment, take_refund
from tongbao.payments.checkouts.closing import (
    CLOSING_POLICY,
    CheckoutClosedEvent,
    CloseCheckout,
    close_checkout_unpaid,
)
from tongbao.payments.collecting.chase import CHASE_POLICY, chase_attempt
from tongbao.payments.collecting.outcomes import (
    ChaseAttempt,
    ExpireAuthorisation,
    Flow,
    LateMoneyReceived,
    LetGo,
    PaymentAuthorised,
    PaymentClosed,
    PaymentFailed,
    PaymentSucceeded,
)
from tongbao.payments.combining import combined as combining
from tongbao.payments.parking import visits as parking
from tongbao.payments.people_banks.client import card_money
from tongbao.payments.refunds.outcomes import (
    REFUND_POLICY,
    RefundFailed,
    RefundSucceeded,
    SubmitRefund,
    submit_refund,
)
from tongbao.payments.refunds.refunds import on_late_money
from tongbao.payments.refunds.sending_on import SEND_ON_POLICY, SendRefundOn, run_send_on
from tongbao.payments.registrations.registrations import (
    REGISTRATION_POLICY,
    ChaseRegistration,
    Registrar,
    RegistrationMoved,
    chase_registration,
    on_application_moved,
)
from tongbao.payments.splits.outcomes import chase_split
from tongbao.payments.splits.receivers import (
    RECEIVER_POLICY,
    ChaseReceiver,
    ReceiverChanged,
    Sharing,
    chase_receiver,
)
from tongbao.payments.splits.records import (
    ChaseReturn,
    ChaseSplit,
    SplitCancelled,
    SplitEnded,
    SplitReturnFailed,
    SplitReturnSucceeded,
)
from tongbao.payments.splits.returns import chase_return, take_split
from tongbao.payments.splits.splits import SPLIT_POLICY, ReleaseSplit, run_release
from tongbao.products.red_packets.hall import Hall, RedPacketEnded
from tongbao.products.red_packets.returning import (
    RETURN_POLICY,
    ReturnRedPacket,
    return_red_packet,
)
from tongbao.products.scenes.tables import follow_order
from tongbao.products.shop.endings import (
    LOOK_POLICY,
    LookAtOrder,
    OrderCancelled,
    OrderPaid,
    Shop,
    names_an_order,
    on_money,
    run_look_at_order,
)
from tongbao.products.shop.refunds import (
    PUSH_POLICY,
    OrderRefunded,
    PushOrderRefund,
    on_refund_end,
    run_push_order_refund,
)
from tongbao.rails.channels.contract.callbacks import CallbackKind
from tongbao.surfaces.housekeeping import KEEP_HOUSE_POLICY, KeepHouse, keep_house
from tongbao.surfaces.invariants import rounds as invariants
from tongbao.surfaces.jeepay.notices import TELL_POLICY, Messenger, TellJeepayMerchant
from tongbao.surfaces.user_wallets.paying import carrier_of

EVENTS: Final[Sequence[type[Event]]] = (
    *(PaymentSucceeded, PaymentFailed, PaymentClosed, PaymentAuthorised, PaymentCaptured),
    *(PaymentCaptureFailed, PaymentVoided, AgreementSignedEvent, AgreementFailed),
    *(AgreementEndedEvent, CheckoutClosedEvent, LateMoneyReceived, RefundSucceeded, RefundFailed),
    *(SplitEnded, SplitCancelled, SplitReturnSucceeded, SplitReturnFailed, ReceiverChanged),
    *(WalletToppedUp, RedPacketEnded, OrderPaid, OrderCancelled, OrderRefunded, SettlementClosed),
    *(PayoutSucceeded, PayoutFailed, PayoutReturned, TransferEnded, DayReconciled, DisputeOpened),
    *(DisputeUpdated, DisputeDue, DisputeClosed, TerminalOffline, TerminalOnline),
    *(ReserveGapFound, ComplaintOpened, ComplaintUpdated, WebhookEndpointDisabled, WebhookTest),
    *(ApprovalMoved, ApplicationMoved, RegistrationMoved),
    *(combining.CombinedPaymentEnded, parking.ParkingVisitUpdated),
    *(ConsentAuthorised, ConsentRevoked, ConsentExpired, ConsentSuspended, ConsentResumed),
    *(PartnerMoved, PersonMoved),
    *(TokenMoved, UseKeyShort, ApplicationUpdated, ProposalUpdated),
)

POLICIES: Final[Mapping[type[Task], RetryPolicy]] = {
    ChaseAttempt: CHASE_POLICY,
    ChaseCompletion: COMPLETION_POLICY,
    ExpireAuthorisation: COMPLETION_POLICY,
    LetGo: COMPLETION_POLICY,
    ChaseAgreement: AGREEMENT_POLICY,
    ChaseRegistration: REGISTRATION_POLICY,
    combining.ChaseCombined: combining.COMBINED_POLICY,
    parking.ChaseVisit: parking.VISIT_POLICY,
    FinishExit: STANDING_POLICY,
    SubmitRefund: REFUND_POLICY,
    SendRefundOn: SEND_ON_POLICY,
    ReleaseSplit: SPLIT_POLICY,
    ChaseSplit: SPLIT_POLICY,
    ChaseReturn: SPLIT_POLICY,
    ChaseReceiver: RECEIVER_POLICY,
    BelieveCallback: DEFAULT_POLICY,
    TakeKept: DEFAULT_POLICY,
    CloseCheckout: CLOSING_POLICY,
    DeliverWebhook: DELIVER_POLICY,
    TellJeepayMerchant: TELL_POLICY,
    **afterwards.POLICIES,
    **e_accounts.POLICIES,
    **user_wallets.POLICIES,
    bank_orders.RunBankOrder: bank_orders.POLICY,
    invariants.WatchInvariants: invariants.POLICY,
    ReturnRedPacket: RETURN_POLICY,
    LookAtOrder: LOOK_POLICY,
    PushOrderRefund: PUSH_POLICY,
    KeepHouse: KEEP_HOUSE_POLICY,
    SendNotification: SEND_POLICY,
    TellPerson: telling.TELL_POLICY,
    **four_eyes.POLICIES,
    BuildVouchers: BUILD_POLICY,
    CompleteMovement: COMPLETE_POLICY,
    WatchMovements: WATCH_POLICY,
    WatchTerminals: TERMINALS_POLICY,
    RewrapSealingKeys: REWRAP_POLICY,
    RebalanceSplits: REBALANCE_POLICY,
    ProveLedger: PROVE_POLICY,
    ProveAuditLog: audit_watching.POLICY,
}


Handler = Callable[[Any, Lease], Awaitable[Again | None]]


def handlers(
    flow: Flow,
    clearing: Clearing,
    courier: Courier,
    registrar: Registrar,
    *,
    public_url: str,
    gateways: Gateways,
    keys: KeyDesk,
) -> Mapping[type[Task], Handler]:
    """Return who does which task; what a firm may not do, nobody here does."""
    sharing = Sharing(flow, clearing.keyring)
    cards = card_money(flow, clearing.bank, keys.sealing_keys, clearing.keyring)
    teller = e_accounts.Teller(flow.db, flow.ledger, cards, ClaimedWallets())
    licensed: dict[type[Task], Handler] = {
        **afterwards.settling_work_of(flow, clearing),
        ReturnRedPacket: partial(return_red_packet, Hall(flow.db, flow.ledger)),
        **e_accounts.handlers(teller),
        **bank_orders.handlers(teller),
        **user_wallets.handlers(carrier_of(flow, teller)),
    }
    return {
        **(licensed if flow.licence.may_hold_funds else {}),
        **four_eyes.work_of(approvals(flow, clearing, keys)),
        invariants.WatchInvariants: partial(invariants.run_watch, flow.db, flow.licence),
        **afterwards.work_of(flow, clearing, registrar.blobs),
        ChaseAttempt: partial(chase_attempt, flow),
        ChaseCompletion: partial(chase_completion, flow),
        ExpireAuthorisation: partial(expire_authorisation, flow),
        LetGo: partial(let_go, flow),
        ChaseAgreement: partial(chase_agreement, reach_of(flow)),
        ChaseRegistration: partial(chase_registration, registrar),
        combining.ChaseCombined: partial(combining.chase_combined, flow),
        parking.ChaseVisit: partial(parking.chase_visit, parking.CarParks(flow, clearing.keyring)),
        FinishExit: partial(run_finish_exit, flow.db),
        SubmitRefund: partial(submit_refund, flow),
        SendRefundOn: partial(run_send_on, flow, clearing.keyring),
        LookAtOrder: partial(run_look_at_order, shop_of(flow)),
        PushOrderRefund: partial(run_push_order_refund, shop_of(flow)),
        ReleaseSplit: partial(run_release, sharing),
        ChaseSplit: partial(chase_split, sharing),
        ChaseReturn: partial(chase_return, sharing),
        ChaseReceiver: partial(chase_receiver, sharing),
        BelieveCallback: partial(believe_callback, flow, takers(flow, sharing, clearing)),
        TakeKept: partial(take_kept, flow.db, takers(flow, sharing, clearing)),
        CloseCheckout: partial(close_checkout_unpaid, flow.db, public_url),
        DeliverWebhook: courier.deliver,
        TellJeepayMerchant: Messenger(flow.db, clearing.keyring, courier.clients).tell,
        SendNotification: partial(run_send_notification, flow.db, clearing.keyring, gateways),
        TellPerson: partial(telling.run_tell, flow.db, clearing.keyring, reach_of_person),
        KeepHouse: partial(keep_house, flow.db, flow.ledger, flow.licence, blobs=registrar.blobs),
        BuildVouchers: partial(run_build_vouchers, flow.db),
        CompleteMovement: partial(run_complete_movement, flow.db, flow.ledger),
        WatchMovements: partial(run_watch_movements, flow.db),
        WatchTerminals: partial(run_watch_terminals, flow.db),
        RebalanceSplits: partial(run_rebalance_splits, flow.db, flow.ledger),
        RewrapSealingKeys: partial(run_rewrap, flow.db, keys.sealing_keys),
        ProveLedger: partial(prove_ledger, Proofs(flow.db, clearing.keyring)),
        ProveAuditLog: partial(prove_audit_log, Proofs(flow.db, clearing.keyring)),
    }


def reach_of(flow: Flow) -> Reach:
    """Return what agreements need of what payments do."""
    return Reach(flow.db, flow.channels, flow.account, flow.nudge, flow.licence.may_hold_funds)


def shop_of(flow: Flow) -> Shop:
    """Return what a shop needs of what payments do."""
    return Shop(flow, follow_order)


def takers(flow: Flow, sharing: Sharing, clearing: Clearing) -> Takers:
    """Return who takes which kind of a channel's notice; any other kind is kept meanwhile."""
    licensed: Takers = {CallbackKind.TRANSFER: partial(take_transfer, clearing)}
    return {
        **(licensed if flow.licence.may_hold_funds else {}),
        CallbackKind.PAYMENT: partial(take_payment, flow),
        CallbackKind.COMBINED: partial(combining.take_combined, flow),
        CallbackKind.PARKING: partial(
            parking.take_parking, parking.CarParks(flow, sharing.keyring)
        ),
        CallbackKind.REFUND: partial(take_refund, flow),
        CallbackKind.AGREEMENT: partial(take_agreement, reach_of(flow)),
        CallbackKind.COMPLAINT: partial(take_complaint, flow),
        CallbackKind.SPLIT: partial(take_split, sharing),
    }


def subscribers(
    flow: Flow, clearing: Clearing, registrar: Registrar
) -> Mapping[type[Event], Sequence[Subscriber]]:
    """Return who hears which event; an event nobody here hears still goes to webhooks."""
    heard: dict[type[Event], Sequence[Subscriber]] = dict.fromkeys(EVENTS, ())
    heard[LateMoneyReceived] = (Subscriber("refunds.on_late_money", partial(on_late_money, flow)),)
    moved = Subscriber("registrations.on_application", partial(on_application_moved, registrar))
    heard[ApplicationMoved] = (moved,)
    paid = Subscriber("shop.on_money", partial(on_money, shop_of(flow)), wants=names_an_order)
    for kind in (PaymentSucceeded, PaymentFailed, PaymentClosed, CheckoutClosedEvent):
        heard[kind] = (*heard[kind], paid)
    back = Subscriber("shop.on_refund_end", partial(on_refund_end, shop_of(flow)))
    for end in (RefundSucceeded, RefundFailed):
        heard[end] = (*heard[end], back)
    if flow.licence.may_hold_funds:
        ended = Subscriber("settlement.on_payout_ended", partial(on_payout_ended, clearing))
        heard[PartnerMoved] = (
            Subscriber("consents.on_partner", partial(on_partner_moved, flow.db)),
        )
        heard[PersonMoved] = (Subscriber("consents.on_person", partial(on_person_moved, flow.db)),)
        heard[PayoutSucceeded] = heard[PayoutFailed] = heard[PayoutReturned] = (ended,)
    return heard
