"""The client that openapi-python-client makes of openapi.yaml, at work; `tests/it/generated_clients.rs` starts it.

It sends alerts as lines, imports a configuration in XML, makes policies with each kind of `on`, and reads every list
page by page. What it has seen is printed as JSON, which the test compares with what the manager has.
"""

import importlib
import inspect
import io
import json
import os
import pkgutil
import re

import riposte_client.api
from riposte_client import AuthenticatedClient
from riposte_client.api.alerts import alerts_create, alerts_find, alerts_ingest
from riposte_client.api.policies import policies_create, policies_find, policies_import
from riposte_client.api.responses import responses_create
from riposte_client.models import (
    GenericAlert,
    ManualOnAgents,
    NewManualResponse,
    OnAgentsDocument,
    OnSelectorDocument,
    OnWord,
    PolicyDocument,
    RespondDocument,
    SelectorDocument,
)
from riposte_client.types import File

URL, SECRET = os.environ["RIPOSTE_CLIENT_URL"], os.environ["RIPOSTE_CLIENT_SECRET"]
GIVEN = json.load(open(os.environ["RIPOSTE_CLIENT_GIVEN"], encoding="utf-8"))
# Without a limit: the manager is on a busy machine.
client = AuthenticatedClient(base_url=URL, token=os.environ["RIPOSTE_CLIENT_KEY"], timeout=None)


def said(response, status):
    """Return the body of a response that must have this status, as the client has read it."""
    assert response.status_code == status, f"{response.status_code}: {response.content!r}"
    return response.parsed


def lines():
    body = io.BytesIO("".join(json.dumps(alert) + "\n" for alert in GIVEN["lines"]).encode())
    # The route of senders: the secret of the key is in the path.
    sent = alerts_ingest.sync_detailed(SECRET, client=client, body=File(body), idempotency_key="lines-py")
    return said(sent, 202).to_dict()


def single_alerts():
    alerts = [GenericAlert.from_dict(alert) for alert in GIVEN["alerts"]]
    sent = [
        alerts_create.sync_detailed(client=client, body=body, idempotency_key=key)
        for body, key in [(alerts[0], "one-py"), (alerts, "all-py"), (alerts, "all-py")]
    ]
    return [said(response, 202).to_dict() for response in sent]


def imported():
    body = File(io.BytesIO(GIVEN["xml"].encode()))
    return said(policies_import.sync_detailed(client=client, body=body), 201).to_dict()["policies"]


def policies():
    """Make a policy with each kind of `on`, and return which kind the client reads."""
    kinds = {
        "word": OnWord.ALL,
        "agents": OnAgentsDocument(agents=["web-01"]),
        "selector": OnSelectorDocument.from_dict({"labels": {"env": ["prod"]}}),
    }
    read = {}
    for name, on in kinds.items():
        match = [SelectorDocument(rule_ids=["5763"])]
        document = PolicyDocument(name=f"py-{name}", match=match, respond=RespondDocument(action="log-only", on=on))
        for _ in range(2):
            # The second request is the retry of the first.
            made = policies_create.sync_detailed(client=client, body=document, idempotency_key=f"policy-py-{name}")
            said(made, 201)
        read[name] = type(said(policies_find.sync_detailed(f"py-{name}", client=client), 200).respond.on).__name__
    return read


def response():
    asked = NewManualResponse(action="log-only", on=ManualOnAgents(agents=["web-01"]), reason="generated client")
    made = [responses_create.sync_detailed(client=client, body=asked, idempotency_key="response-py") for _ in range(2)]
    return [said(answer, 201).to_dict()["id"] for answer in made]


def identity(item):
    return str(item.get("id") or item.get("seq") or item.get("name") or item.get("version"))


def read_list(operation, takes):
    """Read a list as a whole, and by pages of two items; return the identities of the items."""
    needed = {name for name, parameter in takes.items() if parameter.default is inspect.Parameter.empty}
    more = {name: value for name, value in GIVEN["parameters"].items() if name in needed}
    if "cursor" not in takes:
        page = said(operation.sync_detailed(client=client, **more), 200)
        return {"whole": [identity(item.to_dict()) for item in page.items], "pages": None}
    # Without this the list of events is a stream.
    more |= {"follow": False} if "follow" in takes else {}
    whole = said(operation.sync_detailed(client=client, limit=500, **more), 200)
    pages, items, cursor = 0, [], {}
    while True:
        page = said(operation.sync_detailed(client=client, limit=2, **more, **cursor), 200)
        pages, items = pages + 1, items + page.items
        if not page.next_cursor:
            break
        cursor = {"cursor": page.next_cursor}
    told = [identity(item.to_dict()) for item in items]
    return {"whole": [identity(item.to_dict()) for item in whole.items], "pages": pages, "items": told}


def lists():
    """Find every operation whose success is a page."""
    read = {}
    for package in pkgutil.walk_packages(riposte_client.api.__path__, "riposte_client.api."):
        if package.ispkg:
            continue
        operation = importlib.import_module(package.name)
        signature = inspect.signature(operation.sync_detailed)
        if not re.search(r"\bPage[A-Z]", str(signature.return_annotation)):
            continue
        takes = signature.parameters
        read[package.name.rsplit(".", 1)[1]] = read_list(operation, takes)
    return read


def problem():
    answer = alerts_find.sync_detailed("00000000-0000-0000-0000-000000000000", client=client)
    read = said(answer, 404)
    return [type(read).__name__, read.status]


report = {
    "lines": [lines(), lines()],
    "alerts": single_alerts(),
    "imported": imported(),
    "on": policies(),
    "responses": response(),
    "problem": problem(),
    "lists": lists(),
}
print(json.dumps(report))
