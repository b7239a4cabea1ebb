#!/usr/bin/env bash
# Shows that the simulation and the tests can fail: plants bugs in the product, and says what notices each.
# Prints the table of docs/SIMULATION.md.
#
#   tests/model/sabotage.sh             all of them
#   tests/model/sabotage.sh NAME...     these
#
# A planted bug is a `sabotaged!("name")` in the code of the product (shared/proto/src/sabotage.rs), never
# a feature. They are compiled once, all of them, into a target folder of their own, so that nothing with a
# bug in it can be mistaken for what is released; which is awake is said when the program is run.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly MOST=${CASEMATE_SABOTAGE_HISTORIES:-200}
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}")/sabotage
export CARGO_TARGET_DIR
export RUSTC_WORKSPACE_WRAPPER=$PWD/tests/model/sabotage-rustc.sh
out=$CARGO_TARGET_DIR/out
mkdir -p "$out"

# What lies outside the simulation is noticed by a test of its crate: crate, test program, test.
declare -rA BY_TEST=(
    [triple_outside_its_set]="casemate-threshold pitfalls pitfall_0_triples_of_another_set_are_refused"
    [triple_used_again]="casemate-threshold pitfalls pitfall_3_a_taken_pair_is_gone_and_never_comes_back"
    [runs_named_by_index]="casemate-ledger permits i8_attempt_numbers_are_used_once_and_give_different_runs"
    [snapshot_of_one_believed]="casemate-replication join i6_fewer_than_t_nodes_are_not_believed"
    [older_ledger_recovered]="casemate-ledger recovery i6_older_snapshot_than_the_ledger_is_refused_and_a_newer_ledger_too"
    [certificate_accepted_twice]="casemate-ledger recovery i7_replayed_certificate_is_refused"
    [fenced_boot_permitted]="casemate-ledger permits i6_retired_boot_gets_no_attempt_and_is_no_participant"
)

planted() {
    grep -rhoE 'sabotaged!\("[a-z_]+"\)' --include='*.rs' shared enclave | sed -E 's/.*"(.*)".*/\1/' | sort -u
}

# One build for all, so that cargo resolves the same features for each. The programs go into `programs`.
declare -A programs
build() {
    local built path suite
    built=$(cargo test --release --locked --no-run --message-format=json \
        -p casemate-model -p casemate-threshold -p casemate-replication -p casemate-ledger \
        --test histories --test pitfalls --test genesis --test join --test recovery --test permits)
    while read -r path; do
        suite=${path##*/}
        programs[${suite%-*}]=$path
    done < <(sed -nE 's/.*"executable":"([^"]+)".*/\1/p' <<<"$built")
}

names=("$@")
if ((${#names[@]} == 0)); then
    mapfile -t names < <(planted)
fi
for name in "${names[@]}"; do
    planted | grep -qx "$name" || { echo "no such bug: $name"; exit 2; }
done

build
program=${programs[histories]}
grep -q 'casemate-marker:sabotage' "$program" || { echo "the program does not carry its marker"; exit 1; }
# as many as CI runs: docs/SIMULATION.md says what is open behind them
"$program" --histories 24 >"$out/none.txt" || {
    echo "with no bug awake something is caught: see $out/none.txt"
    exit 1
}
missed=0
echo '| planted bug | noticed after | as |'
echo '|---|--:|---|'
for name in "${names[@]}"; do
    if [[ -n ${BY_TEST[$name]:-} ]]; then
        read -r crate suite test <<<"${BY_TEST[$name]}"
        suite_program=${programs[$suite]}
        "$suite_program" --exact "$test" | grep -q '1 passed' || { echo "$test does not pass by itself"; exit 1; }
        if CASEMATE_SABOTAGE=$name "$suite_program" --exact "$test" >"$out/$name.txt" 2>&1; then
            missed=$((missed + 1))
            echo "| \`$name\` | not by its test | \`$test\` |"
        else
            echo "| \`$name\` | its test | \`$crate\`: \`$test\` |"
        fi
        continue
    fi
    CASEMATE_SABOTAGE=$name "$program" --histories "$MOST" >"$out/$name.txt" || true
    caught=$(sed -nE 's/^seed [0-9]+ FAILED after ([0-9]+) histories: (.*)$/\1 | \2/p' "$out/$name.txt" | head -n 1)
    # what should have happened did not, more often than a run of histories may have it
    stuck=$(grep -cE '^seed [0-9]+ stuck: ' "$out/$name.txt" || true)
    if [[ -z $caught ]] && ((stuck * 100 > MOST)); then
        caught="$MOST | $stuck of them stuck"
    fi
    if [[ -z $caught ]]; then
        caught="not in $MOST | "
        missed=$((missed + 1))
    fi
    echo "| \`$name\` | ${caught:0:160} |"
done
exit "$missed"
