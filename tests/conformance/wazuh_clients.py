"""Two published clients of Wazuh's API against Riposte; `tests/it/conformance.rs` starts it.

wazuh-api-client logs in and reads agents. It has no call for active responses, so its session sends one. pyzuh has
that call. As published it cannot be imported as a package: its modules import `errors` as if it were beside them, and
call its function with one argument too few. Both are mended here from outside; the requests are the client's own.
"""

import importlib.util
import json
import os
import pathlib
import sys
import types

# pyzuh reads the name and the password of a person from the environment itself.
URL, KEY = os.environ["WAZUH_URL"], os.environ["RIPOSTE_KEY"]
BODY = {"command": "!firewall-drop", "arguments": [], "alert": {"data": {"srcip": "203.0.113.7"}}}


def by_wazuh_api_client():
    from wazuh_api_client.client import WazuhClient

    client = WazuhClient(base_url=URL, version="4", username="shuffle", password=KEY)
    agents = client.request("GET", client.build_endpoint("/agents"), params={"offset": 0, "limit": 500})
    summary = client.request("GET", client.build_endpoint("/agents/summary/status"))
    ran = client.request("PUT", client.build_endpoint("/active-response"), params={"agents_list": "005"}, json=BODY)
    return {"agents": agents, "summary": summary, "ran": ran}


def module(name):
    """Load one file of pyzuh without its package."""
    folder = pathlib.Path(importlib.util.find_spec("pyzuh").origin).parent
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def by_pyzuh():
    errors = module("errors")
    sys.modules["errors"] = types.SimpleNamespace(handle_errors=lambda response: errors.handle_errors(None, response))
    token = module("authentication").authenticate_wazuh(URL)
    client = module("active_response").ActiveResponse(URL, token)
    ran = client.run_command(BODY)
    try:
        client.run_command({"command": ""})
        refused = None
    except ValueError as error:
        refused = str(error)
    return {"ran": ran, "refused": refused}


print(json.dumps({"wazuh-api-client": by_wazuh_api_client(), "pyzuh": by_pyzuh()}))
