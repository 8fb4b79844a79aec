"""Checks events against the schema of OCSF: each line of the standard input is one.

Prints the name of the class of each, or fails with what is wrong.
"""

import json
import sys

import jsonschema
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

VERSION = "1.6.0"
schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=VERSION))
known = {}
for line in sys.stdin:
    event = json.loads(line)
    assert event["metadata"]["version"] == VERSION, event
    profiles = event["metadata"]["profiles"]
    name = schemas.lookup_class_name_from_uid(event["class_uid"])
    if name not in known:
        # The profiles that an event names, and no attribute that neither they nor its class have.
        schema = schemas.get_class_schema(name, profiles)
        known[name] = jsonschema.Draft202012Validator(schema)
    faults = [f"{'/'.join(map(str, fault.path))}: {fault.message[:200]}" for fault in known[name].iter_errors(event)]
    assert not faults, (event["metadata"]["event_code"], faults, event)
    print(name)
