"""What the contract alone does not tell schemathesis about Riposte.

The contract's own formats (an action that exists, a key that is on the curve) get a generator each.
Valid requests get values that fit the manager's state: ids of existing objects, a new
Idempotency-Key. Requests that are invalid on purpose stay unchanged.
"""

import json
import os
import random
import socket
import urllib.parse
import urllib.request
import uuid

import schemathesis
from hypothesis import strategies as st
from schemathesis.generation import GenerationMode

BASE = os.environ["CONFORMANCE_URL"]
KEY = os.environ["CONFORMANCE_ADMIN_KEY"]
# Where a fresh agent token is read for each request, as HOST:PORT; empty for other callers.
TOKENS = os.environ.get("CONFORMANCE_TOKENS", "")

# The same choices each time.
random.seed(14)

# A point of the curve: the base point.
PUBLIC_KEY = "WGZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmZmY"
TARGETS = {
    "ip": ["203.0.113.7", "2001:db8::7", "198.51.100.0/24"],
    "user": ["jdoe", "svc.backup"],
    "file": ["/var/www/html/shell.php", "/tmp/a b"],
    "process": ["4711", "4294967295"],
}
CEL = ["rule.level >= 10", "data.srcport > 1024", 'source.ip == "203.0.113.7"']

ALERT = {"pipeline": "p", "id": "a", "time": "2026-11-24T10:00:00Z", "rule": {"id": "1", "level": 3}}

FORMATS = {
    "action-name": ["log-only", "firewall-drop"],
    "wazuh-query": ["id>4", "(name~web,os.name=linux);status!=active", "lastKeepAlive<2026-11-24 10:00:00"],
    "wazuh-command": ["log-only0", "log-only600", "!log-only"],
    "agent-word": ["web-01"],
    "cel": CEL,
    "duration-text": ["1ms", "30s", "10m", "1h30m", "3650d"],
    "duration-text-24h": ["1ms", "2m", "24h"],
    "ed25519-public-key": [PUBLIC_KEY],
    "group-expression": ["sshd,", "web|attack", "^syslog"],
    "json-schema": [{}, {"type": "array", "maxItems": 1}],
    "max-age-text": ["none", "1h", "30d"],
    "network-text": ["203.0.113.0/24", "2001:db8::/32", "203.0.113.9"],
    "rate-text": ["1/1s", "60/1m", "4294967295/24h"],
}
# Bodies that are no JSON.
LINES = [json.dumps(ALERT).encode(), (json.dumps(ALERT) + "\n" + json.dumps(ALERT) + "\n").encode()]
XML = b"<ossec_config/>"
for kind in ["application/x-ndjson", "application/ndjson", "application/jsonl"]:
    schemathesis.openapi.media_type(kind, st.sampled_from(LINES))
for kind in ["application/xml", "text/xml"]:
    schemathesis.openapi.media_type(kind, st.just(XML))
for name, values in FORMATS.items():
    schemathesis.openapi.format(name, st.sampled_from([v if isinstance(v, str) else json.dumps(v) for v in values]))
for kind, values in TARGETS.items():
    schemathesis.openapi.format(f"{kind}-target", st.sampled_from(values))


