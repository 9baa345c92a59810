#!/bin/sh
# Format, include directions, static analysis, shell scripts. Tools that are missing are named.
set -u
cd "$(dirname "$0")/.." || exit 1
status=0
have() {
    command -v "$1" >/dev/null 2>&1 && return 0
    echo "lint: SKIP: $1 is not installed"
    return 1
}
if have clang-format; then
    git ls-files '*.c' '*.h' '*.cu' '*.cuh' '*.cpp' | xargs clang-format --dry-run -Werror || status=1
fi
sh tools/includes.sh || status=1
if have cppcheck; then
    # clang-format and the compiler see the rest; these are the findings that mean something here.
    git ls-files 'src/*.c' | xargs cppcheck -q --std=c11 -Iinclude -Isrc --enable=warning \
        '-Djson_array_foreach(a,i,v)=while ((v = json_array_get(a, i)))' \
        '-Djson_object_foreach(o,k,v)=while ((v = json_object_get(o, k)))' --inline-suppr --suppress=missingIncludeSystem --error-exitcode=1 -j 2 || status=1
fi
if have shellcheck; then
    git ls-files '*.sh' .ci/run | xargs shellcheck -S warning || status=1
fi
[ $status = 0 ] && echo "lint: clean"
exit $status
