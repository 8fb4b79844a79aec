.PHONY: run test windows browser screenshots conformance forward compatibility check bench profile simulate cluster fuzz chaos soak hostile units upgrade first-day deploy-check docs package release reproducible

# A manager and an agent on this machine; the agent only observes unless ENFORCE=1.
run:
	cargo build --workspace --locked
	@scripts/run.sh

# Three managers on one PostgreSQL behind a proxy, with ten agents, in a temporary folder until Ctrl-C.
cluster:
	scripts/test-deps.sh
	cargo build --workspace --locked
	@scripts/cluster.sh

MINUTES ?= 5

test:
	scripts/test-deps.sh
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo nextest run --workspace --locked

# The agent for Windows, built here and run under Wine 8 against a real manager: what Wine can prove (docs/windows.md). RELEASE=1
# takes the program that is shipped.
windows:
	scripts/test-deps.sh windows
	scripts/windows.sh
	cargo clippy --package riposte-agent --target x86_64-pc-windows-gnu --locked -- -D warnings
	cargo nextest run --ignore-default-filter --package riposte --locked --test windows; status=$$?; \
	    WINEPREFIX=$$PWD/target/windows/prefix wineserver --kill; exit $$status

# The console in Debian's Chromium, headless: what people do, as every role, without scripts, on a phone, in dark, with hostile input,
# without the manager, on two managers; what axe-core finds on every page. Pictures of all pages are in target/screenshots.
browser:
	scripts/test-deps.sh browser
	cargo build --workspace --bins --locked
	cargo nextest run --ignore-default-filter --workspace --locked --test browser

# The pictures of the README, from those that `make browser` has taken.
screenshots:
	mkdir -p docs/images
	for page in now response waiting; do cp target/screenshots/$$page-light-1280.png docs/images/$$page.png || exit 1; done

# Does the server do what openapi.yaml says? Requests made from the contract by schemathesis, as every kind of caller, on both
# databases, for MINUTES each; clients that generators make of the contract, in Python and TypeScript; and other programs: clients of
# Wazuh's API, producers of OpenC2, Prometheus, a collector of OTLP, the library of Standard Webhooks. `make test` has always the
# same part of the first, on SQLite. Also, as root: Debian's CrowdSec bouncer, nginx and HAProxy block and refuse by feeds in network
# namespaces; their packages are downloaded and not installed.
conformance:
	scripts/test-deps.sh clients
	CONFORMANCE_SECONDS=$$(($(MINUTES) * 60)) cargo nextest run --ignore-default-filter --package riposte --locked --test it conformance:: generated_clients::

# The forwarder beside a writer that rotates as Wazuh does, with crashes of all programs: ALERTS alerts, none lost.
ALERTS ?= 1000000
forward:
	scripts/test-deps.sh
	FORWARD_ALERTS=$(ALERTS) cargo nextest run --package riposte --locked --test it of_many_alerts

# Programs of another commit (FROM=…, else the last one) with those of this one, in both directions, over streams and polls.
compatibility:
	scripts/test-deps.sh
	scripts/compatibility.sh

# The agent is checked for other systems too, which cannot be run here. A check links nothing, so what some libraries have
# in C is left out. Linux on aarch64 is built and run under qemu.
ELSEWHERE = x86_64-unknown-freebsd x86_64-apple-darwin
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo clippy --package riposte --no-default-features --locked -- -D warnings
	@for target in $(ELSEWHERE); do \
	    rustup target list --installed | grep -qx $$target || rustup target add $$target || exit 1; \
	    name=$$(echo $$target | tr - _); \
	    env CC_$$name=true AR_$$name=true cargo check --package riposte-agent --locked --target $$target || exit 1; \
	done
	scripts/check-aarch64.sh
	scripts/sbom.sh
	scripts/check-dependencies.sh

# The first half needs valgrind, whose counts of instructions fail it where a stage of an alert costs over 5 % more than
# benches/instructions.txt says. The second half needs root, for network namespaces, and fails without it.
bench:
	cargo bench --package riposte --locked
	cargo bench --package riposte-agent --locked --bench blocks

# Where the manager's CPU time goes under RATE alerts a second, each of which blocks an address: needs perf.
profile:
	RATE=$(RATE) scripts/profile.sh

# Tries to break the promises in a simulated world: many seeds, or SEED=n alone; STEPS=n steps (docs/reliability.md).
simulate:
	cargo run --release --locked --package riposte-simulation -- $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS))

# Everything that reads input from outside, driven by libFuzzer on the stable toolchain: FUZZ_SECS for each target, or only for
# TARGET=name. KEEP=1 adds what was found to fuzz/corpus, which `make test` replays.
FUZZ_SECS ?= 600
fuzz:
	FUZZ_SECS=$(FUZZ_SECS) scripts/fuzz.sh $(TARGET)

# Real programs under faults, judged by their promises (docs/reliability.md); on both databases, or DATABASE=sqlite|postgres;
# with several managers on one PostgreSQL, MANAGERS=3 DATABASE=postgres.
AGENTS ?= 50
RATE ?= 500
SEED ?= 1
chaos:
	cargo build --profile bench --workspace --bins --locked
	target/release/riposte-chaos run --seconds $$(($(MINUTES) * 60)) --agents $(AGENTS) --rate $(RATE) --seed $(SEED) $(if $(DATABASE),--database $(DATABASE)) $(if $(MANAGERS),--managers $(MANAGERS))

# Steady load without faults: memory and open files must not grow.
soak:
	cargo build --profile bench --workspace --bins --locked
	target/release/riposte-chaos soak --seconds $$(($(MINUTES) * 60)) --agents $(AGENTS) --rate $(RATE) $(if $(DATABASE),--database $(DATABASE))

# What slow and oversized clients cost everybody else.
hostile:
	cargo build --profile bench --workspace --bins --locked
	target/release/riposte-chaos hostile

# Both systemd units under a systemd of their own, in namespaces (as root, with debootstrap; this host's own distribution,
# whose libc the programs are built for).
units:
	cargo build --workspace --bins --locked
	scripts/try-units.sh

# The packages for real: install, upgrade, roll back and purge, under a systemd of its own (as root, with debootstrap and rpm).
# FROM=commit installs its programs first; PROFILE=debug is quicker.
upgrade:
	scripts/try-upgrade.sh

# From nothing to a verified block, as docs/migrate-from-wazuh.md says: packages, `riposte setup wazuh`, ten hosts by one line, an
# alert, real packets; each host a systemd of its own (as root, with debootstrap). PROFILE=debug is quicker.
first-day:
	scripts/try-first-day.sh

# The Ansible role and the Kubernetes manifests, by the checkers that deploy/ansible/requirements.txt names (from PyPI).
deploy-check:
	scripts/check-deploy.sh

# The documentation as a site, in target/docs/html, with every link checked. Compiles mdbook at the first time.
docs:
	scripts/docs.sh

# The packages of the manager, the agent and the forwarder (.deb, .rpm) and an archive of both programs, in target/packages.
package:
	scripts/package.sh

# What a release publishes, with checksums and their signature, in target/release-VERSION: RELEASE_KEY=FILE is the SSH key
# that signs; UNSIGNED=1 makes none. docs/install.md says how to verify it.
release:
	@scripts/release.sh

# Two release builds of each of PROGRAMS in different folders have to be one file.
PROGRAMS ?= riposte riposte-agent
reproducible:
	scripts/reproducible.sh $(PROGRAMS)
