#!/usr/bin/env bash
# Builds the documentation as a site, in target/docs/html, and checks every link in it. `make docs` calls it.
#
# The pages are read where they are: at the root and in docs/. They are copied beside each other as in the repository, so a link
# that works on a code host works in the site too. docs/SUMMARY.md is the table of contents.
set -euo pipefail
cd "$(dirname "$0")/.."

# The version whose output the link checker was tried with. `--locked` builds it with the dependencies of its own lock file.
version=0.5.4
target=${CARGO_TARGET_DIR:-target}
mdbook=$target/mdbook/bin/mdbook
if [ "$("$mdbook" --version 2>/dev/null)" != "mdbook v$version" ]; then
    echo "installing mdbook $version into $target/mdbook"
    # Search is all that the site needs: not the server, not the watcher.
    if ! cargo install mdbook --version "$version" --locked --no-default-features --features search --root "$target/mdbook"; then
        echo "mdbook $version is missing and could not be installed from crates.io into $target/mdbook" >&2
        exit 1
    fi
fi

book=$target/docs
rm -rf "$book"
mkdir -p "$book/src"
cp docs/book.toml docs/site.css "$book/"

# Pages, and the files that pages link to: the site has no page for those, and serves them as they are.
pages=(README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs)
cp --parents -r "${pages[@]}" "$book/src/"
rm "$book/src/docs/book.toml" "$book/src/docs/site.css" "$book/src/docs/SUMMARY.md"
python3 scripts/docs-links.py files "$book/src" | while IFS= read -r file; do
    [ -e "$book/src/$file" ] || cp --parents "$file" "$book/src/"
done

# The table of contents stands in docs/, the site begins at the root. Each decision is a page below their own.
{
    sed -E 's|\]\(\.\./|](|; t; s|\]\(|](docs/|' docs/SUMMARY.md | while IFS= read -r line; do
        printf '%s\n' "$line"
        case $line in *'](docs/decisions/README.md)')
            for decision in docs/decisions/[0-9]*.md; do
                printf '    - [%s](%s)\n' "$(sed -n '1s/^# //p' "$decision")" "$decision"
            done ;;
        esac
    done
} >"$book/src/SUMMARY.md"
for page in README.md ARCHITECTURE.md CHANGELOG.md CONTRIBUTING.md SECURITY.md $(cd "$book/src" && find docs -name '*.md'); do
    if ! grep -qF "]($page)" "$book/src/SUMMARY.md"; then
        echo "docs/SUMMARY.md does not list $page: add it where a reader would look for it" >&2
        exit 1
    fi
done

# mdbook makes index.html of a README, and does not follow with the links to it.
find "$book/src" -name README.md -execdir mv README.md index.md ';'
find "$book/src" -name '*.md' -exec sed -i -E 's#(\]\(([a-z./]*/)?)README\.md#\1index.md#g' {} +

"$mdbook" build "$book"
python3 scripts/docs-links.py site "$book/html"
echo "the site begins at $book/html/index.html"
