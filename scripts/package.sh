#!/usr/bin/env bash
# Makes the packages for Debian and RPM, and an archive of both programs, in target/packages. `make package` calls it. The
# same commit makes the same files.
#
#   PROFILE   which build is packaged: release, or debug for a trial (release)
#   PROGRAMS  a folder with both programs, built before; nothing is built then
#   VERSION   the version of the packages (that of the workspace)
#   OUT       where they are written (target/packages); what is there is deleted
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${PROFILE:-release}
version=${VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)}
out=$(realpath -m "${OUT:-target/packages}")
# In the manifests: what the packages take from here.
stage=target/package
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

for tool in cargo-deb cargo-generate-rpm; do
    command -v "$tool" >/dev/null || cargo install "$tool" --locked
done

case ${PROGRAMS:+given}$profile in
    given*) ;;
    release) scripts/programs.sh riposte riposte-agent ;;
    debug) cargo build --package riposte --package riposte-agent --bins --locked ;;
    *) echo "PROFILE=$profile is neither release nor debug" >&2; exit 1 ;;
esac
built=${PROGRAMS:-${CARGO_TARGET_DIR:-target}/$profile}

rm -rf "$stage" "$out"
mkdir -p "$stage/bin" "$stage/completions" "$out"
for program in riposte riposte-agent; do
    # A release is stripped already.
    strip --strip-unneeded -o "$stage/bin/$program" "$built/$program"
done
"$stage/bin/riposte" man "$stage/man/riposte"
"$stage/bin/riposte" completions bash >"$stage/completions/riposte.bash"
"$stage/bin/riposte" completions zsh >"$stage/completions/_riposte"
"$stage/bin/riposte" completions fish >"$stage/completions/riposte.fish"
cargo run --quiet --locked --package riposte-agent --example manual -- "$stage/man/riposte-agent" "$stage/completions"
# Not before: C libraries are compiled again, and all that use them, whenever it changes. A release has it from its own script.
export SOURCE_DATE_EPOCH

# In Debian's form; CHANGELOG.md has the changes.
cat >"$stage/changelog" <<END
riposte ($version-1) unstable; urgency=medium

  * /usr/share/doc/riposte/CHANGELOG.md lists the changes.

 -- The Riposte maintainers <>  $(LC_ALL=C date --utc --date="@$SOURCE_DATE_EPOCH" '+%a, %d %b %Y %T +0000')
END

scriptlets() {
    local name=$1 state=$2 file
    mkdir -p "$stage/rpm/$name"
    for file in post preun postun; do
        local from=deploy/packages/rpm/$file
        # The agent looks at its configuration before a restart.
        if [ "$name-$file" = riposte-agent-postun ]; then from=$from-agent; fi
        sed -e "s|UNIT|$name.service|g" -e "s|STATE|$state|g" "$from" >"$stage/rpm/$name/$file"
    done
}
scriptlets riposte /var/lib/private/riposte
scriptlets riposte-agent /var/lib/riposte-agent
cat deploy/packages/rpm/preun-agent >>"$stage/rpm/riposte-agent/preun"
scriptlets riposte-forward /var/lib/private/riposte-forward

deb_flags=() rpm_flags=()
if [ "$profile" = debug ]; then
    # Large programs: the best compression would take minutes.
    deb_flags=(--fast) rpm_flags=(--payload-compress gzip)
fi
deb() {
    cargo deb --quiet --locked --no-build --no-strip "${deb_flags[@]}" --deb-version "$version-1" \
        --output "$out/" "$@"
}
rpm() {
    cargo generate-rpm --auto-req builtin --source-date "$SOURCE_DATE_EPOCH" --set-metadata "version = \"$version\"" \
        "${rpm_flags[@]}" --output "$out/" "$@"
}
deb --package riposte
deb --package riposte --variant forward
deb --package riposte-agent
rpm
rpm --variant forward
rpm --package agent

# For hosts with neither: both programs with their units.
tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$SOURCE_DATE_EPOCH" -c \
    README.md LICENSE config.default.toml deploy/*.service deploy/proxy deploy/packages/etc \
    -C "$stage/bin" riposte riposte-agent | gzip -n >"$out/riposte-$version-$(uname -m).tar.gz"
ls -l "$out"
