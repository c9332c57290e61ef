"""Wiring: the one module that knows everyone. Settings go in, a running platform comes out.

Read the tables first: `routes` and `channels` here, tasks and events in `duties`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from litestar.handlers import HTTPRouteHandler
from msgspec.structs import replace

from tongbao.acts import approvals
from tongbao.clearing import daily
from tongbao.clearing.batches import batches
from tongbao.clearing.commissions import api as commissions_api
from tongbao.clearing.commissions import commissions
from tongbao.clearing.complaints import api as complaints_api
from tongbao.clearing.complaints import complaints
from tongbao.clearing.context import Clearing
from tongbao.clearing.disputes import api as disputes_api
from tongbao.clearing.disputes import debts
from tongbao.clearing.payouts import api as payouts_api
from tongbao.clearing.reserve import proving as reserve
from tongbao.clearing.settlement import api as settlement_api
from tongbao.clearing.statements import api as statements_api
from tongbao.clearing.suspense import items as suspense
from tongbao.clearing.transfers import api as transfers_api
from tongbao.connections import SECRETS, channels
from tongbao.controls.audit_log import watching as audit_watching
from tongbao.duties import EVENTS, POLICIES, handlers, reach_of, shop_of, subscribers
from tongbao.infra import embedded, test_clock
from tongbao.infra.admission.rate_limits import RateLimit
from tongbao.infra.admission.rate_shares import RateLimits
from tongbao.infra.blobs.place import blobs_of
from tongbao.infra.commits import Commits
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db, connect
from tongbao.infra.db_failures import LockNotFree
from tongbao.infra.embedded import EmbeddedServer
from tongbao.infra.http import Anywhere, HttpClient
from tongbao.infra.kms import rewrapping
from tongbao.infra.kms.opening import key_desk, open_keyring
from tongbao.infra.migrate import migrate
from tongbao.infra.outbox import public_types
from tongbao.infra.request_log.lines import RequestLog
from tongbao.infra.serving.app import App
from tongbao.infra.serving.asgi import Asgi
from tongbao.infra.serving.hosts import own_hosts_of
from tongbao.infra.serving.openapi import ApiFacts
from tongbao.infra.settings import Settings
from tongbao.infra.telemetry import set_up_logging
from tongbao.infra.webhooks.courier import Courier, clients_of
from tongbao.infra.webhooks.model import WebhookRules
from tongbao.infra.worker import Worker
from tongbao.kernel.clock import Clock
from tongbao.kernel.licence import Licence
from tongbao.ledger.archive.months import make_months
from tongbao.ledger.book import Ledger
from tongbao.ledger.general import vouchers
from tongbao.ledger.model import BookElsewhere, LedgerOverloaded, LedgerUnanswered
from tongbao.ledger.movements import queries as movements
from tongbao.ledger.movements import splits
from tongbao.ledger.proofs import checkpoints
from tongbao.parties.accounts import api as accounts_api
from tongbao.parties.e_accounts import opening as e_accounts
from tongbao.parties.identity import api as identity_api
from tongbao.parties.identity.keys import KeysOnRecord, RecentKeys
from tongbao.parties.identity.model import scopes_under
from tongbao.parties.merchants.merchants import LIVE_BOOK, SANDBOX_BOOK
from tongbao.parties.offline_codes import api as offline_codes_api
from tongbao.parties.onboarding import api as onboarding_api
from tongbao.parties.price_plans import api as price_plans_api
from tongbao.parties.profile import api as profile_api
from tongbao.parties.staff import api as staff_api
from tongbao.parties.stores import api as stores_api
from tongbao.parties.terminals import api as terminals_api
from tongbao.parties.terminals import watch as terminals_watch
from tongbao.parties.vault import api as vault_api
from tongbao.payments.agreements import api as agreements_api
from tongbao.payments.asking import api as payments_api
from tongbao.payments.authorisations import api as authorisations_api
from tongbao.payments.callbacks import inbox
from tongbao.payments.callbacks.api import PREFIX as CALLBACKS_PREFIX
from tongbao.payments.callbacks.api import CallbackApp
from tongbao.payments.callbacks.door import CallbackDoor
from tongbao.payments.card_agreements.charging import detokenising
from tongbao.payments.card_balances import api as card_balances_api
from tongbao.payments.checkouts import api as checkouts_api
from tongbao.payments.checkouts.api import PublicUrl
from tongbao.payments.checkouts.model import PREFIX as CASHIER_PREFIX
from tongbao.payments.collecting.outcomes import Flow
from tongbao.payments.collecting.queries import PaymentReads
from tongbao.payments.combining import api as combining_api
from tongbao.payments.hot.door import collecting_door
from tongbao.payments.own_wallet import api as own_wallet_api
from tongbao.payments.parking import api as parking_api
from tongbao.payments.plates import api as plates_api
from tongbao.payments.refunds import api as refunds_api
from tongbao.payments.registrations import api as registrations_api
from tongbao.payments.registrations.registrations import Registrar
from tongbao.payments.routing.router import LiveRouter
from tongbao.payments.routing.watch import Watch
from tongbao.payments.splits import api as splits_api
from tongbao.payments.splits.receivers import Sharing
from tongbao.payments.splits.returns import RefundShares
from tongbao.payments.terminal_notices.app import TERMINALS_PREFIX, TerminalApp
from tongbao.payments.terminal_notices.notices import MerchantsPlaces, plan_terminal_notices
from tongbao.payments.terminal_notices.streams import Streams
from tongbao.products.red_packets import api as red_packets_api
from tongbao.products.red_packets.grabbing import Grabbers
from tongbao.products.red_packets.hall import Hall
from tongbao.products.scenes import api as scenes_api
from tongbao.products.scenes.model import PREFIX as TABLES_PREFIX
from tongbao.products.shop import api as shop_api
from tongbao.rails.channels.accounts import ChannelAccounts
from tongbao.rails.channels.bank_transfer.client import BankTransfer
from tongbao.rails.channels.cards.client import Cards
from tongbao.surfaces import housekeeping
from tongbao.surfaces.api import clock as clock_api
from tongbao.surfaces.api import events as events_api
from tongbao.surfaces.api import request_log as request_log_api
from tongbao.surfaces.api import webhook_endpoints as webhooks_api
from tongbao.surfaces.api.probes import probes
from tongbao.surfaces.api.versions import API_VERSIONS
from tongbao.surfaces.cashier.app import CashierApp
from tongbao.surfaces.console_rooms import console_rooms
from tongbao.surfaces.developer_portal.app import with_portal
from tongbao.surfaces.docs_site.app import ERRORS, DocsApp
from tongbao.surfaces.invariants import rounds as invariants
from tongbao.surfaces.jeepay.app import REFUND_PREFIX, JeepayFacade
from tongbao.surfaces.jeepay.notices import plan_notices
from tongbao.surfaces.jeepay.orders import PAY_PREFIX, Facade
from tongbao.surfaces.operator_console.app import ConsoleApp
from tongbao.surfaces.own_routes import ROUTES as OWN_ROUTES
from tongbao.surfaces.proofs import api as proofs_api
from tongbao.surfaces.tables.app import TablesApp
from tongbao.surfaces.till.app import TILLS_PREFIX, TillApp
from tongbao.surfaces.user_wallets import api as user_wallets_api
from tongbao.surfaces.user_wallets.app import KEEPS, people_pages
from tongbao.surfaces.wallet.assembly import desk_of, gateways_of, wallet_api


def routes(licence: Licence, *, allows_test_clock: bool) -> list[HTTPRouteHandler]:
    """Return the API's routes under a licence; what a firm may not do has no route."""
    return [
        *(*payments_api.ROUTES, *checkouts_api.ROUTES, *plates_api.ROUTES, *terminals_api.ROUTES),
        *(*authorisations_api.ROUTES, *agreements_api.ROUTES, *card_balances_api.ROUTES),
        *(*combining_api.ROUTES, *parking_api.ROUTES),
        *(*proofs_api.ROUTES, *refunds_api.ROUTES, *splits_api.ROUTES),
        *(*events_api.ROUTES, *request_log_api.ROUTES),
        *webhooks_api.ROUTES,
        *profile_api.ROUTES,
        *(*price_plans_api.ROUTES, *identity_api.ROUTES),
        *(*onboarding_api.routes(licence), *registrations_api.ROUTES, *stores_api.ROUTES),
        *(*staff_api.ROUTES, *accounts_api.routes(licence)),
        *(*offline_codes_api.routes(licence), *vault_api.routes(licence)),
        *(*own_wallet_api.routes(licence), *user_wallets_api.routes(licence)),
        *red_packets_api.routes(licence),
        *(*shop_api.ROUTES, *scenes_api.ROUTES),
        *settlement_api.routes(licence),
        *commissions_api.routes(licence),
        *payouts_api.routes(licence),
        *statements_api.routes(licence),
        *transfers_api.routes(licence),
        *disputes_api.routes(licence),
        *complaints_api.ROUTES,
        *(clock_api.ROUTES if allows_test_clock else []),
    ]


