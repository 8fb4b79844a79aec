"""Verifies a message of a webhook with the published library of Standard Webhooks. Reads JSON: secret, headers, body."""
import json
import sys

from standardwebhooks import Webhook
from standardwebhooks.webhooks import WebhookVerificationError

given = json.load(sys.stdin)
webhook = Webhook(given["secret"])
event = webhook.verify(given["body"], given["headers"])
try:
    webhook.verify(given["body"] + " ", given["headers"])
except WebhookVerificationError:
    print(json.dumps(event))
else:
    sys.exit("a changed message was taken")
