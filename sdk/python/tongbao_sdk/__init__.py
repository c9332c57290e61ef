"""Take payments through a Tongbao platform: typed calls, safe retries, verified webhooks."""

from tongbao_sdk.client import Tongbao
from tongbao_sdk.errors import Refused, TongbaoError, Unanswered, WebhookInvalid
from tongbao_sdk.message_signing import encrypted_field
from tongbao_sdk.open_bank import OpenBank
from tongbao_sdk.transport import VERSION
from tongbao_sdk.webhooks import verify_webhook

__version__ = VERSION

__all__ = [
    "OpenBank",
    "Refused",
    "Tongbao",
    "TongbaoError",
    "Unanswered",
    "WebhookInvalid",
    "__version__",
    "encrypted_field",
    "verify_webhook",
]
