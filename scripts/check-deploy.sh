#!/usr/bin/env bash
# Checks the Ansible role by ansible-lint and the syntax check of Ansible, and the Kubernetes manifests against the schemas
# of a Kubernetes release. `make deploy-check` calls it. What it installs from PyPI is in target/deploy-check.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$(realpath -m "${CARGO_TARGET_DIR:-target}/deploy-check")
wanted=deploy/ansible/requirements.txt
if ! cmp -s "$wanted" "$venv/requirements.txt"; then
    python3 -m venv "$venv"
    "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --requirement "$wanted"
    # Last: an installation that broke off is done again.
    cp "$wanted" "$venv/requirements.txt"
fi
export PATH=$venv/bin:$PATH
# Modules of Ansible itself only, so that nothing is fetched.
(cd deploy/ansible && ansible-lint --offline --strict --nocolor && printf '[riposte_agents]\nweb-01\n' >"$venv/inventory" &&
    ansible-playbook --syntax-check --inventory "$venv/inventory" agents.yml)
kubernetes-validate --strict deploy/kubernetes/*.yaml
