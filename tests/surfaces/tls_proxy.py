"""A proxy that ends mutual TLS and hands certificates on as RFC 9440 says; written for tests alone.

It asks for a certificate and does without one, verifies the handshake against the certificates it
was given, takes away what clients write into its headers, and serves one request a connection.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.surfaces.partnering import Es256
from tongbao.kernel.clock import real_now

DAY = timedelta(days=1)
OURS = (b"client-cert", b"client-cert-chain", b"connection")


class Pair:
    """A key and its certificate: an authority's, a client's, or one that vouches for itself."""

    def __init__(
        self, subject: str, by: Pair | None = None, *, ca: bool = False, **more: Any
    ) -> None:
        self.key = more.get("key") or ec.generate_private_key(ec.SECP256R1())
        self.subject = x509.Name.from_rfc4514_string(subject)
        now = real_now().replace(microsecond=0)
        issuer, signer = (by.subject, by.key) if by else (self.subject, self.key)
        made = x509.CertificateBuilder(issuer, self.subject, self.key.public_key())
        made = made.serial_number(x509.random_serial_number())
        made = made.not_valid_before(now - 2 * DAY)
        made = made.not_valid_after(now + more.get("ends", DAY))
        made = made.add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        if not ca:
            purpose = more.get("purpose", ExtendedKeyUsageOID.CLIENT_AUTH)
            made = made.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
        if names := more.get("names"):
            made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
        self.certificate = made.sign(signer, SHA256())
        self.der = self.certificate.public_bytes(Encoding.DER)

    @property
    def pem(self) -> bytes:
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def private(self) -> bytes:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def header(self) -> str:
        """How a proxy writes it (RFC 9440 §2.1)."""
        return f":{base64.b64encode(self.der).decode()}:"

    @property
    def jwk(self) -> dict[str, Any]:
        """The public key with its certificate, as partners register it."""
        known = Es256(self.key)
        return {**known.jwk, "kid": "c1", "x5c": [base64.b64encode(self.der).decode()]}

    def kept_in(self, folder: Path, name: str) -> tuple[str, str]:
        """Where its certificate and its key lie, as files."""
        at = folder / f"{name}.pem", folder / f"{name}.key"
        at[0].write_bytes(self.pem)
        at[1].write_bytes(self.private)
        return str(at[0]), str(at[1])

    def crl(self, *revoked: Pair, until: timedelta = DAY) -> bytes:
        """Its list of those that it has revoked."""
        now = real_now().replace(microsecond=0)
        made = x509.CertificateRevocationListBuilder().issuer_name(self.subject)
        made = made.last_update(now - 2 * DAY).next_update(now + until)
        for each in revoked:
            gone = x509.RevokedCertificateBuilder().serial_number(each.certificate.serial_number)
            made = made.add_revoked_certificate(gone.revocation_date(now - DAY).build())
        return made.sign(self.key, SHA256()).public_bytes(Encoding.PEM)


def server_certificate(root: Pair) -> Pair:
    """That of the proxy itself."""
    here = [x509.DNSName("localhost")]
    return Pair("CN=localhost", root, names=here, purpose=ExtendedKeyUsageOID.SERVER_AUTH)


@asynccontextmanager
async def tls_proxy(
    listening: Any, folder: Path, root: Pair, clients: Sequence[Pair], port: int
) -> AsyncIterator[None]:
    """End TLS at a socket for the plain server at a port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server_certificate(root).kept_in(folder, "server"))
    context.verify_mode = ssl.CERT_OPTIONAL
    for each in (root, *clients):
        context.load_verify_locations(cadata=each.der)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            await _carry(reader, writer, port)
        writer.close()

    server = await asyncio.start_server(serve, sock=listening, ssl=context)
    try:
        yield
    finally:
        server.close()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, port: int) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    kept = [each for each in lines if each.partition(b":")[0].lower() not in OURS]
    length = [
        each.partition(b":")[2] for each in kept if each.lower().startswith(b"content-length:")
    ]
    body = await reader.readexactly(int(length[0])) if length else b""
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    if shown:
        kept.append(b"client-cert: :" + base64.b64encode(shown) + b":")
    inner_reader, inner = await asyncio.open_connection("127.0.0.1", port)
    inner.write(b"\r\n".join([first, *kept, b"connection: close", b"", b""]) + body)
    writer.write(await inner_reader.read())
    await writer.drain()
    inner.close()
