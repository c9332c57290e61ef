"""What the open bank works with, built once."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Final

from tongbao.infra.admission.rate_limits import RateLimit
from tongbao.infra.admission.rate_shares import RateLimits
from tongbao.infra.certificates import Anchor
from tongbao.infra.client_certificates import AnchorFile, read_proxies
from tongbao.infra.crypto import Keyring
from tongbao.infra.db import Db
from tongbao.infra.dpop_nonces import PURPOSE
from tongbao.infra.settings import Settings
from tongbao.ledger.book import Ledger
from tongbao.parties.authentication.step_up import Checks
from tongbao.parties.consents.holdings import Holdings
from tongbao.parties.partners.model import AuthMethod
from tongbao.surfaces.cashier.desk import Throttle
from tongbao.surfaces.page_kit.rendering import templates_of

PAGES: Final = "/oauth"
HERE: Final = Path(__file__).parent
TRIES_OF_REQUEST: Final = 10
"""How often anybody may try to log in for one pushed request."""
TRIES_PER_MINUTE: Final = 120
"""How often from one address, behind which there may be many people."""


class Desk:
    """The database, the book, how people prove themselves, and where their accounts are."""

    def __init__(
        self, checks: Checks, ledger: Ledger, holdings: Holdings, settings: Settings
    ) -> None:
        self.checks = checks
        self.ledger = ledger
        self.holdings = holdings
        self.issuer = settings.public_url.rstrip("/")
        self.bank_code = settings.bank_code
        self.signs_messages = settings.uk_open_banking and settings.uk_message_signing
        self.mtls_origin = settings.mtls_url.rstrip("/") if settings.mtls_url else None
        self.certificate_proxies = read_proxies(settings.certificate_proxies)
        anchors = settings.partner_anchors_file
        self._anchors = AnchorFile(anchors) if anchors is not None else None
        self.nonce_key = checks.keyring.mac_key(PURPOSE) if settings.dpop_nonces else None
        usual = RateLimit(settings.rate_units_per_s, settings.rate_burst)
        self.limits = RateLimits(checks.db, usual)
        self.grant_types: tuple[str, ...] = ("authorization_code", "refresh_token")
        if settings.uk_open_banking:  # only there anything is lodged before somebody is asked
            self.grant_types += ("client_credentials",)
        self.is_https = self.issuer.startswith("https://")
        self.tries = Throttle(TRIES_OF_REQUEST, 600.0)
        self.tries_from = Throttle(TRIES_PER_MINUTE, 60.0)
        self.templates = templates_of(PAGES, HERE)

    @property
    def origins(self) -> tuple[str, ...]:
        """Where the endpoints are reached: at the issuer, and where a certificate is asked for."""
        return (self.issuer,) if self.mtls_origin is None else (self.issuer, self.mtls_origin)

    @property
    def auth_methods(self) -> list[str]:
        """How partners can prove themselves here."""
        known: list[AuthMethod] = [AuthMethod.PRIVATE_KEY_JWT]
        if self.certificate_proxies:
            known += [AuthMethod.TLS_CLIENT_AUTH] if self._anchors else []
            known += [AuthMethod.SELF_SIGNED]
        return [each.value for each in known]

    def partner_anchors(self, now: datetime) -> tuple[Anchor, ...]:
        """Return the authorities that vouch for partners' names; none where no file names any.

        Raises:
            AnchorsUnreadable
        """
        return self._anchors.anchors(now) if self._anchors is not None else ()

    @property
    def db(self) -> Db:
        """The database."""
        return self.checks.db

    @property
    def keyring(self) -> Keyring:
        """The keys of the deployment."""
        return self.checks.keyring
