#!/bin/sh
# The agent's container: enrols once, with the token in $TOKEN_FILE, at $RIPOSTE_MANAGER; then runs.
set -eu
if [ ! -e "$RIPOSTE_STATE_DIR/agent.json" ]; then
    riposte-agent enroll --token-file "${TOKEN_FILE:?TOKEN_FILE must name a file that holds an enrolment token}"
fi
exec riposte-agent run "$@"
