"""Signs requests with http-message-signatures, a library by others; runs in its own env.

Reads ``[{"algorithm", "key", "method", "url", "headers", "body", "key_id", "nonce", "covered"}]``,
the key as PEM or, for hmac-sha256, as it is, and prints the headers that each is sent with.
"""

import json
import sys
from types import SimpleNamespace

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from http_message_signatures import HTTPMessageSigner, HTTPSignatureKeyResolver, algorithms

KNOWN = {
    "ed25519": algorithms.ED25519,
    "ecdsa-p256-sha256": algorithms.ECDSA_P256_SHA256,
    "rsa-pss-sha512": algorithms.RSA_PSS_SHA512,
    "hmac-sha256": algorithms.HMAC_SHA256,
}


class OneKey(HTTPSignatureKeyResolver):
    def __init__(self, key):
        self.key = key

    def resolve_private_key(self, key_id):
        return self.key

    def resolve_public_key(self, key_id):
        raise NotImplementedError


def signed(given):
    key = given["key"].encode()
    if given["algorithm"] != "hmac-sha256":
        key = load_pem_private_key(key, password=None)
    signer = HTTPMessageSigner(
        signature_algorithm=KNOWN[given["algorithm"]], key_resolver=OneKey(key)
    )
    message = SimpleNamespace(
        method=given["method"], url=given["url"], headers=dict(given["headers"])
    )
    signer.sign(
        message,
        key_id=given["key_id"],
        nonce=given["nonce"],
        tag="tongbao",
        covered_component_ids=tuple(given["covered"]),
        body=given["body"].encode(),
    )
    return dict(message.headers)


json.dump([signed(each) for each in json.load(sys.stdin)], sys.stdout)