class Platform:
    """Everything of one process, built and ready to be run in one role or several."""

    def __init__(self, settings: Settings, db: Db, keyring: Keyring) -> None:
        self.settings = settings
        self.db = db
        self.keyring = keyring
        self.keys = key_desk(settings, keyring)
        self.secret_types = SECRETS
        self.blobs = blobs_of(settings, keyring)
        self.http = HttpClient(Anywhere())
        self.webhook_http = clients_of(reach_loopback=settings.webhooks_reach_loopback)
        self.ledger = Ledger(
            db, settings.licence, balances=settings.ledger_balances, sockets=settings.socket_dir
        )
        self.accounts = ChannelAccounts(db, keyring, SECRETS, settings.public_url)
        self.bank = BankTransfer(self.http)
        by_name = channels(self.http, db.clock, detokenising(db, self.keys.sealing_keys))
        self.router = LiveRouter(db, by_name, Watch(db), self.accounts.changes)
        self.flow = Flow(
            db=db,
            commits=Commits(db, "payments", pace_s=0.025),
            reads=PaymentReads(db),
            ledger=self.ledger,
            channels=by_name,
            account=self.accounts.get,
            licence=settings.licence,
            nudge=lambda: self.worker.nudge(),  # noqa: PLW0108 - the worker comes after
            router=self.router,
        )
        self.sharing = Sharing(self.flow, keyring)
        self.flow = replace(self.flow, shares=RefundShares(self.sharing))
        self.clearing = Clearing(
            flow=self.flow, bank=self.bank, keyring=keyring, folder=settings.data_dir / "bills"
        )
        self.registrar = Registrar(
            db, keyring, self.blobs, by_name, self.accounts.get, self.secret_types
        )
        self.approvals = approvals(self.flow, self.clearing, self.keys)
        self.request_log = RequestLog(db, RecentKeys(db, keyring, self.accounts.changes))
        self.webhook_rules = WebhookRules(
            public_types(EVENTS), API_VERSIONS, loopback_allowed=settings.webhooks_reach_loopback
        )
        self.streams = Streams(db)
        courier = Courier(db, keyring, self.webhook_http, API_VERSIONS, lambda: self.worker)
        self.worker = Worker(
            db,
            handlers(
                self.flow,
                self.clearing,
                courier,
                self.registrar,
                public_url=settings.public_url,
                gateways=gateways_of(settings, self.http),
                keys=self.keys,
            ),
            POLICIES,
            subscribers(self.flow, self.clearing, self.registrar),
            concurrency=settings.worker_concurrency,
            # Asked with every event, so only where somebody can have asked to be told.
            fan_outs=[
                courier.plan,
                plan_terminal_notices,
                *([plan_notices] if settings.jeepay_facade else []),
            ],
        )

    def app(self) -> App:
        """Return the HTTP application: the API, callbacks, consoles and probes."""
        settings, people = self.settings, desk_of(self, contributors=KEEPS)
        callbacks = CallbackApp(self.flow, self.accounts.of_token, self.worker)
        mounts: dict[str, Asgi] = {
            CALLBACKS_PREFIX: callbacks,
            "/console": ConsoleApp(
                self.flow,
                self.keyring,
                settings.console_url or settings.public_url,
                console_rooms(self.keys, self.clearing, self.registrar, self.blobs),
                approvals=self.approvals,
                second_factor=settings.operator_second_factor,
            ),
            CASHIER_PREFIX: CashierApp(self.flow, self.keyring, settings.public_url),
            TERMINALS_PREFIX: TerminalApp(self.db, self.keyring, self.streams),
            TABLES_PREFIX: TablesApp(shop_of(self.flow), settings.public_url),
            **probes(self.db),
            **proofs_api.publications(self.db),
            **self._jeepay(),
            **wallet_api(settings, people, OWN_ROUTES, ledger=self.ledger),
            **people_pages(settings, people, self.flow),
        }
        recent_keys = RecentKeys(self.db, self.keyring, self.accounts.changes)
        limits = RateLimits(self.db, RateLimit(settings.rate_units_per_s, settings.rate_burst))
        hot = collecting_door(self.flow, self.keyring, recent_keys, limits, self.request_log.hear)
        app = App(
            routes(settings.licence, allows_test_clock=settings.test_clock),
            db=self.db,
            keys=KeysOnRecord(self.db, self.keyring),
            door=CallbackDoor(hot, callbacks),
            facts=ApiFacts(
                title="Tongbao API",
                version="1",
                description="Collect payments over many channels, refund them, see them settled.",
                public_url=settings.public_url,
                docs_url=f"{settings.public_url}{ERRORS}",
                scopes=scopes_under(settings.licence),
                bank_code=settings.bank_code,
                busy=(LedgerOverloaded, LedgerUnanswered, BookElsewhere),
            ),
            provides=self._provided(),
            mounts=mounts,
            versions=API_VERSIONS,
            limits=limits,
            request_log=self.request_log,
            own_hosts=own_hosts_of(settings),
        )
        app.mount(TILLS_PREFIX, TillApp(self.db, self.keyring, app))
        app.mount("/docs", DocsApp(lambda: app.document, settings.public_url))
        return with_portal(app, self)

    def _provided(self) -> dict[str, object]:
        """Return what routes are given by name."""
        settings, hall = self.settings, Hall(self.db, self.ledger)
        return {
            "flow": self.flow,
            "reach": reach_of(self.flow),
            "keyring": self.keyring,
            "sealing_keys": self.keys.sealing_keys,
            "sharing": self.sharing,
            "blobs": self.blobs,
            "licence": settings.licence,
            "ledger": self.ledger,
            "clearing": self.clearing,
            "hall": hall,
            "grabbers": Grabbers(hall),
            "shop": shop_of(self.flow),
            "places": MerchantsPlaces(),
            "webhook_rules": self.webhook_rules,
            "public_url": PublicUrl(settings.public_url),
            "clock_hand": clock_api.hand_of(self.db, settings),
            "request_log": self.request_log,
        }

    def _jeepay(self) -> dict[str, Asgi]:
        """Return the façade for jeepay's programs, where the deployment says that it has one."""
        if not self.settings.jeepay_facade:
            return {}
        behind = Facade(self.flow, self.keyring, self.settings.public_url, self.webhook_rules)
        return dict.fromkeys((PAY_PREFIX, REFUND_PREFIX), JeepayFacade(behind))

    async def seed(self) -> None:
        """Enqueue the work that comes back by itself; what is there already stays as it is."""
        await asyncio.to_thread(self.blobs.sweep)
        async with self.db.begin("startup") as tx:
            await housekeeping.seed(tx)
            await rewrapping.seed(tx)
            await daily.seed(tx, self.settings.licence)
            for licensed in (debts, suspense, commissions, e_accounts):
                if self.settings.licence.may_hold_funds:
                    await licensed.seed(tx)
            for each in (batches, complaints, vouchers, movements, splits, checkpoints, inbox):
                await each.seed(tx)
            await terminals_watch.seed(tx)
            await audit_watching.seed(tx)
            await invariants.seed(tx)
            await reserve.seed(tx, self.settings.licence)

    async def follow_clock(self, stop: asyncio.Event) -> None:
        """Keep business time up with the deployment's, where a test clock may move it."""
        if self.settings.test_clock:
            await test_clock.follow(self.db, stop)

    def end_streams(self) -> None:
        """Have every terminal that listens here connect again, to a process that goes on."""
        self.streams.close()

    async def close(self) -> None:
        """Let no book be written any more and close every connection."""
        await self.router.watch.close()
        await self.ledger.close()
        for channel in self.flow.channels.values():
            if isinstance(channel, Cards):  # the others' connections are the HTTP client's
                await channel.shut()
        for client in (self.http, *self.webhook_http.values()):
            await client.close()
        await self.blobs.close()
        await self.request_log.close()
        await self.db.close()


