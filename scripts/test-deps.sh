#!/bin/sh
# Makes sure that everything `make test` needs is here. Installs what is missing where it may (root, or sudo without a
# password); otherwise says what is missing and fails. Nothing is ever skipped: a test that cannot run is a failure.
set -eu

# A server's programs are not in PATH on Debian.
PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"
for bin in /usr/lib/postgresql/*/bin; do
    PATH="$PATH:$bin"
done
export PATH

# program:Debian package
needed='cc:build-essential pgbouncer:pgbouncer mount:mount nft:nftables ip:iproute2 iptables:iptables ip6tables:iptables initdb:postgresql
postgres:postgresql unshare:util-linux setpriv:util-linux prlimit:util-linux ps:procps pkill:procps pgrep:procps
python3:python3 usermod:passwd firewalld:firewalld firewall-cmd:firewalld iptables-legacy:iptables
ip6tables-legacy:iptables dbus-daemon:dbus-daemon systemd-analyze:systemd openssl:openssl node:nodejs npm:npm
nginx:nginx caddy:caddy faketime:faketime curl:curl chromium:chromium chromedriver:chromium-driver'

# `make windows` alone: the cross compiler, and Wine.
if [ "${1:-}" = windows ]; then
    needed="$needed x86_64-w64-mingw32-gcc:gcc-mingw-w64-x86-64 x86_64-w64-mingw32-windres:binutils-mingw-w64-x86-64
cmake:cmake nasm:nasm wine:wine wineserver:wine wixl:wixl"
fi

missing_packages() {
    {
        for entry in $needed; do
            command -v "${entry%%:*}" >/dev/null 2>&1 || echo "${entry##*:}"
        done
        # A virtual environment needs a part of Python that Debian has in a package of its own.
        python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || echo python3-venv
    } | sort -u | tr '\n' ' '
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    else
        sudo -n "$@"
    fi
}

packages=$(missing_packages)
if [ -n "$packages" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "make test needs these (Debian's names), and there is no apt-get to install them: $packages" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ] && ! sudo -n true 2>/dev/null; then
        echo 'make test needs Debian packages that are not installed, and may not install them itself. As root:' >&2
        echo "    apt-get install $packages" >&2
        exit 1
    fi
    echo "installing $packages"
    as_root apt-get update -q
    # The tests start firewalld, PgBouncer, nginx and Caddy themselves. The packages would start them for the whole host.
    for service in firewalld pgbouncer nginx caddy; do
        case " $packages " in *" $service "*)
            if [ -d /run/systemd/system ]; then as_root systemctl mask "$service.service"; fi ;;
        esac
    done
    # Unquoted: one argument a package.
    # shellcheck disable=SC2086
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $packages
    for bin in /usr/lib/postgresql/*/bin; do
        PATH="$PATH:$bin"
    done
    packages=$(missing_packages)
    if [ -n "$packages" ]; then
        echo "still missing after the installation: $packages" >&2
        exit 1
    fi
fi

# A toolchain of rustup's minimal profile has neither.
for component in clippy fmt; do
    if ! cargo "$component" --version >/dev/null 2>&1; then
        case "$component" in fmt) name=rustfmt ;; *) name=$component ;; esac
        if ! rustup component add "$name"; then
            echo "cargo $component is missing and could not be installed: rustup component add $name" >&2
            exit 1
        fi
    fi
done

if ! cargo nextest --version >/dev/null 2>&1; then
    echo 'installing cargo-nextest'
    if ! cargo install cargo-nextest --locked; then
        echo 'cargo-nextest is missing and could not be installed: cargo install cargo-nextest --locked' >&2
        exit 1
    fi
fi

# environment, file: installs what the file names from PyPI into an environment of its own; the system's Python is left alone.
python_environment() {
    environment="${CARGO_TARGET_DIR:-target}/$1"
    if cmp -s "$2" "$environment/requirements.txt"; then
        return
    fi
    echo "installing what $2 names into $environment"
    if ! { python3 -m venv "$environment" && "$environment/bin/python" -m pip install --quiet --disable-pip-version-check \
        ${3:-} --requirement "$2"; }; then
        echo "the packages of $2 could not be installed from PyPI into $environment" >&2
        exit 1
    fi
    # Last: an installation that broke off is done again.
    cp "$2" "$environment/requirements.txt"
}

python_environment python tests/conformance/requirements.txt
# Producers of OpenC2, whose own pins contradict each other: every package is pinned, and none is resolved.
python_environment openc2 tests/conformance/openc2-requirements.txt --no-deps
# Generators of clients and a Java for one of them: for `make conformance` alone.
if [ "${1:-}" = clients ]; then
    python_environment clients tests/conformance/clients/requirements.txt
fi

# Debian's Prometheus and promtool, unpacked and not installed: an installation would start a service on this host.
prometheus="${CARGO_TARGET_DIR:-target}/prometheus"
if [ ! -x "$prometheus/usr/bin/promtool" ]; then
    echo "unpacking Debian's package prometheus into $prometheus"
    rm -rf "$prometheus"
    mkdir -p "$prometheus/package"
    if ! { (cd "$prometheus/package" && { apt-get download -q prometheus || { as_root apt-get update -q &&
        apt-get download -q prometheus; }; }) && dpkg-deb -x "$prometheus"/package/prometheus_*.deb "$prometheus"; }; then
        echo "Debian's package prometheus could not be unpacked into $prometheus" >&2
        exit 1
    fi
    rm -rf "$prometheus/package"
fi

# folder: installs what its lock file names from npm, in the same versions.
npm_packages() {
    place="${CARGO_TARGET_DIR:-target}/$1"
    wanted="tests/$1/package-lock.json"
    if cmp -s "$wanted" "$place/installed.json"; then
        return
    fi
    echo "installing what $wanted names into $place"
    mkdir -p "$place"
    cp "tests/$1/package.json" "$wanted" "$place/"
    if ! npm ci --prefix "$place" --no-audit --no-fund --ignore-scripts --loglevel=error; then
        echo "the packages of $wanted could not be installed from npm into $place" >&2
        exit 1
    fi
    # Last: an installation that broke off is done again.
    cp "$wanted" "$place/installed.json"
}

# The OpenID provider of the tests of single sign-on.
npm_packages oidc
# What `make browser` checks the accessibility of the console with.
if [ "${1:-}" = browser ]; then
    npm_packages axe
fi
