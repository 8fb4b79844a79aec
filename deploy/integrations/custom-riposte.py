"""Hands alerts of Wazuh's integratord over to Riposte.

An alert is first written to a spool folder, durably, and then sent. When Riposte does not answer at once, a process of its own
goes on trying, so that integratord, which waits for each call, is never held up by more than a second. An alert that is sent
twice is known by its id, and changes nothing.

In ossec.conf:
    <integration>
      <name>custom-riposte</name>
      <hook_url>https://riposte.example.org:8480</hook_url>
      <api_key>KEY WITH THE ROLE ingest</api_key>
      <alert_format>json</alert_format>
      <options>{"ca": "/var/ossec/etc/riposte-ca.pem"}</options>   (optional)
    </integration>

Environment, for tests and unusual places: RIPOSTE_SPOOL, the spool folder.
"""

import fcntl
import json
import os
import ssl
import sys
import time
import urllib.error
import urllib.request

# Seconds that one call may take in sight of integratord.
AT_ONCE = 0.7
# Seconds of one request in the background.
IN_BACKGROUND = 30
# Seconds between two tries, growing from the first to the last.
FIRST_WAIT, LAST_WAIT = 1, 60
# Alerts in one request.
BATCH = 500
# Bytes of alerts that may wait. Beyond that an alert is refused, and said.
MOST_WAITING = 256 * 1024 * 1024
# The largest alert that Riposte takes.
MOST_BYTES = 1024 * 1024


class Wait(Exception):
    """Riposte did not take the alerts now."""


def main(arguments):
    if len(arguments) < 4 or not arguments[3]:
        return complain("usage: custom-riposte ALERT_FILE API_KEY HOOK_URL [debug] [OPTIONS_FILE]; hook_url is missing")
    alert_file, key, url = arguments[1:4]
    options = read_options(arguments[5] if len(arguments) > 5 else "")
    spool = os.environ.get("RIPOSTE_SPOOL") or os.path.join(wazuh_folder(), "queue", "riposte")
    os.makedirs(spool, mode=0o750, exist_ok=True)
    with open(alert_file, "rb") as file:
        alert = file.read(MOST_BYTES + 1)
    line = b" ".join(alert.split(b"\n")).strip()
    if not line.startswith(b"{"):
        return complain(alert_file + " is no alert in JSON: set <alert_format>json</alert_format>")
    if len(alert) > MOST_BYTES:
        return complain(alert_file + " is larger than Riposte takes; it is left out")
    if sum(size(os.path.join(spool, name)) for name in waiting(spool)) > MOST_WAITING:
        return complain("too many alerts wait in " + spool + "; this one is left out, and stays in alerts.json")
    keep(spool, line)
    sender = Sender(url, key, options)
    with open(os.path.join(spool, "lock"), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            # Another process sends what is here.
            return 0
        try:
            drain(spool, sender, time.monotonic() + AT_ONCE)
            return 0
        except Wait as why:
            complain(str(why) + "; the alerts wait in " + spool)
        # The lock goes over to the child, which keeps trying.
        if os.fork() > 0:
            os._exit(0)
        in_background(spool, sender)
    return 0


def in_background(spool, sender):
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    wait = FIRST_WAIT
    while True:
        time.sleep(wait)
        wait = min(wait * 2, LAST_WAIT)
        try:
            drain(spool, sender, None)
            return
        except Wait:
            pass


def drain(spool, sender, deadline):
    """Sends what waits, oldest first, until nothing does."""
    while True:
        names = waiting(spool)[:BATCH]
        if not names:
            return
        paths = [os.path.join(spool, name) for name in names]
        lines = []
        for path in paths:
            with open(path, "rb") as file:
                lines.append(file.read())
        left = IN_BACKGROUND if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise Wait("Riposte has not taken all alerts within " + str(AT_ONCE) + " s")
        sender.send(b"\n".join(lines), left)
        for path in paths:
            os.remove(path)


class Sender:
    """Sends alerts to a manager."""

    def __init__(self, url, key, options):
        # An address with a path is one that names its pipeline, such as /v1/ingest/SECRET.
        has_path = url.split("://", 1)[-1].rstrip("/").count("/") > 0
        self.url = url if has_path else url.rstrip("/") + "/v1/alerts"
        self.key = key
        authority = options.get("ca")
        self.context = ssl.create_default_context(cafile=authority) if url.startswith("https") else None

    def send(self, lines, seconds):
        headers = {"Content-Type": "application/x-ndjson"}
        if self.key:
            headers["Authorization"] = "Bearer " + self.key
        request = urllib.request.Request(self.url, data=lines, headers=headers, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=seconds, context=self.context) as answer:
                answer.read()
        except urllib.error.HTTPError as error:
            detail = error.read(2000).decode("utf-8", "replace")
            # All of them are faulty: the manager keeps and lists them.
            if error.code != 422:
                raise Wait(self.url.split("/v1/ingest/")[0] + " answers " + str(error.code) + ": " + detail)
        except (OSError, ValueError) as error:
            raise Wait("cannot reach Riposte: " + str(error))


def keep(spool, line):
    """Writes an alert so that it is there after a crash."""
    name = "%020d-%d.json" % (time.time_ns(), os.getpid())
    unfinished = os.path.join(spool, "." + name)
    with open(unfinished, "wb") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())
    os.rename(unfinished, os.path.join(spool, name))


def waiting(spool):
    return sorted(name for name in os.listdir(spool) if name.endswith(".json") and not name.startswith("."))


def size(path):
    try:
        return os.path.getsize(path)
    except OSError:
        return 0


def read_options(path):
    if not path or not os.path.isfile(path):
        return {}
    with open(path) as file:
        options = json.load(file)
    return options if isinstance(options, dict) else {}


def wazuh_folder():
    return os.path.dirname(os.path.dirname(os.path.realpath(__file__)))


def complain(text):
    line = time.strftime("%Y/%m/%d %H:%M:%S") + " custom-riposte: " + text
    print(line, file=sys.stderr)
    try:
        with open(os.path.join(wazuh_folder(), "logs", "integrations.log"), "a") as log:
            log.write(line + "\n")
    except OSError:
        pass
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv))