@asynccontextmanager
async def open_platform(settings: Settings) -> AsyncIterator[Platform]:
    """Start the database if it is ours, migrate it, and build the platform on it.

    Raises:
        EmbeddedDatabaseFailed, LicenceDiffers, TestClockLeftOn, KeyFileUnreadable
    """
    set_up_logging(settings.log_level, settings.log_format)
    server = start_database(settings)
    dsn = server.dsn if server else _given_dsn(settings)
    db = await connect(dsn, Clock(), connections_max=settings.db_connections_max)
    with contextlib.ExitStack() as stack:
        if server is not None and server.started_here:
            stack.callback(server.stop)
        await migrate(db, settings.licence, "startup")
        with contextlib.suppress(LockNotFree):  # housekeeping tries again every minute
            await make_months(db)
        await test_clock.load_offset(db, allowed=settings.test_clock)
        platform = Platform(settings, db, open_keyring(settings))
        try:
            for book in (LIVE_BOOK, SANDBOX_BOOK):
                await platform.ledger.open_book(book, actor="startup")
            yield platform
        finally:
            await platform.close()


def start_database(settings: Settings) -> EmbeddedServer | None:
    """Start the private PostgreSQL, or return None when another is named by its DSN."""
    return None if settings.dsn is not None else embedded.start(settings.data_dir)


def _given_dsn(settings: Settings) -> str:
    if settings.dsn is None:
        raise ValueError("neither a DSN nor a server of our own")
    return settings.dsn.reveal()
