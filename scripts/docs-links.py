#!/usr/bin/env python3
"""Links of the documentation, for scripts/docs.sh.

docs-links.py files FOLDER   the files, other than pages, that the Markdown pages in FOLDER link to, one a line
docs-links.py site FOLDER    checks each link of each HTML page in FOLDER: to its file, and to the anchor in that file
"""

import os
import re
import sys
import urllib.parse
from html.parser import HTMLParser
from pathlib import Path

# Written by mdbook for its own use: the page of all chapters has the links of each chapter at another place.
NOT_PAGES = {"print.html", "toc.html", "404.html"}


def files(folder):
    """Returns the paths, from the root, of linked files that are no pages."""
    found = set()
    for page in folder.rglob("*.md"):
        is_fenced = False
        for line in page.read_text(encoding="utf-8").splitlines():
            if line.lstrip().startswith("```"):
                is_fenced = not is_fenced
            elif not is_fenced:
                for target in re.findall(r"\]\(([^)\s#]+)", line):
                    if ":" not in target and not target.endswith(".md"):
                        found.add(os.path.normpath(page.parent.relative_to(folder) / target))
    return sorted(found)


class Page(HTMLParser):
    """The anchors of a page, and where its links lead."""

    def __init__(self, path):
        super().__init__()
        self.anchors, self.links = set(), []
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if attrs.get("id"):
            self.anchors.add(attrs["id"])
        for name in ("href", "src"):
            if attrs.get(name):
                self.links.append(attrs[name])


def faults(folder):
    """Returns the number of links, and a line for each that leads nowhere."""
    pages = {path: Page(path) for path in folder.rglob("*.html") if path.name not in NOT_PAGES}
    count, wrong = 0, []
    for path, page in sorted(pages.items()):
        for link in page.links:
            parts = urllib.parse.urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            count += 1
            goal = path if not parts.path else Path(os.path.normpath(path.parent / urllib.parse.unquote(parts.path)))
            anchor = urllib.parse.unquote(parts.fragment)
            if not goal.is_file():
                wrong.append(f"{path.relative_to(folder)}: {link} leads to no file")
            elif anchor and goal in pages and anchor not in pages[goal].anchors:
                wrong.append(f"{path.relative_to(folder)}: {link} leads to no heading")
    return count, wrong


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in ("files", "site"):
        sys.exit(__doc__)
    folder = Path(sys.argv[2])
    if sys.argv[1] == "files":
        print("\n".join(files(folder)))
        return
    count, wrong = faults(folder)
    if wrong:
        sys.exit("\n".join(wrong))
    # A site without links was not read.
    if count < 1000:
        sys.exit(f"only {count} links were found in {folder}: the site is not whole, or this script no longer reads it")
    print(f"{count} links lead somewhere")


main()
