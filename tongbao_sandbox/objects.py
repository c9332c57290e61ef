"""An object store, simulated: the few calls of Amazon S3 that the platform makes, path-style.

    PUT, GET, HEAD, DELETE  /s3/{bucket}/{name}
    POST ?uploads, PUT ?partNumber=&uploadId=, POST ?uploadId=, DELETE ?uploadId=

Signatures (AWS Signature Version 4) are checked by code of this module's own, on the bytes that
came. There is one bucket, whose name and keys are in credentials.json.
"""

from __future__ import annotations

import hmac
import re
import secrets
from datetime import UTC, datetime, timedelta
from hashlib import md5, sha256
from typing import Any, Final
from urllib.parse import unquote_plus

from tongbao.kernel.clock import real_now
from tongbao_sandbox import faults
from tongbao_sandbox.model import Callback, PaymentCode, Trade
from tongbao_sandbox.seam import Keys, Outgoing, Refused, Reply, Request, World

NAME: Final = "objects"
REGION: Final = "cn-north-1"
SKEW_MAX: Final = timedelta(minutes=15)
PART_BYTES_MIN: Final = 5 * 1024 * 1024
_XML: Final = (("content-type", "application/xml"),)
_SCHEME: Final = re.compile(
    r"AWS4-HMAC-SHA256 Credential=([^/,]+)/(\d{8})/([^/,]+)/s3/aws4_request, ?"
    r"SignedHeaders=([a-z0-9;-]+), ?Signature=([0-9a-f]{64})"
)
_PART: Final = re.compile(rb"<PartNumber>(\d+)</PartNumber>\s*<ETag>([^<]*)</ETag>")
_STATUS: Final = {
    "NoSuchKey": 404,
    "NoSuchBucket": 404,
    "NoSuchUpload": 404,
    "MethodNotAllowed": 405,
    "InvalidPart": 400,
    "EntityTooSmall": 400,
    "XAmzContentSHA256Mismatch": 400,
}

faults.allow("put", "http_500_not_done", "http_503_not_done", "time_out_done", "http_500_done")
faults.allow("get", "http_500", "http_503", "time_out", "truncate", "damage")


def make_keys() -> Keys:
    """Return the keys of a fresh customer of the store."""
    return Keys(
        shown={
            "key_id": f"TBS3{secrets.token_hex(8).upper()}",
            "secret": secrets.token_urlsafe(30),
            "region": REGION,
            "bucket": "tongbao-documents",
        },
        kept={"note": "the store's keys are the customer's"},
    )


class _Fault(Exception):
    """A request is not done, for a reason of S3's list."""


