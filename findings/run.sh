#!/usr/bin/env bash
# Runs every finding and prints a table: its name, whether it still holds, its seconds.
# Exits 1 if one no longer holds, after the output of each of those. FINDINGS_VENV: see README.md.
set -eu

cd "$(dirname "$0")"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
n_changed=0
for finding in *.sh; do
    [ "$finding" != run.sh ] || continue
    SECONDS=0
    if ./"$finding" >"$output" 2>&1; then
        verdict=holds
    else
        verdict=CHANGED
        n_changed=$((n_changed + 1))
    fi
    printf '%-52s %-8s %4d s\n' "${finding%.sh}" "$verdict" "$SECONDS"
    [ "$verdict" = holds ] || sed 's/^/    /' "$output"
done
[ "$n_changed" -eq 0 ]
