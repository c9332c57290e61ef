import pytest

from tongbao.rails.channels.codes import (
    CODE_RANGES,
    PaymentCodeUnknown,
    channel_of_code,
    recognise,
)


@pytest.mark.parametrize(
    ("code", "channel"),
    [
        *((f"{prefix}" + "0" * 16, "wechat_pay") for prefix in range(10, 16)),
        *((f"{prefix}" + "0" * 14, "alipay") for prefix in range(25, 31)),
        ("28" + "0" * 22, "alipay"),
        ("88" + "0" * 16, "wallet"),
    ],
)
def test_the_first_digits_and_the_length_tell_whose_code_it_is(code: str, channel: str) -> None:
    assert channel_of_code(code) == channel


@pytest.mark.parametrize(
    "code",
    [
        "",
        "16" + "0" * 16,
        "10" + "0" * 15,
        "10" + "0" * 17,
        "28" + "0" * 13,
        "28" + "0" * 23,
        "88" + "0" * 15,
        "https://qr.alipay.com/x",
        "１０" + "0" * 16,
        "10 " + "0" * 15,
    ],
)
def test_anything_else_is_nobodys(code: str) -> None:
    assert recognise(code) is None
    with pytest.raises(PaymentCodeUnknown):
        channel_of_code(code)


def test_unionpay_is_recognised_and_not_offered() -> None:
    found = recognise("62" + "0" * 17)
    assert found is not None
    assert found.channel == "unionpay"
    with pytest.raises(PaymentCodeUnknown):
        channel_of_code("62" + "0" * 17)


def test_no_code_can_be_of_two_owners() -> None:
    for one in CODE_RANGES:
        for other in CODE_RANGES:
            lengths = range(one.digits_min, one.digits_max + 1)
            overlap = set(lengths) & set(range(other.digits_min, other.digits_max + 1))
            assert one is other or not (overlap and one.prefixes & other.prefixes)
