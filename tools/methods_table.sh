#!/bin/sh
# methods_table.sh [FILE] - measures the methods of extraction side by side on the bundled models and
# writes what `gyaru extract --compare` prints between the marks in FILE (docs/extract.md). THREADS=1
# is faster where the cores are busy with something else.
set -eu
cd "$(dirname "$0")/.."
file=${1:-docs/extract.md}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
grep -q '^<!-- methods -->$' "$file" && grep -q '^<!-- /methods -->$' "$file" || {
    echo "$file has no marks: <!-- methods --> and <!-- /methods -->" >&2
    exit 1
}
make -s build/gyaru
for model in models/rinne-base models/rinne-lite; do
    echo "$model" >&2
    build/gyaru extract -m "$model" -d data/gyaru_pairs.json -o "$work/v.safetensors" --compare \
        -t "${THREADS:-0}" --lang en >"$work/out"
    # From the comparison's heading on; the last line names the vector's file.
    printf '`%s`:\n\n```\n' "$model"
    sed -n '/^methods on the same pairs/,$p' "$work/out" | sed '$d'
    printf '```\n\n'
done >"$work/tables"
awk -v tables="$work/tables" '
    /^<!-- \/methods -->$/ { inside = 0 }
    !inside { print }
    /^<!-- methods -->$/ { inside = 1; while ((getline line < tables) > 0) print line }
' "$file" >"$work/new"
cat "$work/new" >"$file"
