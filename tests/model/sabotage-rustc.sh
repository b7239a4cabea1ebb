#!/usr/bin/env bash
# Cargo's wrapper for the crates of this workspace: plants every bug there is, all of them asleep.
set -euo pipefail
exec "$@" --cfg 'casemate_sabotage="any"'
