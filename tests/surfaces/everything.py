"""A shop to which everything has happened that a merchant can see, and all the ids of it."""

from __future__ import annotations

from base64 import b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.clearing.settling import settle_day
from tests.infra.signed_client import SignedClient
from tests.kernel.test_document_types import png
from tests.onboarding.applicants import Applicant
from tests.stage import Stage, new_number
from tests.surfaces.wallet_users import wallet_of_user
from tongbao.clearing.commissions.commissions import pay_commissions
from tongbao.clearing.disputes.chargebacks import DisputeAsked, open_dispute
from tongbao.clearing.disputes.model import DisputeState
from tongbao.duties import shop_of
from tongbao.kernel.card_numbers import check_digit
from tongbao.kernel.clock import business_date
from tongbao.kernel.ids import new_id, parse, show
from tongbao.kernel.licence import Mode
from tongbao.kernel.money import Money
from tongbao.ledger.proofs.checkpoints import prove_now
from tongbao.ledger.proofs.model import Proofs
from tongbao.parties.agents._store import Brought
from tongbao.parties.agents.agents import Chains, add_agent
from tongbao.parties.agents.model import AgentTerm
from tongbao.parties.terminals import inventory
from tongbao.parties.terminals.model import Parameters
from tongbao.parties.terminals.parameters import set_own_parameters
from tongbao.products.scenes.model import Guest
from tongbao.products.scenes.tables import order_dish, table_of_token
from tongbao.surfaces.demo.stage import Shop
from tongbao_sdk import Tongbao
from tongbao_sdk.replies import Payment

_TRANSFERS = """number,destination,payee,name,bank,amount,note
1,bank,6222020200112230009,x,,0.01,tea
"""


async def _logged(stage: Stage, client: Tongbao) -> str:
    """Ask for something harmless and return the id that the request log has of it."""
    await stage.call(client.balance)
    lines = client.request_log.list(method="GET", route="/v1/balance", limit=1)
    return str((await stage.call(next, lines))["id"])


async def something_of_everything(stage: Stage, shop: Shop, hooks: str) -> dict[str, str]:
    """Make something of every kind, and return one id for each path parameter of the API."""
    client = stage.client_of(shop)
    kept = await keep_card(stage, client)
    endpoint = await stage.call(client.webhook_endpoints.create, hooks)
    wallet = await stage.call(client.wallets.open, holder_name="张三")
    await stage.call(client.wallets.top_up, wallet["id"], amount=10_000)
    paid = await pay_by_wallet(stage, client, wallet["id"])
    refund = await stage.refund(paid, 100, client=client)
    day = business_date(stage.db.clock.now())
    await stage.advance(days=1)
    clearing = stage.platform.clearing
    [settled] = await settle_day(clearing, day, merchant_id=shop.merchant.id, mode=Mode.SANDBOX)
    paid = await pay_by_wallet(stage, client, wallet["id"])  # not settled: it can be given back
    await stage.show_qr("wechat_pay", client=client)
    delivery = await stage.call(client.webhook_endpoints.test, endpoint["id"])
    other = await stage.call(client.api_keys.roll, shop.key_id, overlap_s=2_592_000)
    await stage.idle()
    await prove_now(Proofs(stage.db, stage.platform.keyring))  # so that receipts can be asked for
    checkout = await stage.call(
        client.checkouts.create, merchant_order_no=new_number(), amount=1999, subject="tea"
    )
    phone = await stage.call(client.wallets.give_offline_key, wallet["id"], device_name="phone")
    plate = await stage.call(client.plates.create, name="counter", subject="tea")
    red_packet = await stage.call(
        client.red_packets.send, wallet["id"], kind="lucky", amount=100, parts=2
    )
    grab = await stage.call(client.red_packets.grab, red_packet["id"], wallet["id"])
    assert grab["outcome"] == "grabbed"
    sold = await sell(stage, client, wallet["id"])
    agreement = await stage.call(
        client.agreements.create,
        merchant_agreement_no=new_number(),
        channel="alipay",
        plan="GENERAL_WITHHOLDING_P/INDUSTRY|CARRENTAL",
        display_name="member",
        return_url="https://shop.example/member",
    )
    await stage.control("alipay/visit", url=agreement["next_action"]["url"], action="pay")
    await stage.idle()
    agreement = await stage.call(client.agreements.get, agreement["id"])
    assert agreement["status"] == "active"
    visit = await stage.call(
        client.parking.enter,
        merchant_visit_no=new_number(),
        channel="alipay",
        plate="粤B888888",
        plate_colour="BLUE",
        place="Harbour",
        lot="PI1",
    )
    combined = await stage.call(
        client.combined_payments.create,
        merchant_combined_no=new_number(),
        method={"mode": "qr", "channel": "wechat_pay"},
        orders=[
            {"merchant_order_no": new_number(), "amount": 100, "subject": each}
            for each in ("tea", "cake")
        ],
    )
    opened = await wallet_of_user(stage, client, "member-1")
    proposal = await stage.call(
        *(client.wallet_proposals.create, new_number(), opened["id"]),
        kind="top_up",
        amount=100,
        purpose="tea",
        expires_in_s=600_000,
    )
    [payout] = await stage.call(lambda: list(client.payouts.list()))
    report = await stage.call(client.transfer_batches.send, new_number(), _TRANSFERS)
    assert report["batch"] is not None
    batch_id = report["batch"]["id"]
    [transfer] = await stage.call(lambda: list(client.transfer_batches.transfers(batch_id)))
    return {
        "transfer_id": transfer["id"],
        "transfer_batch_id": batch_id,
        "payment_id": paid["id"],
        "refund_id": refund["id"],
        "event_id": delivery["event_id"],
        "request_id": await _logged(stage, client),
        "endpoint_id": endpoint["id"],
        "delivery_id": delivery["id"],
        "wallet_id": wallet["id"],
        "offline_key_id": phone["id"],
        "key_id": other["id"],
        "settlement_id": show("set", settled.id),
        "payout_id": payout["id"],
        "checkout_id": checkout["id"],
        "plate_id": plate["id"],
        "terminal_id": await have_terminal(stage, shop),
        "red_packet_id": red_packet["id"],
        "wallet_application_id": opened["id"],
        "wallet_proposal_id": proposal["id"],
        **sold,
        "agreement_id": agreement["id"],
        "combined_id": combined["id"],
        "visit_id": visit["id"],
        **await object_to(stage, client),
        **await share(stage, client, wallet["id"]),
        **await take_on(stage, shop),
        **kept,
    }


