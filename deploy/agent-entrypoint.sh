#!/bin/sh
# Entry point of the agent's container. The first start enrols the agent at $RIPOSTE_MANAGER with
# the token in $TOKEN_FILE. Then the agent runs.
set -eu
if [ ! -e "$RIPOSTE_STATE_DIR/agent.json" ]; then
    riposte-agent enroll --token-file "${TOKEN_FILE:?TOKEN_FILE must name a file that holds an enrolment token}"
fi
exec riposte-agent run "$@"
