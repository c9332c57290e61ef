"""What is wrong with an EMV QR text, merchant-presented or consumer-presented.

The two formats have modules of their own: `emv_qr_merchant` and `emv_qr_consumer`.
"""

from __future__ import annotations

from typing import Final

from tongbao.kernel.errors import Rejected

TEXT_LENGTH_MAX: Final = 512
"""Characters of a whole text, both ways round (EMV QRCPS, merchant- and consumer-presented)."""


class EmvQrTooLong(Rejected):
    """The text is longer than any EMV QR."""

    code = "emv_qr.too_long"
    advice = "Scan the code again; an EMV QR has at most 512 characters."
    advice_zh = "二维码内容超过 512 个字符，请重新扫码。"


class EmvQrUnreadable(Rejected):
    """The text is not made of tags, lengths and values, or they do not fill it exactly."""

    code = "emv_qr.unreadable"
    advice = "Scan the code again; it is not an EMV QR, or a part of it is missing."
    advice_zh = "不是 EMV 二维码，或内容不完整，请重新扫码。"


class EmvQrChecksumWrong(Rejected):
    """The checksum at the end is not that of the text before it."""

    code = "emv_qr.checksum_wrong"
    advice = "Scan the code again; it was misread or altered."
    advice_zh = "校验码不符，二维码可能被误读或篡改，请重新扫码。"


class EmvQrFieldRepeated(Rejected):
    """A field that may be there once is there twice."""

    code = "emv_qr.field_repeated"
    advice = "Ask whoever made the code for a correct one; param names the field."
    advice_zh = "二维码中字段重复（见 param），请联系制作方更换。"


class EmvQrFieldMissing(Rejected):
    """A field that every such code has is not there."""

    code = "emv_qr.field_missing"
    advice = "Ask whoever made the code for a correct one; param names the field."
    advice_zh = "二维码缺少必填字段（见 param），请联系制作方更换。"


class EmvQrFieldMalformed(Rejected):
    """A field has a value it cannot have, or is longer than it may be."""

    code = "emv_qr.field_malformed"
    advice = "Correct the field named in param, or ask whoever made the code for a correct one."
    advice_zh = "字段取值不合规（见 param），请更正或联系制作方更换。"
