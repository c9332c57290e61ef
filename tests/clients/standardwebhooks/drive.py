"""Verifies and signs webhooks with standardwebhooks, a library by others; runs in its own env.

Reads ``{"secret", "webhooks": [{"headers", "body"}], "sign": [{"id", "at", "body"}]}`` and prints
what it made of each webhook, and a signature for each message it was asked to sign.
"""

import json
import sys
from datetime import UTC, datetime

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError


def main():
    given = json.load(sys.stdin)
    library = Webhook(given["secret"])

    def verdict(webhook):
        try:
            return library.verify(webhook["body"], webhook["headers"])
        except WebhookVerificationError as failure:
            return str(failure)

    def signature(message):
        at = datetime.fromtimestamp(message["at"], tz=UTC)
        return library.sign(message["id"], at, message["body"])

    heard = {
        "verdicts": [verdict(webhook) for webhook in given["webhooks"]],
        "signatures": [signature(message) for message in given["sign"]],
    }
    json.dump(heard, sys.stdout)


main()