class Objects:
    """The simulated store; see `seam.Channel`."""

    name = NAME
    prefix = "/s3"
    retry_plan: tuple[float, ...] = ()

    def __init__(self, world: World) -> None:
        self._world = world
        self._shown = world.keys[NAME].shown

    def answer(self, request: Request) -> Reply:
        """Do one request, if whoever signed it may."""
        try:
            self._check_signature(request)
            return self._do(request)
        except _Fault as fault:
            code = str(fault)
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code></Error>".encode()
            return Reply(_STATUS.get(code, 403), _XML, b"" if request.method == "HEAD" else body)

    def _do(self, request: Request) -> Reply:
        _, bucket, *rest = request.path.split("/")
        name, query = "/".join(rest), _query(request)
        if bucket != self._shown["bucket"]:
            raise _Fault("NoSuchBucket")
        point = {"GET": "get", "HEAD": "get", "PUT": "put"}.get(request.method, "")
        fault = self._world.faults.take(NAME, point, name).name if point else ""
        if faults.is_lost(fault):
            return _lost(fault)
        reply = (
            self._upload(request, name, query) if _is_upload(query) else self._one(request, name)
        )
        return _spoilt(reply, fault)

    def _one(self, request: Request, name: str) -> Reply:
        if request.method == "PUT":
            self._keep(f"object.{name}", request.body)
            return Reply(200, (("etag", _tag(request.body)),))
        if request.method == "DELETE":
            self._keep(f"object.{name}", b"")
            return Reply(204)
        content = self._held(f"object.{name}")
        if request.method not in {"GET", "HEAD"}:
            raise _Fault("MethodNotAllowed")
        if content is None:
            raise _Fault("NoSuchKey")
        body = content if request.method == "GET" else b""
        return Reply(200, (("etag", _tag(content)), ("content-type", "binary/octet-stream")), body)

    def _upload(self, request: Request, name: str, query: dict[str, str]) -> Reply:
        if request.method == "POST" and "uploads" in query:
            upload = secrets.token_hex(16)
            self._keep(f"upload.{upload}", name.encode())
            result = "InitiateMultipartUploadResult"
            return Reply(200, _XML, f"<{result}><UploadId>{upload}</UploadId></{result}>".encode())
        upload = query.get("uploadId", "")
        if self._held(f"upload.{upload}") != name.encode():
            raise _Fault("NoSuchUpload")
        if request.method == "PUT":
            self._keep(_part_name(upload, int(query["partNumber"])), request.body)
            return Reply(200, (("etag", _tag(request.body)),))
        if request.method == "DELETE":
            self._forget(upload)
            return Reply(204)
        return self._complete(request, name, upload)

    def _complete(self, request: Request, name: str, upload: str) -> Reply:
        parts = []
        for number, tag in _PART.findall(request.body):
            part = self._held(_part_name(upload, int(number)))
            if part is None or _tag(part) != tag.decode().replace("&quot;", '"'):
                raise _Fault("InvalidPart")
            parts.append(part)
        if any(len(part) < PART_BYTES_MIN for part in parts[:-1]) or not parts:
            raise _Fault("EntityTooSmall")
        self._keep(f"object.{name}", b"".join(parts))
        self._forget(upload)
        return Reply(200, _XML, b"<CompleteMultipartUploadResult/>")

    def _forget(self, upload: str) -> None:
        for name, _ in self._world.state.named_documents(NAME, f"part.{upload}.", 10_000):
            self._keep(name, b"")
        self._keep(f"upload.{upload}", b"")

    def _keep(self, name: str, content: bytes) -> None:
        self._world.state.put_document(NAME, name, content, self._world.clock.now())

    def _held(self, name: str) -> bytes | None:
        found = self._world.state.document(NAME, name)
        return found[0] if found is not None and found[0] else None

    # Signatures -------------------------------------------------------------------------------

    def _check_signature(self, request: Request) -> None:
        """Refuse whatever the customer's key did not sign within the last quarter of an hour."""
        found = _SCHEME.fullmatch(request.headers.get("authorization", ""))
        if found is None or found[1] != self._shown["key_id"]:
            raise _Fault("InvalidAccessKeyId")
        _, day, region, names, signature = found.groups()
        stamp = request.headers.get("x-amz-date", "")
        signed = names.split(";")
        must = {"host", *(each for each in request.headers if each.startswith("x-amz-"))}
        if region != self._shown["region"] or not stamp.startswith(day) or must - set(signed):
            raise _Fault("AuthorizationHeaderMalformed")
        try:
            at = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError:
            raise _Fault("AccessDenied") from None
        if abs(real_now() - at) > SKEW_MAX:
            raise _Fault("RequestTimeTooSkewed")
        if request.headers.get("x-amz-content-sha256") != sha256(request.body).hexdigest():
            raise _Fault("XAmzContentSHA256Mismatch")
        expected = self._signature(request, signed, stamp)
        if not hmac.compare_digest(expected, signature):
            raise _Fault("SignatureDoesNotMatch")

    def _signature(self, request: Request, signed: list[str], stamp: str) -> str:
        lines = [request.method, f"{request.prefix}{request.path}"]
        lines.append("&".join(sorted(_encoded(each) for each in request.query.split("&") if each)))
        lines += [f"{name}:{request.headers.get(name, '').strip()}" for name in signed]
        lines += ["", ";".join(signed), request.headers["x-amz-content-sha256"]]
        scope = [stamp[:8], self._shown["region"], "s3", "aws4_request"]
        digest = sha256("\n".join(lines).encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256", stamp, "/".join(scope), digest])
        key = f"AWS4{self._shown['secret']}".encode()
        for part in [*scope, text]:
            key = hmac.new(key, part.encode(), sha256).digest()
        return key.hex()

    # What only payment channels have ------------------------------------------------------------

    def outgoing(self, callback: Callback) -> Outgoing:
        """Refuse: a store does not call back."""
        del callback
        raise Refused("the store sends no callbacks")

    def accepted(self, status: int, body: bytes) -> bool:
        """Refuse nothing: there is nothing to accept."""
        del body
        return status == 200

    def wrong_amount(self, content: dict[str, Any]) -> dict[str, Any]:
        """Return the content: the store sends no callbacks."""
        return content

    def scanned(self, trade: Trade, action: str) -> dict[str, Any]:
        """Refuse: a store shows no codes."""
        del trade, action
        raise Refused("the store has no codes to scan")

    def new_payment_code(self) -> str:
        """Refuse: a store makes no payment codes."""
        raise Refused("the store has no payment codes")

    def code_made(self, code: PaymentCode) -> None:
        """Nothing to prepare."""

    def act(self, action: str, number: str, argument: str, at: datetime) -> None:
        """Nothing is ever on the agenda."""

    def control(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Tell what lies in the bucket: ``GET objects`` gives names and sizes."""
        del body
        if (method, path) != ("GET", "objects"):
            raise Refused("ask for objects")
        held = self._world.state.named_documents(NAME, "", 10_000)
        return [{"name": name, "size": len(content)} for name, content in held]


def _is_upload(query: dict[str, str]) -> bool:
    return "uploads" in query or "uploadId" in query


def _query(request: Request) -> dict[str, str]:
    pairs = (each.partition("=") for each in request.query.split("&") if each)
    return {unquote_plus(name): unquote_plus(value) for name, _, value in pairs}


def _encoded(pair: str) -> str:
    """Return a parameter as it is signed: with its equals sign, though it may lack one."""
    return pair if "=" in pair else f"{pair}="


def _part_name(upload: str, number: int) -> str:
    return f"part.{upload}.{number:05d}"


def _tag(content: bytes) -> str:
    """Return an object's tag, which S3 makes of MD5; nobody takes it for a proof."""
    return f'"{md5(content, usedforsecurity=False).hexdigest()}"'


def _lost(fault: str) -> Reply:
    status = faults.http_status(fault)
    if not status:
        return Reply(503, ending="hold")
    return Reply(status, _XML, b"<Error><Code>InternalError</Code></Error>")


def _spoilt(reply: Reply, fault: str) -> Reply:
    """Return the reply as a fault leaves it that came after the work was done."""
    if fault == "time_out_done":
        return Reply(503, ending="hold")
    if fault == "http_500_done":
        return Reply(500, _XML, b"<Error><Code>InternalError</Code></Error>")
    if fault == "truncate":
        return Reply(reply.status, reply.headers, reply.body[:-1])
    if fault == "damage" and reply.body:
        return Reply(reply.status, reply.headers, reply.body[:-1] + bytes([reply.body[-1] ^ 1]))
    return reply
