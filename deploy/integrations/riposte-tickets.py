#!/usr/bin/env python3
"""Opens a ticket for each response of Riposte, in TheHive or Jira, and files the response under it.

Riposte's webhook posts here; what is not done is answered 502, and Riposte sends it again. A ticket is opened once: before one is
made, the response is asked whether it has a case, and TheHive or Jira whether they know it. Needs Python 3.9 or later, and nothing else.

Settings are environment variables:
  RIPOSTE_URL, RIPOSTE_KEY       the manager, and an API key with the role analyst
  WEBHOOK_SECRET                 what `riposte webhook add` printed
  TICKETS, TICKETS_URL           thehive or jira, and where it is
  TICKETS_KEY                    TheHive: an API key; Jira: EMAIL:TOKEN
  JIRA_PROJECT                   Jira: the key of the project
  LISTEN                         address and port, 127.0.0.1:8490 without it
"""
import base64
import hashlib
import hmac
import json
import os
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TIMEOUT = 5
MAX_BODY = 1024 * 1024
WINDOW = 300
OPENS = {"riposte.response.created", "riposte.response.submitted"}


class NotDone(Exception):
    """It is tried again later. `is_missing`: there is no such page."""

    def __init__(self, words, is_missing=False):
        super().__init__(words)
        self.is_missing = is_missing


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect would carry the key to elsewhere."""

    def redirect_request(self, *_):
        return None


OPENER = urllib.request.build_opener(NoRedirect)
# One after the other: Riposte sends again what takes longer than it waits, and both would open a ticket.
ONE_AT_A_TIME = threading.Lock()


def is_signed(headers, body, secret):
    """Whether Riposte has sent this, within the last five minutes (Standard Webhooks)."""
    message_id, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(time.time() - int(stamp)) > WINDOW:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    tag = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    expected = "v1," + base64.b64encode(tag).decode()
    return any(hmac.compare_digest(one, expected) for one in headers.get("webhook-signature", "").split())


def call(method, url, authorization, body=None):
    """Returns the JSON that is answered."""
    request = urllib.request.Request(url, method=method, headers={"Authorization": authorization, "Accept": "application/json"})
    if body is not None:
        request.add_header("Content-Type", "application/json")
        request.data = json.dumps(body).encode()
    try:
        with OPENER.open(request, timeout=TIMEOUT) as answer:
            text = answer.read(MAX_BODY)
            return json.loads(text) if text else {}
    except (OSError, ValueError) as error:
        is_missing = isinstance(error, urllib.error.HTTPError) and error.code in (404, 405)
        raise NotDone(f"{method} {url.split('?')[0]}: {error}", is_missing) from error


def summary(response):
    target = f"{response.get('target_kind') or ''} {response.get('target_value') or ''}".strip()
    return f"{response['action']} {target}".strip()[:200]


def description(response):
    lines = [
        f"Riposte response {response['id']}",
        f"State: {response['state']}",
        f"Policy: {response.get('policy') or 'none (by hand)'}",
        f"Agents: {', '.join(agent['agent'] for agent in response.get('agents_in_detail', [])) or len(response['agents'])}",
        f"Until: {response.get('until') or 'lifted by hand'}",
    ]
    return "\n".join(lines + ([response["detail"]] if response.get("detail") else []))


def in_thehive(settings, response):
    """An alert of TheHive is unique by its source and reference, so a second one is refused and looked up."""
    authorization, reference = f"Bearer {settings['TICKETS_KEY']}", response["id"]
    base = settings["TICKETS_URL"].rstrip("/")
    query = {"query": [{"_name": "listAlert"}, {"_name": "filter", "_field": "sourceRef", "_value": reference}]}
    known = call("POST", f"{base}/api/v1/query?name=riposte", authorization, query)
    if known:
        return f"thehive {known[0]['_id']}"
    alert = {
        "type": "riposte",
        "source": "riposte",
        "sourceRef": reference,
        "title": summary(response),
        "description": description(response),
        "severity": 2,
        "tags": [f"policy:{response.get('policy') or 'by-hand'}"],
        "observables": [{"dataType": "ip", "data": response["target_value"]}] if response.get("target_kind") == "ip" else [],
    }
    return f"thehive {call('POST', f'{base}/api/v1/alert', authorization, alert)['_id']}"


def in_jira(settings, response):
    """An issue has a label with the response's id, by which it is found again."""
    authorization = "Basic " + base64.b64encode(settings["TICKETS_KEY"].encode()).decode()
    base, label = settings["TICKETS_URL"].rstrip("/"), f"riposte-{response['id']}"
    jql = urllib.parse.quote(f'labels = "{label}"')
    query = f"?fields=key&maxResults=1&jql={jql}"
    try:
        known = call("GET", f"{base}/rest/api/3/search/jql{query}", authorization).get("issues")
    except NotDone as error:
        if not error.is_missing:
            raise
        # Jira Data Center has the earlier search alone, Jira Cloud the later one.
        known = call("GET", f"{base}/rest/api/2/search{query}", authorization).get("issues")
    if known:
        return known[0]["key"]
    fields = {
        "project": {"key": settings["JIRA_PROJECT"]},
        "issuetype": {"name": "Task"},
        "summary": summary(response),
        "description": description(response),
        "labels": [label],
    }
    return call("POST", f"{base}/rest/api/2/issue", authorization, {"fields": fields})["key"]


def handle(settings, event):
    """Opens a ticket for the response of an event, unless it has one."""
    if event.get("type") not in OPENS or "response_id" not in event.get("data", {}):
        return
    authorization = f"Bearer {settings['RIPOSTE_KEY']}"
    path = f"{settings['RIPOSTE_URL'].rstrip('/')}/v1/responses/{event['data']['response_id']}"
    response = call("GET", path, authorization)
    if response.get("case"):
        return
    ticket = {"thehive": in_thehive, "jira": in_jira}[settings["TICKETS"]](settings, response)
    call("PUT", f"{path}/case", authorization, {"case": ticket})
    print(f"{response['id']}: {ticket}", flush=True)


def serve(settings):
    class Handler(BaseHTTPRequestHandler):
        timeout = TIMEOUT

        def do_POST(self):
            length = self.headers.get("content-length") or "0"
            if not length.isdecimal() or int(length) > MAX_BODY:
                self.close_connection = True
                return self.answer(413)
            length = int(length)
            body = self.rfile.read(length)
            if not is_signed(self.headers, body, settings["WEBHOOK_SECRET"]):
                return self.answer(401)
            try:
                with ONE_AT_A_TIME:
                    handle(settings, json.loads(body))
            except (NotDone, KeyError, TypeError, ValueError) as error:
                print(f"not done, Riposte sends it again: {error!r}", file=sys.stderr, flush=True)
                return self.answer(502)
            return self.answer(204)

        def answer(self, status):
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    host, _, port = settings.get("LISTEN", "127.0.0.1:8490").rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    print(f"listens on {host}:{server.server_address[1]}", flush=True)
    server.serve_forever()


def main():
    needed = ["RIPOSTE_URL", "RIPOSTE_KEY", "WEBHOOK_SECRET", "TICKETS", "TICKETS_URL", "TICKETS_KEY"]
    if os.environ.get("TICKETS") == "jira":
        needed.append("JIRA_PROJECT")
    missing = [name for name in needed if not os.environ.get(name)]
    if missing or os.environ["TICKETS"] not in ("thehive", "jira"):
        sys.exit(f"set {', '.join(missing) or 'TICKETS to thehive or jira'}:\n{__doc__}")
    serve(dict(os.environ))


if __name__ == "__main__":
    main()
