"""Car parks: say that a car came, take its fee from what its owner agreed to, say that it left."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, Unpack, cast

from tongbao_sdk.replies import (
    ParkingPlate,
    ParkingVisit,
    Payment,
)
from tongbao_sdk.transport import Once, Transport, path_of

VisitStatus = Literal["created", "unknown", "open", "blocked", "left"]
PlateColour = Literal["BLUE", "GREEN", "YELLOW", "BLACK", "WHITE", "LIMEGREEN"]


class Parking:
    """Visits to car parks. A visit's fee is a payment: query it and give it back as such."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def enter(
        self,
        *,
        merchant_visit_no: str,
        channel: Literal["wechat_pay", "alipay"],
        plate: str,
        plate_colour: PlateColour,
        place: str,
        lot: str = "",
        free_s: int = 0,
        entered_at: str | None = None,
        device: str = "gate",
        **once: Unpack[Once],
    ) -> ParkingVisit:
        """Say that a car drove in; ``lot`` is the channel's number of the car park (Alipay).

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_visit_no": merchant_visit_no,
            "channel": channel,
            "plate": plate,
            "plate_colour": plate_colour,
            "place": place,
            "lot": lot,
            "free_s": free_s,
            "entered_at": entered_at,
            "device": device,
        }
        made = self._transport.post(path_of("parking_visits"), body, **once)
        return cast("ParkingVisit", made)

    def look_up(
        self,
        *,
        plate: str,
        plate_colour: PlateColour,
        payer_id: str,
        channel: Literal["wechat_pay"] = "wechat_pay",
    ) -> ParkingPlate:
        """Ask, before a car comes, whether fees can be taken from a customer's plate.

        Raises:
            Refused, Unanswered
        """
        body = {
            "channel": channel,
            "plate": plate,
            "plate_colour": plate_colour,
            "payer_id": payer_id,
        }
        found = self._transport.post(path_of("parking_plates", "look_up"), body)
        return cast("ParkingPlate", found)

    def charge(
        self,
        visit_id: str,
        *,
        merchant_order_no: str,
        amount: int,
        subject: str = "parking",
        currency: str = "CNY",
        left_at: str | None = None,
        metadata: dict[str, str] | None = None,
        **once: Unpack[Once],
    ) -> Payment:
        """Take the fee of a visit.

        Raises:
            Refused, Unanswered
        """
        body = {
            "merchant_order_no": merchant_order_no,
            "amount": amount,
            "subject": subject,
            "currency": currency,
            "left_at": left_at,
            "metadata": metadata or {},
        }
        taken = self._transport.post(path_of("parking_visits", visit_id, "charge"), body, **once)
        return cast("Payment", taken)

    def leave(
        self, visit_id: str, *, left_at: str | None = None, **once: Unpack[Once]
    ) -> ParkingVisit:
        """Say that the car drove out.

        Raises:
            Refused, Unanswered
        """
        path, body = path_of("parking_visits", visit_id, "leave"), {"left_at": left_at}
        return cast("ParkingVisit", self._transport.post(path, body, **once))

    def get(self, visit_id: str) -> ParkingVisit:
        """Return one visit."""
        return cast("ParkingVisit", self._transport.get(path_of("parking_visits", visit_id)))

    def find(self, merchant_visit_no: str) -> ParkingVisit | None:
        """Return the visit with this number of yours, or None."""
        page = self._transport.get(path_of("parking_visits"), merchant_visit_no=merchant_visit_no)
        return cast("ParkingVisit", page["items"][0]) if page["items"] else None

    def list(
        self, *, status: VisitStatus | None = None, limit: int = 100
    ) -> Iterator[ParkingVisit]:
        """Yield visits, newest first, fetching ``limit`` at a time."""
        return self._transport.pages(path_of("parking_visits"), status=status, limit=limit)
