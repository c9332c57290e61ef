"""The SDK has a method for every route and a type for every reply, and they are the routes' own."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, NotRequired, Required, get_args, get_origin, get_type_hints, is_typeddict

import httpx2 as httpx

from tests.stage import Stage
from tongbao_sdk import (
    Tongbao,
    cashier,
    models,
    replies,
    vault,
)
from tongbao_sdk import shop as selling
from tools import python_types

REPLIES: dict[str, Any] = {
    "PaymentView": replies.Payment,
    "RefundView": replies.Refund,
    "RedirectionView": replies.RefundRedirection,
    "AgreementView": replies.Agreement,
    "AnnouncementView": replies.Announcement,
    "CombinedPaymentView": replies.CombinedPayment,
    "CombinedPartView": replies.CombinedPart,
    "ConsentView": replies.CombiningConsent,
    "ParkingVisitView": replies.ParkingVisit,
    "ParkingPlateView": replies.ParkingPlate,
    "EventView": replies.Event,
    "RequestView": replies.LoggedRequest,
    "ReplayView": replies.RequestReplay,
    "WebhookEndpointView": replies.WebhookEndpoint,
    "DeliveryView": replies.WebhookDelivery,
    "AttemptView": replies.DeliveryAttempt,
    "ApiKeyView": replies.ApiKey,
    "MerchantView": replies.Merchant,
    "CheckoutView": replies.Checkout,
    "PlateView": replies.Plate,
    "TerminalView": replies.TerminalDetails,
    "ActivationCodeView": replies.ActivationCode,
    "LimitsView": replies.TerminalLimits,
    "Limits": replies.Limits,
    "ParametersView": replies.TerminalParameters,
    "ApplicationView": replies.Application,
    "DocumentView": replies.Document,
    "FirstKey": replies.FirstKey,
    "RegistrationView": replies.Registration,
    "Registrations": replies.Registrations,
    "RejectedField": replies.RejectedField,
    "StoreView": replies.Store,
    "Place": replies.Place,
    "Point": replies.Point,
    "StaffView": replies.Staff,
    "PinCodeView": replies.StaffPinCode,
    "StaffActView": replies.StaffAct,
    "TermsView": replies.MerchantTerms,
    "TermsInForce": replies.TermsInForce,
    "SignatureView": replies.Signature,
    "Firm": replies.Firm,
    "Trade": replies.Trade,
    "Masked": replies.Masked,
    "ChannelAsked": replies.ChannelAsked,
    "CommissionView": replies.Commission,
    "CommissionLineView": replies.CommissionLine,
    "WalletView": replies.Wallet,
    "DisputeView": replies.Dispute,
    "FileView": replies.EvidenceFile,
    "ComplaintView": replies.Complaint,
    "MessageView": replies.ComplaintMessage,
    "ImageView": replies.ComplaintImage,
    "ImageContentView": replies.ComplaintImageContent,
    "ReplyView": replies.ComplaintReply,
    "RedPacketView": replies.RedPacket,
    "GrabView": replies.Grab,
    "GrabAnswer": replies.GrabAnswer,
    "WalletProgrammeTermsView": replies.WalletProgrammeTerms,
    "WalletProgrammeView": replies.WalletProgramme,
    "WalletApplicationView": replies.WalletApplication,
    "WalletProposalView": replies.WalletProposal,
    "WalletLinkView": replies.WalletLink,
    "WalletBalanceView": replies.UserBalance,
    "WalletLineView": replies.WalletLine,
    "ProductView": replies.Product,
    "SkuView": replies.Sku,
    "OrderView": replies.Order,
    "LineView": replies.OrderLine,
    "OrderRefundView": replies.OrderRefund,
    "RefundedLine": replies.RefundedLine,
    "OrderExport": replies.OrderExport,
    "ReviewView": replies.Review,
    "TableView": replies.DiningTable,
    "TabView": replies.Tab,
    "DishView": replies.Dish,
    "WalletQrView": replies.WalletQr,
    "WalletAgreementView": replies.WalletAgreement,
    "PaymentCodeView": replies.PaymentCode,
    "TopUpView": replies.TopUp,
    "OfflineKeyView": replies.OfflineKey,
    "CardView": replies.VaultCard,
    "TokenView": replies.CardToken,
    "ControlsView": replies.TokenControls,
    "UseKeyView": replies.CardTokenKey,
    "CardBalancesView": replies.CardBalances,
    "CardBalanceView": replies.CardBalance,
    "ClockView": replies.ClockReading,
    "MethodView": replies.MethodUsed,
    "ShowQr": replies.ShowQr,
    "Redirect": replies.Redirect,
    "SubmitForm": replies.SubmitForm,
    "OpenApp": replies.OpenApp,
    "Failure": replies.Failure,
    "BankAccountView": replies.BankAccount,
    "PricePlanView": replies.PricePlan,
    "PriceLine": replies.PriceLine,
    "Step": replies.PriceStep,
    "Promotion": replies.PricePromotion,
    "PricePlans": replies.PricePlans,
    "PriceQuoteView": replies.PriceQuote,
    "ReceiverView": replies.Receiver,
    "SplitView": replies.Split,
    "ShareView": replies.Share,
    "SplitReturnView": replies.SplitReturn,
    "PaymentShares": replies.PaymentShares,
    "UnsplitView": replies.UnsplitMoney,
    "CurrencyBalance": replies.CurrencyBalance,
    "BalanceView": replies.Balance,
    "SettlementView": replies.Settlement,
    "SettlementLineView": replies.SettlementLine,
    "PayoutView": replies.Payout,
    "PaperView": replies.Paper,
    "PayoutReceipt": replies.PayoutReceiptFacts,
    "PayoutReceiptView": replies.PayoutReceipt,
    "RowFault": replies.RowFault,
    "TransferFileReport": replies.TransferFileReport,
    "TransferBatchView": replies.TransferBatch,
    "TransferItemView": replies.Transfer,
    "Receipt": replies.Receipt,
    "ReceiptTransfer": replies.ReceiptTransfer,
    "ReceiptEntry": replies.ReceiptEntry,
    "ReceiptSide": replies.ReceiptSide,
}
NOT_REPLIES = {"Problem"}  # it is `Refused`


async def test_the_types_of_replies_are_made_of_the_description(stage: Stage) -> None:
    assert python_types.replies(stage.app.document) == python_types.PATH.read_text("utf-8")


async def test_every_reply_has_the_type_the_sdk_says(stage: Stage) -> None:
    document = stage.app.document
    schemas = document["components"]["schemas"]
    shown = {
        name for name in python_types.shown_in_replies(document) if "properties" in schemas[name]
    }
    pages = {name for name in shown if name.startswith("Page")}

    assert shown - pages - NOT_REPLIES == REPLIES.keys()
    differences = [
        f"{name}: {problem}"
        for name, kind in REPLIES.items()
        for problem in compared(kind, schemas[name], schemas)
    ]
    assert not differences, "\n".join(differences)
    for name in pages:
        assert set(schemas[name]["properties"]) == set(models.Page.__annotations__)


def compared(kind: Any, schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    """What a TypedDict says otherwise than a schema."""
    hints = get_type_hints(kind, include_extras=True)
    if set(hints) != set(schema["properties"]):
        yield f"fields {set(hints) ^ set(schema['properties'])}"
        return
    optional = {name for name, hint in hints.items() if get_origin(hint) is NotRequired}
    if set(hints) - optional != set(schema.get("required", ())):
        yield f"required {(set(hints) - optional) ^ set(schema.get('required', ()))}"
    for name, hint in hints.items():
        inner = get_args(hint)[0] if get_origin(hint) in {NotRequired, Required} else hint
        said, is_so = words_of(inner), words_of_schema(schema["properties"][name], schemas)
        if said != is_so:
            yield f"{name} is {is_so}, not {said}"


def words_of(hint: Any) -> object:
    """A type in comparable words: JSON types, literal values, names of other TypedDicts."""
    if is_typeddict(hint):
        return next(name for name, kind in REPLIES.items() if kind is hint)
    if get_origin(hint) in {list, dict}:
        return (get_origin(hint).__name__, words_of(get_args(hint)[-1]))
    if values := [arg for arg in get_args(hint) if isinstance(arg, str)]:
        return frozenset(values)
    if get_args(hint):
        return frozenset(words_of(arg) for arg in get_args(hint))
    return {str: "string", int: "integer", bool: "boolean", type(None): "null", Any: "any"}[hint]


def words_of_schema(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> object:
    """The same words for a JSON Schema."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        inner = schemas[name]
        return words_of_schema(inner, schemas) if "properties" not in inner else name
    if "anyOf" in schema:
        return frozenset(words_of_schema(each, schemas) for each in schema["anyOf"])
    if "enum" in schema:
        return frozenset(schema["enum"])
    if "const" in schema:
        return frozenset([schema["const"]])
    if schema.get("type") == "array":
        return ("list", words_of_schema(schema["items"], schemas))
    if schema.get("type") == "object":
        return ("dict", words_of_schema(schema.get("additionalProperties", {}), schemas))
    return schema.get("type", "any")


