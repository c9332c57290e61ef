"""The sandbox's Alipay signatures, checked against what the real Alipay once signed."""

import json
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa

from tongbao_sandbox.alipay_crypto import (
    NOTIFY_LEAVES_OUT,
    REQUEST_LEAVES_OUT,
    is_signed,
    load_private_key,
    load_public_key,
    sign,
    signed_notify,
    signed_reply,
    text_to_sign,
)
from tongbao_sandbox.credentials import new_rsa

VECTORS = Path(__file__).parents[1] / "vectors" / "alipay" / "callbacks.json"


@pytest.fixture(scope="module")
def vectors():
    return json.loads(VECTORS.read_text("utf-8"))


@pytest.fixture(scope="module")
def alipay_key(vectors):
    key = x509.load_pem_x509_certificate(vectors["certificate"].encode()).public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    return key


@pytest.fixture(scope="module")
def pair():
    private, public = new_rsa()
    return load_private_key(private), load_public_key(public)


@pytest.mark.parametrize("name", ["notify", "return"])
def test_what_alipay_really_signed_verifies(vectors, alipay_key, name):
    fields = vectors[name]
    assert is_signed(alipay_key, text_to_sign(fields, NOTIFY_LEAVES_OUT), fields["sign"])


@pytest.mark.parametrize("name", ["notify", "return"])
def test_one_changed_value_breaks_the_signature(vectors, alipay_key, name):
    fields = {**vectors[name], "total_amount": "0.02"}
    assert not is_signed(alipay_key, text_to_sign(fields, NOTIFY_LEAVES_OUT), fields["sign"])


def test_a_request_signs_its_sign_type_and_a_notification_does_not():
    params = {"b": "2", "a": "中 文&=", "empty": "", "sign": "x", "sign_type": "RSA2"}
    assert text_to_sign(params, REQUEST_LEAVES_OUT) == "a=中 文&=&b=2&sign_type=RSA2"
    assert text_to_sign(params, NOTIFY_LEAVES_OUT) == "a=中 文&=&b=2"


def test_the_signature_covers_the_inner_object_as_it_is_written(pair):
    private, public = pair
    raw = signed_reply(private, "alipay_trade_query_response", {"msg": "成功", "n": {"x": 1}})
    text = raw.decode()
    head, tail = '{"alipay_trade_query_response":', ',"sign":"'
    inner = text[len(head) : text.rindex(tail)]
    signature = text[text.rindex(tail) + len(tail) : -2]
    assert text.startswith(head)
    assert inner == '{"msg":"成功","n":{"x":1}}'
    assert is_signed(public, inner, signature)
    assert json.loads(raw)["sign"] == signature


def test_a_notification_verifies_as_a_merchant_verifies_it(pair):
    private, public = pair
    signed = signed_notify(private, {"subject": "拿铁", "total_amount": "1.00", "body": ""})
    assert signed["sign_type"] == "RSA2"
    assert is_signed(public, text_to_sign(signed, NOTIFY_LEAVES_OUT), signed["sign"])


@pytest.mark.parametrize("signature", ["", "不是", "AAAA", "====", "a b"])
def test_a_malformed_signature_is_a_no_and_not_an_error(pair, signature):
    assert not is_signed(pair[1], "text", signature)


def test_only_the_right_key_verifies(pair):
    other = load_public_key(new_rsa()[1])
    assert is_signed(pair[1], "text", sign(pair[0], "text"))
    assert not is_signed(other, "text", sign(pair[0], "text"))