def known(path):
    request = urllib.request.Request(f"{BASE}{path}?limit=20", headers={"Authorization": f"Bearer {KEY}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["items"]


def thing(path):
    """Return an existing object of the resource that a path begins with."""
    resource = "/".join(path.split("/")[:3])
    try:
        items = known(resource)
    except OSError:
        return None
    found = [item.get("id") or item.get("name") for item in items]
    return random.choice(found) if found else None


AGENT = next(agent["id"] for agent in known("/v1/agents") if agent["name"] == "web-01")


ENROLMENT = {"token", "name", "public_key", "platform", "version", "capabilities"}
PARTS = {"os", "arch", "version", "action", "available", "reason"}


def policy(document):
    """Make a policy consistent: its action takes its target, and its tests agree."""
    document.pop("tests", None)
    for selector in document.get("match", []):
        if "when" in selector:
            selector["when"] = random.choice(CEL)
    respond = document.get("respond", {})
    respond["action"] = "firewall-drop"
    respond["target"] = random.choice(["source.ip", "destination.ip"])
    respond.pop("arguments", None)
    if not isinstance(respond.get("on"), dict) and respond.get("on") != "all":
        respond.pop("waves", None)


def manual(body):
    body["action"], body["agents"] = "log-only", ["web-01"]
    for key in ("target", "for", "arguments"):
        body.pop(key, None)


def custom(body):
    body["name"] = f"x-{uuid.uuid4().hex[:12]}"
    if "parameters" in body:
        body["parameters"] = json.loads(random.choice(['{}', '{"type": "array", "maxItems": 1}']))
    if "user" in body:
        body["target_kinds"], body["style"] = ["user"], "wazuh"
        body.pop("default_target", None)
    if "default_target" in body:
        body["default_target"], body["target_kinds"] = "source.ip", ["ip"]
    # Any account: only for an action that takes accounts as JSON.
    if "user" in body:
        body["target_kinds"], body["style"] = ["user"], "wazuh"
        if "default_target" in body:
            body["default_target"] = "source.user"


def webhook(body):
    """Keep a webhook that is sent nothing; what fits together in its settings, the contract does not say."""
    if "url" in body:
        body["url"] = "https://localhost:9/"
    body.pop("secret", None)
    body["settings"] = {"types": ["response.*"], "fields": ["policy"], "ceiling": "green", "is_disabled": True}


def is_wrong(case):
    """Return whether any part of the request is invalid on purpose."""
    if case.meta is None:
        return False
    parts = [case.meta.generation, *case.meta.components.values()]
    return any(part.mode is not GenerationMode.POSITIVE for part in parts)


def spare(case):
    """Keep the one agent: most operations need an enrolled one."""
    if case.operation.path == "/v1/agents/{id}" and case.operation.method.upper() == "DELETE":
        if case.path_parameters and case.path_parameters.get("id") == AGENT:
            case.path_parameters["id"] = str(uuid.uuid4())


def whole(value):
    """JSON Schema counts 1.0 as an integer; the manager's contract asks for integers without a fraction."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    if isinstance(value, list):
        return [whole(item) for item in value]
    return value


def finite(case):
    # A stream of events has no end.
    if case.operation.path != "/v1/events":
        return
    case.query = dict(case.query or {})
    if str(case.query.get("follow", "true")).lower() == "true":
        case.query["follow"] = "false"
    if not is_wrong(case):
        # Events of an agent that is not there, or of a type that no event has, are a fault of the request.
        case.query.pop("agent", None)
        if "type" in case.query:
            case.query["type"] = random.choice(["response.*", "policy.created,effect.*"])


@schemathesis.serializer("application/x-ndjson", "application/ndjson", "application/jsonl", "application/xml", "text/xml")
def text(context, value):
    return value if isinstance(value, bytes) else str(value).encode()


def version(path):
    """Return the current ETag of a path."""
    request = urllib.request.Request(BASE + path, headers={"Authorization": f"Bearer {KEY}"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.headers["ETag"]
    except (OSError, ValueError):
        return None


def fresh_token():
    host, port = TOKENS.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=30) as connection, connection.makefile() as text:
        return text.read()


@schemathesis.hook
def before_call(context, case, kwargs):
    if TOKENS:
        # Each is good for one request.
        case.headers = case.headers.copy() if case.headers is not None else {}
        case.headers["Authorization"] = f"Bearer {fresh_token()}"
    # Cases may share parts, so each change is made in a copy.
    if case.path_parameters:
        case.path_parameters = dict(case.path_parameters)
    spare(case)
    finite(case)
    if is_wrong(case):
        return
    headers = case.headers = case.headers.copy() if case.headers is not None else {}
    for name in [name for name in headers if name.lower() == "idempotency-key"]:
        headers[name] = str(uuid.uuid4())
    case.body = whole(case.body)
    path, method, body = case.operation.path, case.operation.method.upper(), case.body
    if case.path_parameters and random.random() < 0.5 and not (method == "DELETE" and random.random() < 0.8):
        found = thing(path)
        if found is not None:
            case.path_parameters[next(iter(case.path_parameters))] = found
            spare(case)
    if "If-Match" in headers and random.random() < 0.7:
        name = str(case.path_parameters["name"])
        tag = version("/".join(path.split("/")[:3]) + "/" + urllib.parse.quote(name, safe=""))
        if tag is not None:
            headers["If-Match"] = tag
    if path == "/v1/policies/import" and method == "POST":
        name = f"c-{uuid.uuid4().hex[:12]}"
        case.body = (
            f"<ossec_config><command><name>{name}</name><executable>{name}.sh</executable></command>"
            f"<active-response><command>{name}</command><location>local</location><level>7</level>"
            "</active-response></ossec_config>"
        )
        return
    if not isinstance(body, dict):
        return
    if path.startswith("/v1/policies/backtest"):
        policy(body.get("policy", {}))
    elif path.startswith("/v1/policies") and "respond" in body:
        policy(body)
    elif path == "/v1/protected" and "kind" in body:
        body["value"] = random.choice(TARGETS.get(body["kind"], ["web-01"]))
    elif path == "/v1/holds" and "kind" in body:
        # What it covers must exist, and its name must be new.
        body.clear()
        body.update(name=uuid.uuid4().hex, reason="r", kind="target", value=random.choice(TARGETS["ip"]))
    elif path == "/v1/webhooks" or path == "/v1/webhooks/{name}":
        webhook(body)
    elif path == "/v1/responses":
        manual(body)
    elif path == "/wazuh/active-response":
        body.pop("arguments", None)
    elif path.startswith("/v1/actions"):
        custom(body)
    elif path == "/v1/agents/enroll":
        # The manager ignores fields of a newer agent, but refuses control characters in them.
        for key in [key for key in body if key not in ENROLMENT]:
            del body[key]
        for part in [body.get("platform"), *body.get("capabilities", [])]:
            for key in [key for key in part or {} if key not in PARTS]:
                del part[key]
    elif method == "PATCH" and path == "/v1/agents/{id}":
        # Other labels stay on the agent: random names would exceed the limit in the end.
        labels = body.get("labels", {})
        fixed = {key: labels[key] for key in labels if key.startswith("wazuh_")}
        others = [labels[key] for key in labels if key not in fixed]
        body["labels"] = fixed | {f"label-{index}": value for index, value in enumerate(others[:8])}
    elif path.endswith("/rollback"):
        body["version"] = 1
    elif path == "/v1/agent/poll":
        body["wait_seconds"] = 0
    # A document has the name in its path.
    if method == "PUT" and case.path_parameters and "name" in body:
        body["name"] = case.path_parameters["name"]
