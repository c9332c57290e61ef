"""Disputes of schemes and complaints of customers: read them, answer, give in."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from typing import Literal, Unpack, cast

from tongbao_sdk.replies import (
    Complaint,
    ComplaintImage,
    ComplaintImageContent,
    ComplaintMessage,
    ComplaintReply,
    Dispute,
    EvidenceFile,
)
from tongbao_sdk.transport import Once, Transport, path_of

DisputeState = Literal[
    "retrieval",
    "closed",
    "chargeback",
    "represented",
    "pre_arbitration",
    "arbitration",
    "won",
    "lost",
    "accepted",
]


class Disputes:
    """Answer disputes, or give in."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, dispute_id: str) -> Dispute:
        """Return one dispute."""
        return cast("Dispute", self._transport.get(path_of("disputes", dispute_id)))

    def list(
        self,
        *,
        payment_id: str | None = None,
        status: DisputeState | None = None,
        scheme_ref: str | None = None,
        limit: int = 100,
    ) -> Iterator[Dispute]:
        """Yield disputes, newest first."""
        return self._transport.pages(
            path_of("disputes"),
            payment_id=payment_id,
            status=status,
            scheme_ref=scheme_ref,
            limit=limit,
        )

    def raise_in_sandbox(
        self,
        payment_id: str,
        amount: int | None = None,
        *,
        stage: Literal["retrieval", "chargeback"] = "chargeback",
    ) -> Dispute:
        """Have the customer's bank dispute a sandbox payment, once each; safe to repeat.

        Raises:
            Refused, Unanswered
        """
        path = path_of("test_helpers", "payments", payment_id, "dispute")
        return cast("Dispute", self._transport.post(path, {"amount": amount, "stage": stage}))

    def hand_in(
        self, dispute_id: str, *, name: str, media_type: str, content: bytes, **once: Unpack[Once]
    ) -> EvidenceFile:
        """Hand in a PDF, JPEG or PNG of up to 700 KiB; it cannot be taken back.

        Raises:
            Refused, Unanswered
        """
        coded = b64encode(content).decode()
        body = {"name": name, "media_type": media_type, "content": coded}
        path = path_of("disputes", dispute_id, "files")
        return cast("EvidenceFile", self._transport.post(path, body, **once))

    def files(self, dispute_id: str) -> tuple[EvidenceFile, ...]:
        """Return what was handed in, oldest first."""
        found = self._transport.get(path_of("disputes", dispute_id, "files"))
        return tuple(cast("EvidenceFile", each) for each in found)

    def answer(self, dispute_id: str, answer: str = "", **once: Unpack[Once]) -> Dispute:
        """Hand in the answer to the present stage, with the files handed in before.

        Raises:
            Refused, Unanswered
        """
        path = path_of("disputes", dispute_id, "answer")
        return cast("Dispute", self._transport.post(path, {"answer": answer}, **once))

    def accept(self, dispute_id: str, note: str = "", **once: Unpack[Once]) -> Dispute:
        """Give the disputed money up for good.

        Raises:
            Refused, Unanswered
        """
        path = path_of("disputes", dispute_id, "accept")
        return cast("Dispute", self._transport.post(path, {"note": note}, **once))


class Complaints:
    """Answer customers who complained to a channel."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    def get(self, complaint_id: str) -> Complaint:
        """Return one complaint."""
        return cast("Complaint", self._transport.get(path_of("complaints", complaint_id)))

    def list(
        self, *, status: str | None = None, payment_id: str | None = None, limit: int = 100
    ) -> Iterator[Complaint]:
        """Yield complaints, newest first."""
        return self._transport.pages(
            path_of("complaints"), status=status, payment_id=payment_id, limit=limit
        )

    def messages(self, complaint_id: str) -> tuple[ComplaintMessage, ...]:
        """Return everything that was said, oldest first."""
        found = self._transport.get(path_of("complaints", complaint_id, "messages"))
        return tuple(cast("ComplaintMessage", each) for each in found)

    def images(self, complaint_id: str) -> tuple[ComplaintImage, ...]:
        """Return the pictures that the customer sent along, oldest first."""
        found = self._transport.get(path_of("complaints", complaint_id, "images"))
        return tuple(cast("ComplaintImage", each) for each in found)

    def image(self, image_id: str) -> ComplaintImageContent:
        """Return a picture that is kept."""
        found = self._transport.get(path_of("complaint_images", image_id))
        return cast("ComplaintImageContent", found)

    def hand_in(
        self, complaint_id: str, *, name: str, media_type: str, content: bytes, **once: Unpack[Once]
    ) -> EvidenceFile:
        """Hand in a JPEG or PNG of up to 700 KiB, for an answer to name.

        Raises:
            Refused, Unanswered
        """
        coded = b64encode(content).decode()
        body = {"name": name, "media_type": media_type, "content": coded}
        path = path_of("complaints", complaint_id, "files")
        return cast("EvidenceFile", self._transport.post(path, body, **once))

    def reply(
        self,
        complaint_id: str,
        text: str = "",
        *,
        complete: bool = False,
        image_ids: Sequence[str] = (),
        **once: Unpack[Once],
    ) -> ComplaintReply:
        """Tell the customer something, once; with ``complete``, that all is done.

        ``image_ids``: up to four pictures that were handed in for the complaint.

        Raises:
            Refused, Unanswered
        """
        path = path_of("complaints", complaint_id, "replies")
        body = {"text": text, "complete": complete, "image_ids": [*image_ids]}
        return cast("ComplaintReply", self._transport.post(path, body, **once))
