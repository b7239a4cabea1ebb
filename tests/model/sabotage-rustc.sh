#!/usr/bin/env bash
# Cargo's wrapper for the crates of this workspace: adds the bug that sabotage.sh plants, if any.
set -euo pipefail
if [[ -n ${CASEMATE_SABOTAGE:-} ]]; then
    exec "$@" --cfg "casemate_sabotage=\"$CASEMATE_SABOTAGE\""
fi
exec "$@"
