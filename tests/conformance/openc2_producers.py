"""Published producers of OpenC2 block an address on a host and take it back: otupy by its own transfer, openc2
by the commands that it writes. Prints what each was answered as JSON. The key is in NETRC, which requests reads:
otupy has no place for one."""

import json
import os

import openc2
import otupy
import otupy.profiles.slpf as slpf
import requests
from otupy.encoders.json import JSONEncoder
from otupy.transfers.http import HTTPTransfer

host, port = os.environ["RIPOSTE_ADDRESS"].rsplit(":", 1)
said = {}


def by_otupy():
    producer = otupy.Producer("producer.example.org", JSONEncoder(), HTTPTransfer(host, int(port)))
    actuator = slpf.Specifiers({"hostname": "web-01", "asset_id": "005"})

    def send(action, target, **args):
        arguments = slpf.Args({"response_requested": otupy.ResponseType.complete, **args}) if args else None
        response = producer.sendcmd(otupy.Command(action, target, arguments, actuator=actuator))
        content = response.content
        results = content.get("results") or {}
        rule = results.get("rule_number")
        return {
            "status": content["status"].value,
            "text": content.get("status_text"),
            "profiles": [str(profile) for profile in results.get("profiles") or []],
            "rule": rule if rule is None else int(rule),
        }

    features = otupy.Features([otupy.Feature.versions, otupy.Feature.profiles])
    said["otupy"] = {"query": send(otupy.Actions.query, features)}
    denied = send(otupy.Actions.deny, otupy.IPv4Net("203.0.113.7/32"), direction=slpf.Direction.ingress, duration=otupy.Duration(600000))
    said["otupy"]["deny"] = denied
    said["otupy"]["delete"] = send(otupy.Actions.delete, slpf.RuleID(int(denied["rule"])))


def by_openc2():
    def send(command):
        answer = requests.post(
            f"http://{host}:{port}/openc2",
            data=command.serialize() if isinstance(command, openc2.v10.Command) else json.dumps(command),
            headers={"Content-Type": "application/openc2+json;version=1.0"},
            timeout=10,
        )
        # The package reads the response, and refuses one that is none.
        openc2.parse(answer.json())
        return answer.json()

    deny = openc2.v10.Command(
        action="deny",
        target=openc2.v10.IPv4Address(ipv4_net="203.0.113.8"),
        args=openc2.v10.Args(response_requested="complete", duration=600000),
        actuator=openc2.v10.SLPFActuator(hostname="web-01"),
    )
    said["openc2"] = {"deny": send(deny)}
    rule = said["openc2"]["deny"]["results"]["slpf"]["rule_number"]
    delete = openc2.v10.Command(
        action="delete", target=openc2.v10.SLPFTarget(rule_number=str(rule)), actuator=openc2.v10.SLPFActuator(asset_id="005")
    )
    said["openc2"]["delete"] = send(delete)


by_otupy()
by_openc2()
print(json.dumps(said))
