"""The client: one object per API key, one attribute per resource."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Self, cast

import httpx2 as httpx

from tongbao_sdk.agreements import Agreements
from tongbao_sdk.cashier import Checkouts, Plates
from tongbao_sdk.clearing import Payouts, Settlements, TransferBatches
from tongbao_sdk.combined import CombinedPayments
from tongbao_sdk.disputes import Complaints, Disputes
from tongbao_sdk.notifications import Events, WebhookEndpoints
from tongbao_sdk.onboarding import Applications, Commissions, People, Stores
from tongbao_sdk.parking import Parking
from tongbao_sdk.parties import ApiKeys, Wallets
from tongbao_sdk.payments import Payments, Refunds
from tongbao_sdk.prices import Prices
from tongbao_sdk.red_packets import RedPackets
from tongbao_sdk.replies import Balance, Merchant
from tongbao_sdk.request_log import RequestLog
from tongbao_sdk.shop import Orders, Products, Tables
from tongbao_sdk.splits import Splits
from tongbao_sdk.terminals import Terminals
from tongbao_sdk.test_clock import TestClock
from tongbao_sdk.transport import Language, Transport, path_of
from tongbao_sdk.user_wallets import WalletApplications, WalletProgrammes, WalletProposals
from tongbao_sdk.vault import CardTokens, VaultCards


class Tongbao:
    """A merchant's access to the platform. Safe to share between threads.

    ``tries_max`` counts the first one; ``timeout_s`` is for each. ``language`` is that of advice.
    ``client`` is an httpx2 client of your own, for a proxy or certificates; ``pause`` waits between
    tries, in seconds. ``private_key`` is the PEM of the key whose public half the API key was made
    with; without one, requests are signed with the secret.
    """

    def __init__(
        self,
        url: str,
        *,
        key_id: str,
        secret: str,
        timeout_s: float = 30.0,
        tries_max: int = 4,
        language: Language = "en",
        client: httpx.Client | None = None,
        pause: Callable[[float], None] = time.sleep,
        private_key: str | None = None,
    ) -> None:
        self.transport = Transport(
            url,
            key_id,
            secret,
            timeout_s=timeout_s,
            tries_max=tries_max,
            language=language,
            client=client,
            pause=pause,
            private_key=private_key,
        )
        self.payments = Payments(self.transport)
        self.refunds = Refunds(self.transport)
        self.agreements = Agreements(self.transport)
        self.combined_payments = CombinedPayments(self.transport)
        self.parking = Parking(self.transport)
        self.checkouts = Checkouts(self.transport)
        self.plates = Plates(self.transport)
        self.applications = Applications(self.transport)
        self.stores = Stores(self.transport)
        self.staff = People(self.transport)
        self.commissions = Commissions(self.transport)
        self.terminals = Terminals(self.transport)
        self.events = Events(self.transport)
        self.request_log = RequestLog(self.transport)
        self.webhook_endpoints = WebhookEndpoints(self.transport)
        self.settlements = Settlements(self.transport)
        self.payouts = Payouts(self.transport)
        self.transfer_batches = TransferBatches(self.transport)
        self.api_keys = ApiKeys(self.transport)
        self.wallets = Wallets(self.transport)
        self.wallet_programmes = WalletProgrammes(self.transport)
        self.wallet_applications = WalletApplications(self.transport)
        self.wallet_proposals = WalletProposals(self.transport)
        self.red_packets = RedPackets(self.transport)
        self.disputes = Disputes(self.transport)
        self.complaints = Complaints(self.transport)
        self.products = Products(self.transport)
        self.orders = Orders(self.transport)
        self.tables = Tables(self.transport)
        self.splits = Splits(self.transport)
        self.prices = Prices(self.transport)
        self.vault_cards = VaultCards(self.transport)
        self.card_tokens = CardTokens(self.transport)
        self.test_clock = TestClock(self.transport)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_failure: object) -> None:
        self.close()

    def merchant(self) -> Merchant:
        """Return the merchant's own profile: channels, prices in force, bank account."""
        return cast("Merchant", self.transport.get(path_of("merchant")))

    def balance(self) -> Balance:
        """Return what the merchant is owed: available, held by refunds, being settled."""
        return cast("Balance", self.transport.get(path_of("balance")))

    def close(self) -> None:
        """Close the connections."""
        self.transport.close()