async def keep_card(stage: Stage, client: Tongbao) -> dict[str, str]:
    """Keep a card in the vault, with a token on a device; return the ids of both."""
    digits = f"62519000000{new_id().int % 10**6:06d}"
    number = digits + check_digit(digits)
    card = await stage.call(client.vault_cards.save, number, "4912")
    until = (stage.db.clock.now() + timedelta(days=30)).isoformat()
    token = await stage.call(
        client.vault_cards.ask_for_token, card["id"], expires_at=until, kind="device"
    )
    await stage.call(client.card_tokens.activate, token["id"])
    await stage.call(client.card_tokens.give_key, token["id"])
    return {"card_id": card["id"], "token_id": token["id"]}


async def object_to(stage: Stage, client: Tongbao) -> dict[str, str]:
    """Let a scheme and a customer object to a payment; return the ids of both cases."""
    paid = await stage.paid("wechat_pay", 1000, client=client)
    row = await stage.row_of(paid)
    asked = DisputeAsked(
        "visa", new_number(), "10.4", "", Money(100, "CNY"), DisputeState.CHARGEBACK
    )
    made = await open_dispute(stage.flow, row, asked, actor="scheme", why="a row")
    dispute = show("dsp", made.id)
    page = {"name": "a.pdf", "media_type": "application/pdf", "content": b"%PDF-1.7"}
    await stage.call(client.disputes.hand_in, dispute, **page)
    number = (await stage.attempt_of(paid)).number
    await stage.control("wechat/complain", number=number, images=[b64encode(png()).decode()])
    await stage.idle()
    [complaint] = await stage.call(lambda: list(client.complaints.list(payment_id=paid["id"])))
    await stage.call(client.complaints.reply, complaint["id"], "sorry")
    await stage.idle()
    [image] = await stage.call(client.complaints.images, complaint["id"])
    return {"dispute_id": dispute, "complaint_id": complaint["id"], "image_id": image["id"]}


async def share(stage: Stage, client: Tongbao, wallet_id: str) -> dict[str, str]:
    """Hold a share of a payment for a wallet; return the ids of the split and its receiver."""
    paid = await pay_by_wallet(stage, client, wallet_id)
    receiver = await stage.call(client.splits.bind, kind="wallet", account=wallet_id)
    split = await stage.call(
        client.splits.create,
        paid["id"],
        merchant_split_no=new_number(),
        shares=[{"receiver_id": receiver["id"], "amount": 10}],
        releases="later",
    )
    return {"receiver_id": receiver["id"], "split_id": split["id"]}


