"""Reads a collection with the published client of TAXII, and its objects with the published library of STIX.

Arguments: URL of the server, key, and the time after which changes are asked for (empty: everything in force).
"""

import datetime
import json
import sys

import stix2
from taxii2client.v21 import Server, as_pages

url, key, since = sys.argv[1:]
server = Server(url, user="tip", password=key)
(root,) = server.api_roots
(collection,) = root.collections
assert collection.can_read and not collection.can_write, collection
filters = {"added_after": since} if since else {}
indicators, last = [], since
# A page of one object each: the library follows `next`.
for page in as_pages(collection.get_objects, per_request=1, **filters):
    for one in page.get("objects", []):
        indicator = stix2.parse(one, version="2.1")
        # Refuses a pattern that is none of STIX.
        stix2.pattern_visitor.create_pattern_object(indicator.pattern, version="2.1")
        assert collection.get_object(indicator.id)["objects"] == [one], one
        indicators.append(indicator)
        last = max(last, one["modified"])
# After the answers: what was lifted ended when the manager noticed it, at a request.
now = datetime.datetime.now(datetime.timezone.utc)
valid = [one.pattern for one in indicators if one.valid_until > now]
ended = [one.pattern for one in indicators if one.valid_until <= now]
manifest = collection.get_manifest().get("objects", [])
json.dump({"valid": sorted(valid), "ended": sorted(ended), "manifest": len(manifest), "last": last}, sys.stdout)
