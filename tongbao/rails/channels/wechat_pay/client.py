"""WeChat Pay behind the channel contract; each product has a module of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path

from tongbao.infra.http import HttpClient
from tongbao.kernel.clock import real_now
from tongbao.kernel.money import Money
from tongbao.rails.channels.capabilities.agreements import (
    AgreementOrder,
    AgreementOutcome,
    SignsIn,
    VisitOutcome,
)
from tongbao.rails.channels.capabilities.combined_orders import (
    CombinedOrder,
    CombinedPart,
    PartFound,
)
from tongbao.rails.channels.capabilities.complaints import (
    ComplaintFound,
    ComplaintsListed,
    ReplySent,
)
from tongbao.rails.channels.capabilities.payers import IdentifyOutcome
from tongbao.rails.channels.capabilities.registrations import RegistrationOrder, RegistrationOutcome
from tongbao.rails.channels.capabilities.shares import (
    Receiver,
    SplitOrder,
    SplitOutcome,
    SplitQueryOutcome,
    SplitReturn,
)
from tongbao.rails.channels.capabilities.transfers import (
    TransferOrder,
    TransferOutcome,
    TransferQueryOutcome,
)
from tongbao.rails.channels.contract.bills import BillLine, BillOutcome
from tongbao.rails.channels.contract.callbacks import Callback, CallbackReply
from tongbao.rails.channels.contract.orders import (
    CarVisit,
    ChannelAccount,
    ParkingFee,
    PayMode,
    PayOrder,
    PlateColour,
    RefundOrder,
)
from tongbao.rails.channels.contract.outcomes import (
    Absent,
    Answer,
    Closed,
    CloseOutcome,
    Declined,
    NotSent,
    Outcome,
    QueryOutcome,
    RefundOutcome,
    RefundQueryOutcome,
    Unknown,
)
from tongbao.rails.channels.exchange import Announced, TimeLimits, unsent
from tongbao.rails.channels.wechat_pay import bills, callbacks, statements
from tongbao.rails.channels.wechat_pay.complaints import calls as complaints
from tongbao.rails.channels.wechat_pay.complaints import images as complaint_images
from tongbao.rails.channels.wechat_pay.gateway import Gateway
from tongbao.rails.channels.wechat_pay.products import (
    agreements,
    combined,
    identity,
    orders,
    parking,
    refunds,
    splits,
    transfers,
)
from tongbao.rails.channels.wechat_pay.registering import applyments
from tongbao.rails.channels.wechat_pay.wire import CURRENCY


class WechatPay:
    """One merchant number per account: its own, or a sub-merchant's under a service provider.

    What the channel contract has no words for is in ``products`` and takes this ``gateway``.
    """

    name = "wechat_pay"
    modes = frozenset({*orders.PRODUCTS, PayMode.AGREEMENT})
    currencies = frozenset({CURRENCY})
    bill_terms = bills.TERMS
    further_bills = statements.KINDS
    tells_exits = False
    sends_refunds_on = True

    def __init__(
        self,
        http: HttpClient,
        *,
        limits: TimeLimits | None = None,
        clock: Callable[[], datetime] = real_now,
    ) -> None:
        self.gateway = Gateway(http, limits or TimeLimits(), clock)

    async def pay(self, account: ChannelAccount, order: PayOrder) -> Answer[Outcome]:
        """Offer a code, a page or an app to pay in, or charge what the customer shows or signed."""
        if order.combined is not None:
            return await combined.ask_part(self.gateway, account, order)
        if order.visit is not None:
            return await parking.take_fee(self.gateway, account, order)
        if order.mode is PayMode.AGREEMENT:
            return await agreements.deduct(self.gateway, account, order)
        return await orders.pay(self.gateway, account, order)

    async def query(self, account: ChannelAccount, order: PayOrder) -> Answer[QueryOutcome]:
        """Ask what became of the order."""
        if order.combined is not None:
            return await combined.query_part(self.gateway, account, order)
        if order.visit is not None:
            return await parking.query_charge(self.gateway, account, order)
        return await orders.query(self.gateway, account, order)

    async def close(self, account: ChannelAccount, order: PayOrder) -> Answer[CloseOutcome]:
        """Close an order; reverse a payment code's, which gives back what was paid."""
        if order.combined is not None:
            return await combined.close_part(self.gateway, account, order)
        if order.visit is not None:
            return await parking.close_fee(self.gateway, account, order)
        return await orders.close(self.gateway, account, order)

    async def refund(self, account: ChannelAccount, refund: RefundOrder) -> Answer[RefundOutcome]:
        """Give money back, all or a part; or send on what could not go back the way it came."""
        if refund.to is not None:
            return await refunds.send_elsewhere(self.gateway, account, refund, refund.to)
        return await refunds.refund(self.gateway, account, refund)

    async def query_refund(
        self, account: ChannelAccount, refund: RefundOrder
    ) -> Answer[RefundQueryOutcome]:
        """Ask what became of the refund."""
        return await refunds.query(self.gateway, account, refund)

    def identity_address(self, account: ChannelAccount, back_url: str, state: str) -> str | None:
        """Return where WeChat says, without asking the customer, who opened a page in it."""
        return identity.address(account, back_url, state)

    async def identify(self, account: ChannelAccount, code: str) -> Answer[IdentifyOutcome]:
        """Ask for the openid behind the code a page came back with."""
        return await identity.identify(self.gateway, account, code)

    async def add_receiver(self, account: ChannelAccount, receiver: Receiver) -> Answer[Outcome]:
        """Let WeChat Pay know who may get shares."""
        return await splits.add_receiver(self.gateway, account, receiver)

    async def remove_receiver(self, account: ChannelAccount, receiver: Receiver) -> Answer[Outcome]:
        """Let WeChat Pay forget a receiver."""
        return await splits.remove_receiver(self.gateway, account, receiver)

    async def split(self, account: ChannelAccount, split: SplitOrder) -> Answer[SplitOutcome]:
        """Give shares of a payment away."""
        return await splits.split(self.gateway, account, split)

    async def query_split(
        self, account: ChannelAccount, split: SplitOrder
    ) -> Answer[SplitQueryOutcome]:
        """Ask what became of the shares."""
        return await splits.query_split(self.gateway, account, split)

    async def return_split(self, account: ChannelAccount, back: SplitReturn) -> Answer[Outcome]:
        """Take a share back from a merchant."""
        return await splits.return_split(self.gateway, account, back)

    async def query_split_return(
        self, account: ChannelAccount, back: SplitReturn
    ) -> Answer[QueryOutcome]:
        """Ask what became of a return."""
        return await splits.query_return(self.gateway, account, back)

    async def unfreeze(self, account: ChannelAccount, split: SplitOrder) -> Answer[SplitOutcome]:
        """Free what nobody gets a share of."""
        return await splits.unfreeze(self.gateway, account, split)

    async def unsplit_money(
        self, account: ChannelAccount, channel_ref: str
    ) -> Answer[Money | Absent | Unknown]:
        """Ask how much of a payment may still be split."""
        return await splits.unsplit_money(self.gateway, account, channel_ref)

    async def transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferOutcome]:
        """Pay out to a customer, who is to confirm in WeChat."""
        return await transfers.transfer(self.gateway, account, order)

    async def query_transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferQueryOutcome]:
        """Ask what became of a payout."""
        return await transfers.query_transfer(self.gateway, account, order)

    async def cancel_transfer(
        self, account: ChannelAccount, order: TransferOrder
    ) -> Answer[TransferQueryOutcome]:
        """Take a payout back that its payee has not confirmed."""
        return await transfers.cancel_transfer(self.gateway, account, order)

    @property
    def signs_in(self) -> frozenset[SignsIn]:
        """Return where customers can sign: on pages, out of apps and mini-programs."""
        return frozenset({"page", "app", "mini_program"})

    async def offer_agreement(
        self, account: ChannelAccount, order: AgreementOrder
    ) -> Answer[AgreementOutcome]:
        """Offer an agreement for the customer to sign."""
        return await agreements.offer(self.gateway, account, order)

    async def query_agreement(
        self, account: ChannelAccount, order: AgreementOrder
    ) -> Answer[AgreementOutcome]:
        """Ask whether an agreement is signed."""
        return await agreements.query(self.gateway, account, order)

    async def end_agreement(
        self, account: ChannelAccount, order: AgreementOrder, agreement_ref: str, reason: str
    ) -> Answer[AgreementOutcome]:
        """End an agreement; WeChat Pay knows it by our number."""
        del agreement_ref
        return await agreements.end(self.gateway, account, order, reason)

    async def register(
        self, account: ChannelAccount, order: RegistrationOrder
    ) -> Answer[RegistrationOutcome]:
        """Apply for a sub-merchant below our account, a service provider's."""
        return await applyments.register(self.gateway, account, order)

    async def query_registration(
        self, account: ChannelAccount, order: RegistrationOrder
    ) -> Answer[RegistrationOutcome]:
        """Ask what became of an application."""
        return await applyments.query(self.gateway, account, order)

    def sub_account(
        self, account: ChannelAccount, sub_merchant: str
    ) -> tuple[str, Mapping[str, object]] | None:
        """Return what an account of the sub-merchant's has: our keys, who call for it."""
        return applyments.sub_account(account, sub_merchant)

    async def find_complaints(
        self, account: ChannelAccount, first: date, last: date
    ) -> Answer[ComplaintsListed | Unknown]:
        """List customers' complaints of some days."""
        return await complaints.find(self.gateway, account, first, last)

    async def read_complaint(
        self, account: ChannelAccount, ref: str
    ) -> Answer[ComplaintFound | Absent | Unknown]:
        """Read a complaint with all that was said."""
        return await complaints.read(self.gateway, account, ref)

    async def reply_to_complaint(
        self, account: ChannelAccount, ref: str, text: str, images: Sequence[str] = ()
    ) -> Answer[ReplySent | Declined | NotSent | Unknown]:
        """Answer a customer's complaint."""
        return await complaints.reply(self.gateway, account, ref, text, images)

    async def read_complaint_image(
        self, account: ChannelAccount, ref: str
    ) -> Answer[bytes | Absent | Declined | Unknown]:
        """Fetch a picture of a complaint."""
        return await complaint_images.fetch(self.gateway, account, ref)

    async def send_complaint_image(
        self, account: ChannelAccount, media_type: str, content: bytes
    ) -> Answer[str | Declined | NotSent | Unknown]:
        """Send a picture up for an answer."""
        return await complaint_images.send(self.gateway, account, media_type, content)

    async def complete_complaint(
        self, account: ChannelAccount, ref: str
    ) -> Answer[ReplySent | Declined | NotSent | Unknown]:
        """Say that a complaint is dealt with."""
        return await complaints.complete(self.gateway, account, ref)

    async def announce(
        self, account: ChannelAccount, agreement_ref: str, money: Money
    ) -> Answer[Announced | Declined | NotSent | Unknown]:
        """Tell a customer through WeChat what will be taken; some plans want it a day before."""
        return await agreements.announce(self.gateway, account, agreement_ref, money)

    def read_callback(
        self, account: ChannelAccount, headers: Mapping[str, str], body: bytes, now: datetime
    ) -> Callback:
        """Verify and decrypt a callback.

        Raises:
            CallbackForged, CallbackKeyUnknown, CallbackUnreadable
        """
        return callbacks.read(account, headers, body, keys=self.gateway.keys(account), now=now)

    async def refresh_keys(self, account: ChannelAccount) -> None:
        """Fetch the platform certificates, at most once a minute per account."""
        await self.gateway.refresh_keys(account)

    def reply_to_callback(self, accepted: bool) -> CallbackReply:
        """Return 204, or a failure that asks for the next resend."""
        return callbacks.reply(accepted=accepted)

    async def download_bill(
        self, account: ChannelAccount, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch the day's trade bill of all states, unpacked, its SHA-1 verified."""
        return await bills.download_trade_bill(self.gateway, account, day, folder)

    def parse_bill(self, path: Path) -> Iterator[BillLine]:
        """Read a trade bill row by row."""
        return bills.parse_trade_bill(path)

    async def download_further_bill(
        self, account: ChannelAccount, kind: str, day: date, folder: Path
    ) -> Answer[BillOutcome]:
        """Fetch the day's bill of funds (three accounts) or of shares."""
        return await statements.download_statement(self.gateway, account, kind, day, folder)

    def combines_for(self, account: ChannelAccount) -> str:
        """Return whose combined orders the account's can be parts of."""
        return combined.combines_for(account)

    def part_of(self, account: ChannelAccount, order: PayOrder) -> CombinedPart:
        """Return an order of the account's as a part of a combined one."""
        return combined.part_of(account, order)

    async def pay_combined(self, account: ChannelAccount, order: CombinedOrder) -> Answer[Outcome]:
        """Offer several orders to the customer as one payment."""
        return await combined.place(self.gateway, account, order)

    async def query_combined(
        self, account: ChannelAccount, order: CombinedOrder
    ) -> Answer[tuple[PartFound, ...] | Absent | Unknown]:
        """Ask what became of each part of a combined order."""
        return await combined.query(self.gateway, account, order)

    async def close_combined(
        self, account: ChannelAccount, order: CombinedOrder
    ) -> Answer[Closed | Absent | Unknown]:
        """Make all parts of a combined order unpayable."""
        return await combined.close(self.gateway, account, order)

    async def drive_in(self, account: ChannelAccount, visit: CarVisit) -> Answer[VisitOutcome]:
        """Tell that a car drove in; the same visit again says how it stands by now."""
        return await parking.drive_in(self.gateway, account, visit)

    async def drive_out(
        self, account: ChannelAccount, visit: CarVisit, left_at: datetime, fee: ParkingFee | None
    ) -> Answer[Closed | Declined | NotSent | Unknown]:
        """Do nothing: WeChat Pay hears of the leaving with the fee."""
        del visit, left_at, fee
        return Answer(Closed(), unsent("POST", account.gateway, "nothing to tell"))

    async def look_up_plate(
        self, account: ChannelAccount, plate: str, colour: PlateColour, payer_id: str
    ) -> Answer[VisitOutcome]:
        """Ask whether the customer has opened the service for a plate."""
        return await parking.look_up(self.gateway, account, parking.Plate(plate, colour), payer_id)