async def have_terminal(stage: Stage, shop: Shop) -> str:
    """Return the id of a terminal that stands at the shop."""
    serial = f"SN{new_number()[:20].upper()}"
    async with stage.db.begin("test") as tx:
        await inventory.import_serials(tx, f"serial\n{serial}".encode(), name="b", model="S1")
        found = await inventory.terminal_with_serial(tx, serial)
        await inventory.assign_terminal(tx, found.id, shop.merchant, Mode.SANDBOX)
        await set_own_parameters(tx, found.id, Parameters(volume=3), why="a quiet shop")
    return show("trm", found.id)


async def sell(stage: Stage, client: Tongbao, wallet_id: str) -> dict[str, str]:
    """Make something of every kind that a shop has, and return an id of each."""
    product = await stage.call(
        client.products.create,
        name="tea",
        skus=[{"code": new_number(), "price": 300, "stock": 9}, {"code": new_number(), "price": 1}],
    )
    [sku, other] = product["skus"]
    await stage.call(
        client.orders.place, merchant_order_no=new_number(), lines=[{"sku_id": sku["id"]}]
    )
    shown = await stage.call(client.wallets.payment_code, wallet_id)
    order = await stage.call(
        client.orders.sell_at_counter,
        merchant_order_no=new_number(),
        amount=100,
        auth_code=shown["code"],
    )
    assert order["status"] == "paid"
    await stage.call(client.orders.review, order["id"], stars=5, words="good")
    table = await stage.call(client.tables.create, "table 7")
    row = await table_of_token(stage.db, table["url"].rpartition("/")[2])
    shop, guest = shop_of(stage.flow), Guest(new_id(), "Anne")
    await order_dish(shop, row, guest, (parse("sku", other["id"]), 1), dish_id=new_id())
    tab, *_ = await stage.call(lambda: list(client.tables.tabs()))
    dish, *_ = await stage.call(lambda: list(client.tables.dishes()))
    return {
        "product_id": product["id"],
        "sku_id": sku["id"],
        "order_id": order["id"],
        "table_id": table["id"],
        "tab_id": tab["id"],
        "dish_id": dish["id"],
    }


async def take_on(stage: Stage, shop: Shop) -> dict[str, str]:
    """Let the shop apply for another, earn as an agent, and have a store with somebody in it."""
    applicant = Applicant(stage)
    applicant.client = SignedClient(stage.app, shop.key_id, shop.secret.reveal())
    made = await applicant.opened()
    place = {"area_code": "330106", "address": "Wensan Road 1"}
    said = {"store_no": new_number(), "name": "west", "place": place}
    _, store = await applicant.ask("POST", "/v1/stores", said)
    said = {"role": "owner", "name": "Li", "phone": "13900005678", "every_store": True}
    _, person = await applicant.ask("POST", "/v1/staff", said)
    async with stage.db.begin("test") as tx:
        who = shop.merchant.id, Mode.SANDBOX
        agent = await add_agent(tx, *who, name="own", share_ppm=1_000_000, parent_id=None)
        before = AgentTerm(agent.id, 1, None, 1_000_000, datetime.min.replace(tzinfo=UTC), "test")
        brought = Brought(*who, 1, agent.id, before.valid_from, "test")
    chains = Chains([brought], [before])
    [earned] = await pay_commissions(stage.platform.clearing, chains, *who)
    registration = await applicant.registration(made)
    return {
        "application_id": made["id"],
        "registration_id": show("reg", registration.id),
        "store_id": store["id"],
        "staff_id": person["id"],
        "commission_id": show("com", earned.id),
    }


async def pay_by_wallet(stage: Stage, client: Tongbao, wallet_id: str) -> Payment:
    """Return a payment a wallet has paid."""
    shown = await stage.call(client.wallets.payment_code, wallet_id)
    return await stage.scan_code(shown["code"], client=client)


async def snapshot(stage: Stage, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a digest of every table, so that a test can say that nothing has changed."""
    rows = await stage.db.fetch(
        "select relname::text from pg_class where relnamespace = 'public'::regnamespace"
        " and relkind in ('r', 'p') and not relispartition order by 1",
        (),
    )
    digests = {}
    for (table,) in rows:
        if table not in {*without, *HEARD_OF_CHANNELS}:
            sql = f"select count(*), md5(string_agg(t::text, '|' order by t::text)) from {table} t"
            [digest] = await stage.db.fetch(sql, ())
            digests[table] = tuple(digest)
    return digests


PROOF_OF_CALLS = ("api_nonce", "api_key", "rate_bucket", "request_line")
"""What every signed call leaves, refused or not: its nonce, its line, and the key's last use."""
HEARD_OF_CHANNELS = ("routing_bucket", "routing_breaker")
"""How calls to channels fared, written down a moment later."""
REFUSED_BY_THE_BOOK = ("ledger_request", "ledger_batch", "ledger_book", "ledger_watermark")
"""What a refusal of the ledger leaves, which it remembers for ever."""
