"""Put the open bank together, where there are people to consent."""

from __future__ import annotations

from tongbao.infra.serving.asgi import Asgi
from tongbao.infra.settings import Settings
from tongbao.ledger.book import Ledger
from tongbao.parties.consents.dossier import contributor
from tongbao.parties.consents.holdings import Wallets
from tongbao.parties.people.dossier import Contributor
from tongbao.surfaces.open_bank.app import OpenBank
from tongbao.surfaces.open_bank.desk import Desk
from tongbao.surfaces.wallet.desk import Desk as WalletDesk


def open_bank(settings: Settings, people: WalletDesk, ledger: Ledger) -> dict[str, Asgi]:
    """Return what is mounted: nothing where funds may not be held, for then nobody has accounts."""
    if not settings.licence.may_hold_funds:
        return {}
    desk = Desk(people.checks, ledger, Wallets(people.db), settings.public_url)
    return OpenBank(desk).mounts


def keeps_of_people() -> tuple[Contributor, ...]:
    """Return what the open bank keeps of people, for their export and erasure."""
    return (contributor(),)