class Recorder(Tongbao):
    """A client whose requests go nowhere and are noted."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str]] = []
        self.bodies: dict[tuple[str, str], Any] = {}
        self.asked: dict[tuple[str, str], set[str]] = defaultdict(set)

        def answer(request: httpx.Request) -> httpx.Response:
            at = (request.method, request.url.path)
            self.seen.append(at)
            self.asked[at] |= set(request.url.params)
            self.bodies[at] = json.loads(request.content) if request.content else None
            return httpx.Response(200, json={"items": [], "next_cursor": None})

        client = httpx.Client(transport=httpx.MockTransport(answer))
        super().__init__("http://platform", key_id="key_1", secret="s", client=client)


def every_call(shop: Tongbao) -> None:
    """Call every method once with everything it takes."""
    method: models.Method = {"mode": "payment_code", "channel": "alipay", "auth_code": "28" * 9}
    shop.payments.create(
        merchant_order_no="1",
        amount=1,
        subject="t",
        method=method,
        expires_in_s=60,
        metadata={"a": "b"},
        capture="manual",
        capture_within_s=3600,
        terminal_id="trm_1",
    )
    shop.payments.capture("pay_1", amount=1, currency="CNY")
    shop.agreements.create(
        merchant_agreement_no="1",
        channel="alipay",
        plan="p",
        display_name="d",
        payer_id="1",
        return_url="https://a.example",
        limit_each=1,
        period="month",
        limit_per_period=1,
        limit_total=1,
        payments_max=1,
        signs_in="app",
        expires_in_s=60,
    )
    shop.agreements.get("agr_1")
    shop.agreements.find("1")
    list(shop.agreements.list(status="active"))
    shop.agreements.announce("agr_1", 1)
    shop.agreements.end("agr_1")
    shop.combined_payments.create(
        merchant_combined_no="1",
        method=method,
        orders=[
            {
                "merchant_order_no": "1",
                "amount": 1,
                "subject": "x",
                "merchant_id": "mch_1",
                "metadata": {"a": "b"},
            }
        ],
        expires_in_s=60,
    )
    shop.parking.enter(
        merchant_visit_no="1",
        channel="alipay",
        plate="A88888",
        plate_colour="BLUE",
        place="p",
        lot="1",
        free_s=1,
        entered_at="2026-11-21T00:00:00Z",
        device="1",
    )
    shop.parking.charge(
        "prk_1",
        merchant_order_no="1",
        amount=1,
        subject="p",
        left_at="2026-11-21T00:00:00Z",
        metadata={"a": "b"},
    )
    shop.parking.leave("prk_1", left_at="2026-11-21T00:00:00Z")
    shop.parking.look_up(channel="wechat_pay", plate="A88888", plate_colour="BLUE", payer_id="o")
    shop.parking.get("prk_1")
    shop.parking.find("1")
    list(shop.parking.list(status="open"))
    shop.refunds.send_on(
        "ref_1", target="customer_card", bank="B", account_number="62220000", holder="x"
    )
    shop.refunds.sent_on("ref_1")
    shop.combined_payments.get("cmb_1")
    shop.combined_payments.find("1")
    list(shop.combined_payments.list())
    shop.combined_payments.close("cmb_1")
    shop.combined_payments.let("mch_1")
    shop.combined_payments.let_no_more("mch_1")
    shop.combined_payments.who_may()
    shop.payments.void("pay_1")
    card: models.Card = {
        "number": "6251880000000177", "expiry": "4912", "entry": "051", "terminal": "1",
        "merchant": "1", "track2": "6251880000000177=4912", "sequence": "1", "chip_hex": "00",
        "pin_block_hex": "0" * 16,
    }  # fmt: skip
    shop.payments.card_balances(card)
    shop.payments.get("pay_1")
    shop.payments.find("1")
    shop.payments.receipt("pay_1")
    time: dict[str, str] = {
        "created_from": "2026-11-21T00:00:00Z",
        "created_to": "2026-11-22T00:00:00Z",
    }
    list(shop.payments.list(status="succeeded", channel="alipay", metadata={"a": "b"}, **time))
    shop.payments.close("pay_1")
    shop.payments.refund("pay_1", merchant_refund_no="1", amount=1, reason="r")
    shop.refunds.get("ref_1")
    shop.refunds.find("1")
    list(shop.refunds.list(payment_id="pay_1", status="succeeded", merchant_refund_no="1"))
    shop.checkouts.create(
        merchant_order_no="1",
        amount=1,
        subject="t",
        channels=["alipay"],
        return_url="https://a.example",
        expires_in_s=600,
        metadata={"a": "b"},
        terminal_id="trm_1",
    )
    shop.checkouts.get("cko_1")
    list(shop.checkouts.list(merchant_order_no="1"))
    shop.checkouts.close("cko_1")
    emv: cashier.EmvDetails = {"category": "5814", "name": "TEA", "city": "HANGZHOU"}
    shop.plates.create(name="n", subject="t", amount=1, emv=emv)
    shop.plates.get("plt_1")
    list(shop.plates.list())
    shop.plates.revoke("plt_1")
    list(shop.terminals.list(status="bound", serial="S"))
    shop.terminals.get("trm_1")
    shop.terminals.activation_code("trm_1")
    shop.terminals.place("trm_1", name="n", plate_id="plt_1", store_id="sto_1")
    shop.terminals.suspend("trm_1", reason="r")
    shop.terminals.resume("trm_1", reason="r")
    shop.terminals.report_stolen("trm_1", reason="r")
    shop.terminals.limits("trm_1")
    shop.terminals.set_limits("trm_1", each=1, count=1, amount=1, currency="CNY")
    list(shop.terminals.parameters("trm_1"))
    shop.terminals.set_parameters("trm_1", {"volume": 1}, reason="r")
    shop.terminals.roll_back_parameters("trm_1", version=1)
    list(shop.request_log.list(method="GET", route="/v1/x", status=200, **time))
    list(shop.request_log.list(code="c", key_id="key_1"))
    shop.request_log.get("req_1")
    shop.request_log.replay("req_1")
    shop.events.get("evt_1")
    list(shop.events.list(type="payment.succeeded", resource_id="pay_1", **time))
    shop.events.page(limit=1)
    shop.webhook_endpoints.create(
        "https://a.example", event_types=["*"], description="d", api_version="2026-11-22"
    )
    shop.webhook_endpoints.get("whe_1")
    list(shop.webhook_endpoints.list())
    shop.webhook_endpoints.update(
        "whe_1",
        url="https://b.example",
        event_types=["*"],
        description="d",
        enabled=True,
        api_version="2026-11-22",
    )
    shop.webhook_endpoints.rotate_key("whe_1", overlap_s=1)
    shop.webhook_endpoints.test("whe_1")
    list(shop.webhook_endpoints.deliveries("whe_1", status="failed"))
    list(shop.webhook_endpoints.attempts("whd_1"))
    shop.webhook_endpoints.replay("whd_1")
    shop.webhook_endpoints.delete("whe_1")
    shop.api_keys.get("key_1")
    list(shop.api_keys.list())
    shop.api_keys.roll("key_1", overlap_s=1, public_key="pem")
    shop.api_keys.revoke("key_1")
    shop.wallets.open(holder_name="张三", currency="CNY")
    shop.wallets.get("wal_1")
    list(shop.wallets.list())
    shop.wallets.payment_code("wal_1")
    shop.wallets.scan("wal_1", "tongbao:pay/1")
    shop.wallets.pay("wal_1", "tongbao:pay/1")
    shop.wallets.scan_agreement("wal_1", "tongbao:sign/1")
    shop.wallets.sign("wal_1", "tongbao:sign/1")
    shop.wallets.end_agreement("agr_1")
    shop.wallets.give_offline_key("wal_1", device_name="phone", replaces="ofk_1")
    list(shop.wallets.offline_keys("wal_1"))
    shop.wallets.revoke_offline_key("ofk_1")
    shop.wallets.freeze("wal_1")
    shop.wallets.unfreeze("wal_1")
    shop.wallets.top_up("wal_1", amount=1)
    shop.red_packets.send("wal_1", kind="lucky", amount=2, parts=2, greeting="g", expires_in_s=60)
    shop.red_packets.get("rpk_1")
    list(shop.red_packets.list(wallet_id="wal_1"))
    shop.red_packets.grab("rpk_1", "wal_1")
    list(shop.red_packets.grabs("rpk_1"))
    list(shop.red_packets.received("wal_1"))
    open_wallets(shop)
    keep_cards(shop)
    object_to(shop)
    sell(shop)
    share(shop)
    shop.test_clock.read()
    shop.test_clock.advance(1)
    shop.merchant()
    shop.balance()
    shop.settlements.get("set_1")
    list(shop.settlements.list(day="2026-11-21", currency="CNY"))
    list(shop.settlements.lines("set_1"))
    shop.payouts.get("pyo_1")
    list(shop.payouts.list(status="failed", settlement_id="set_1"))


def open_wallets(shop: Tongbao) -> None:
    """Have users open wallets, and propose movements to them."""
    shop.wallet_programmes.set(
        name="n",
        return_urls=["https://x.test"],
        account_class=3,
        grants=["balance"],
        each_max=1,
        day_max=1,
    )
    list(shop.wallet_programmes.list())
    shop.wallet_applications.create("user-1")
    shop.wallet_applications.get("wap_1")
    list(shop.wallet_applications.list(user_id="user-1", status="opened"))
    shop.wallet_applications.link("wap_1", "https://x.test", purpose="manage")
    shop.wallet_applications.balance("wap_1")
    list(shop.wallet_applications.lines("wap_1"))
    shop.wallet_proposals.create(
        *("1", "wap_1"),
        kind="payment",
        amount=1,
        purpose="tea",
        payee="eac_1",
        payment_code="tongbao:pay/1",
    )
    shop.wallet_proposals.get("wpr_1")
    which = {"application_id": "wap_1", "merchant_proposal_no": "1"}
    list(shop.wallet_proposals.list(**which, status="done"))
    shop.wallet_proposals.link("wpr_1", "https://x.test")


def keep_cards(shop: Tongbao) -> None:
    """Call every method of the vault."""
    shop.vault_cards.save("4929420573595709", "4912")
    list(shop.vault_cards.list())
    shop.vault_cards.get("crd_1")
    shop.vault_cards.reissue("crd_1", "4929420573595709", "4912")
    shop.vault_cards.delete("crd_1")
    limits: vault.NewTokenControls = {"amount_max": 1}
    shop.vault_cards.ask_for_token("crd_1", expires_at="2027-01-01T00:00:00Z", controls=limits)
    list(shop.card_tokens.list(card_id="crd_1"))
    shop.card_tokens.get("ctk_1")
    shop.card_tokens.activate("ctk_1")
    shop.card_tokens.suspend("ctk_1")
    shop.card_tokens.resume("ctk_1")
    shop.card_tokens.delete("ctk_1")
    shop.card_tokens.replace("ctk_1")
    shop.card_tokens.give_key("ctk_1")


def sell(shop: Tongbao) -> None:
    """Call every method of a shop, its counter and its tables."""
    sku: selling.NewSku = {"code": "c", "price": 1}
    shop.products.create(name="n", skus=[sku], image_key="k")
    shop.products.get("prd_1")
    list(shop.products.list(category="c", on_shelf=True))
    shop.products.update(
        "prd_1", name="n", category="c", description="d", image_key="k", on_shelf=True
    )
    shop.products.add_sku("prd_1", code="c", price=1, name="n", stock=1)
    shop.products.set_price("sku_1", 1)
    shop.products.adjust_stock("sku_1", change=1, reason="r")
    shop.orders.place(
        merchant_order_no="1",
        lines=[{"sku_id": "sku_1", "quantity": 1}],
        return_url="https://a.example",
        metadata={"a": "b"},
    )
    shop.orders.sell_at_counter(merchant_order_no="1", amount=1, auth_code="28" * 9)
    shop.orders.get("ord_1")
    time = {"created_from": "2026-11-21T00:00:00Z", "created_to": "2026-11-22T00:00:00Z"}
    list(shop.orders.list(status="paid", merchant_order_no="1", **time))
    shop.orders.export(status="paid", cursor="c", **time)
    shop.orders.cancel("ord_1")
    shop.orders.fulfil("ord_1")
    shop.orders.refund("ord_1", lines=[{"number": 1, "quantity": 1}], reason="r")
    list(shop.orders.refunds("ord_1"))
    shop.orders.review("ord_1", stars=5, words="w")
    list(shop.orders.reviews())
    shop.tables.create("t")
    list(shop.tables.list())
    shop.tables.revoke("tbl_1")
    shop.tables.tab("tab_1")
    list(shop.tables.tabs(status="open"))
    shop.tables.bill("tab_1", guest_id="gst_1")
    shop.tables.close("tab_1")
    list(shop.tables.dishes(status="ordered"))
    shop.tables.move("dsh_1", "ready")
    parts = ("firm", "legal_person", "contact", "account", "trade", "channels", "prices")
    said = dict.fromkeys((*parts, "settlement_delay_days"), 1)
    shop.applications.create("1", said)
    list(shop.applications.list(status="draft"))
    shop.applications.get("app_1")
    shop.applications.amend("app_1", said)
    shop.applications.add_document("app_1", "store_front", b"")
    shop.applications.add_file("app_1", "store_front", b"", "image/png")
    shop.applications.terms()
    shop.applications.sign("app_1", version=1, sha256="0", signer="s", method="click")
    shop.applications.submit("app_1")
    shop.applications.withdraw("app_1")
    shop.applications.first_key("app_1")
    shop.applications.registrations("app_1")
    shop.applications.registration("reg_1")
    shop.applications.send_again("reg_1")
    place: Any = {"area_code": "330106", "address": "a"}
    shop.stores.open("1", name="n", place=place)
    list(shop.stores.list())
    shop.stores.get("sto_1")
    shop.stores.change("sto_1", name="n", place=place)
    shop.staff.add(name="n", phone="1", role="owner", every_store=True)
    list(shop.staff.list())
    shop.staff.get("stf_1")
    shop.staff.change("stf_1", role="owner", every_store=True)
    shop.staff.leave("stf_1")
    shop.staff.suspend("stf_1")
    shop.staff.resume("stf_1")
    shop.staff.pin_code("stf_1")
    list(shop.staff.acts("stf_1"))
    list(shop.commissions.list())
    list(shop.commissions.lines("com_1"))
    shop.settlements.statement("set_1", layout="pdf")
    shop.settlements.quick("CNY")
    shop.settlements.settle_in_sandbox("CNY")
    shop.payouts.receipt("pyo_1")
    shop.transfer_batches.send("1", "c", currency="CNY")
    list(shop.transfer_batches.list())
    shop.transfer_batches.get("trb_1")
    list(shop.transfer_batches.transfers("trb_1"))
    shop.transfer_batches.drop("trb_1")
    shop.transfer_batches.take_back("tri_1")


def share(shop: Recorder) -> None:
    shop.prices.plans()
    shop.prices.quote(channel="c", pay_mode="m", amount=1, currency="CNY", card="any")
    shop.splits.bind(
        kind="channel", account="a", channel="c", channel_kind="k", name="n", relation="r"
    )
    list(shop.splits.receivers())
    shop.splits.unbind("rcv_1")
    shop.splits.create(
        "pay_1",
        merchant_split_no="n",
        shares=[{"receiver_id": "rcv_1", "amount": 1}],
        releases="at",
        release_at="t",
    )
    shop.splits.finish("pay_1", merchant_split_no="n")
    shop.splits.of_payment("pay_1")
    shop.splits.unsplit("pay_1")
    shop.splits.get("spl_1")
    shop.splits.release("spl_1")
    shop.splits.cancel("spl_1")
    shop.splits.give_back("spl_1", receiver_id="rcv_1", amount=1, merchant_return_no="n")


async def test_every_route_has_a_method_that_can_say_everything(stage: Stage) -> None:
    document = stage.app.document
    shop = Recorder()
    every_call(shop)
    called = {f"{at[0]} {re.sub(r'/[a-z]{3}_1', '/{}', at[1])}": at for at in shop.seen}

    for path, methods in document["paths"].items():
        for verb, operation in methods.items():
            route = f"{verb.upper()} {re.sub(r'{[^}]+}', '{}', path)}"
            assert route in called, f"the SDK cannot {route}"
            body = operation.get("requestBody")
            if body is not None and "application/json" in body["content"]:  # or it is a file
                schema = body["content"]["application/json"]["schema"]
                name = schema["$ref"].rpartition("/")[2]
                fields = document["components"]["schemas"][name]["properties"]
                assert set(shop.bodies[called[route]]) == set(fields), route
            asked = {p["name"] for p in operation["parameters"] if p.get("in") == "query"}
            assert shop.asked[called[route]] >= asked - {"cursor"}, route


async def test_no_method_is_for_a_route_that_does_not_exist(stage: Stage) -> None:
    known = {
        f"{verb.upper()} {re.sub(r'{[^}]+}', '{}', path)}"
        for path, methods in stage.app.document["paths"].items()
        for verb in methods
    }
    shop = Recorder()
    every_call(shop)

    called = {f"{verb} {re.sub(r'/[a-z]{3}_1', '/{}', path)}" for verb, path in shop.seen}

    assert called <= known


def object_to(shop: Tongbao) -> None:
    """Call what there is about disputes and complaints."""
    shop.disputes.get("dsp_1")
    list(shop.disputes.list(payment_id="pay_1", status="lost", scheme_ref="CB1"))
    shop.disputes.raise_in_sandbox("pay_1", 100, stage="retrieval")
    shop.disputes.hand_in("dsp_1", name="a.pdf", media_type="application/pdf", content=b"%PDF-")
    shop.disputes.files("dsp_1")
    shop.disputes.answer("dsp_1", "see the file")
    shop.disputes.accept("dsp_1", "they are right")
    shop.complaints.get("cpl_1")
    list(shop.complaints.list(status="pending", payment_id="pay_1"))
    shop.complaints.messages("cpl_1")
    shop.complaints.images("cpl_1")
    shop.complaints.image("cpi_1")
    shop.complaints.hand_in("cpl_1", name="a.jpg", media_type="image/jpeg", content=b"")
    shop.complaints.reply("cpl_1", "sorry", complete=False)
