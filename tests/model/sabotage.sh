#!/usr/bin/env bash
# Shows that the simulation can fail: builds it with each planted bug and counts the histories that it
# takes to be caught. Prints the table of docs/SIMULATION.md.
#
#   tests/model/sabotage.sh             all of them
#   tests/model/sabotage.sh NAME...     these
#
# A planted bug is a `cfg!(casemate_sabotage = "name")` in the code of the product, never a feature. It is
# compiled in a copy of the sources and a target folder of its own, so that nothing with a bug in it can
# be mistaken for what is released; the dependencies there are built once for all of them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly MOST=${CASEMATE_SABOTAGE_HISTORIES:-2000}
folder=$(realpath -m "${CARGO_TARGET_DIR:-target}")/sabotage
tree=$folder/tree
mkdir -p "$tree"
git ls-files -z --cached --others --exclude-standard | xargs -0 tar -c | tar -x -C "$tree"
cd "$tree"
export CARGO_TARGET_DIR=$folder/build
export RUSTC_WORKSPACE_WRAPPER=$tree/tests/model/sabotage-rustc.sh

planted() {
    grep -rlE "casemate_sabotage = \"${1:-[a-z_]+}\"" --include='*.rs' shared enclave
}

# The program with this bug, or with none. What held another bug before is compiled again.
build() {
    planted | xargs touch
    CASEMATE_SABOTAGE=$1 cargo test --quiet --locked -p casemate-model --test histories --no-run \
        --message-format=json 2>"$folder/errors.txt" |
        sed -nE 's/.*"executable":"([^"]*histories-[^"]*)".*/\1/p' | tail -n 1 | grep . || {
        cat "$folder/errors.txt" >&2
        return 1
    }
}

names=("$@")
if ((${#names[@]} == 0)); then
    mapfile -t names < <(grep -rhoE 'casemate_sabotage = "[a-z_]+"' --include='*.rs' shared enclave |
        sed -E 's/.*"(.*)"/\1/' | sort -u)
fi

missed=0
program=$(build "")
"$program" --histories 100 >"$folder/none.txt" || {
    echo "without any planted bug something is caught: see $folder/none.txt"
    exit 1
}
echo '| planted bug | caught after | as |'
echo '|---|--:|---|'
for name in "${names[@]}"; do
    planted "$name" >/dev/null || { echo "no such bug: $name"; exit 2; }
    program=$(build "$name")
    "$program" --histories "$MOST" >"$folder/$name.txt" || true
    caught=$(sed -nE 's/^seed [0-9]+ FAILED after ([0-9]+) histories: (.*)$/\1 | \2/p' "$folder/$name.txt" | head -n 1)
    if [[ -z $caught ]]; then
        caught="not in $MOST | "
        missed=$((missed + 1))
    fi
    echo "| \`$name\` | ${caught:0:160} |"
done
exit "$missed"
