#!/bin/sh
# migration_example.sh - moves the persona from models/rinne-base to models/rinne-lite, as a user
# would, and makes docs/migration-example.md, .ja.md and the pictures of both pages from it. Prints
# how long the migration took; more than ten minutes is a failure.
#
# Nothing but docs/ changes: the program runs in a directory of its own, with a copy of the config.
# THREADS=1 is faster where the cores are busy with something else; OPTIONS="--limit 4 -n 24" makes
# it a quick trial. Without chromium the pictures stay what they were.
set -eu
cd "$(dirname "$0")/.."
root=$PWD
old=models/rinne-base new=models/rinne-lite limit=600
make -s build/gyaru
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/config"
ln -s "$root/models" "$root/data" "$root/build" "$work/"

# migrate LANGUAGE: the first call does the work, the second only writes the report again. It finds the
# config as the first did: strength and vector in it are the old model's.
migrate() {
    cp config/generation_config.yaml "$work/config/"
    # shellcheck disable=SC2086 # OPTIONS are words
    (cd "$work" && build/gyaru migrate --from $old --to $new -d data/gyaru_pairs.json --apply \
        -t "${THREADS:-0}" --lang "$1" ${OPTIONS:-} >"$work/$1.out") || return
    cp "$work/outputs/reports/migrate-rinne-lite/migrate.md" "$work/$1.md"
    cp "$work/outputs/reports/migrate-rinne-lite/migrate.html" "$work/$1.html"
}

start=$(date +%s)
migrate ja
seconds=$(($(date +%s) - start))
migrate en
cores=${THREADS:-$(nproc)}
command="gyaru migrate --from $old --to $new -d data/gyaru_pairs.json --apply"

picture() {
    chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=1240,9000 \
        --screenshot="$work/$1.png" "file://$work/$1.html" >/dev/null 2>&1 &&
        cp "$work/$1.png" "docs/images/migration-report$2.png"
}
if command -v chromium >/dev/null 2>&1; then
    picture en "" || echo "no picture of the English page" >&2
    picture ja .ja || echo "no picture of the Japanese page" >&2
else
    echo "chromium is not installed: the pictures stay as they are" >&2
fi

{
    cat "$work/en.md"
    printf '\n---\n\nThis report is the output of one command, `tools/migration_example.sh` runs it; '
    printf 'it took %s s with %s threads. ' "$seconds" "$cores"
    printf '[The same as a page, with plots](images/migration-report.png).\n\n'
    printf '```\n%s --lang en\n```\n' "$command"
} >docs/migration-example.md
{
    cat "$work/ja.md"
    printf '\n---\n\nこのレポートは次のコマンドの出力 (`tools/migration_example.sh` が実行する)。'
    printf '%s スレッドで %s 秒かかった。' "$cores" "$seconds"
    printf '[グラフつきのページ](images/migration-report.ja.png)。\n\n'
    printf '```\n%s --lang ja\n```\n' "$command"
} >docs/migration-example.ja.md
echo "migrated in $seconds s with $cores threads: docs/migration-example.md, docs/migration-example.ja.md"
[ "$seconds" -le "$limit" ] || { echo "that is more than $limit s" >&2; exit 1; }
