"""Take payments through a Tongbao platform: typed calls, safe retries, verified webhooks."""

from tongbao_sdk.client import Tongbao
from tongbao_sdk.errors import Refused, TongbaoError, Unanswered
from tongbao_sdk.webhooks import WebhookInvalid, verify_webhook

__all__ = [
    "Refused",
    "Tongbao",
    "TongbaoError",
    "Unanswered",
    "WebhookInvalid",
    "verify_webhook",
]
