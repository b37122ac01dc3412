#!/usr/bin/env bash
# Builds and runs tests: all, or those that a word names. Each crate is built once: every call has the whole workspace in
# view, since cargo would otherwise choose other features for shared dependencies and build them again.
#   tests/run.sh            all tests
#   tests/run.sh --unit     those that need no server: unit tests, property tests, the rules of the tree
#   tests/run.sh WORD       a file below tests/tests (live_watch, live/watch, watch), one of its folders (live), or a part
#                           of a test's name (a module's path with :: too)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

stage=tests/stage.sh
has_nextest=$(cargo nextest --version >/dev/null 2>&1 && echo yes || true)

# Where the servers that tests start keep their files: in memory, where that has room. A node's fsync of nodes.conf on a
# busy disk would stop the node.
if [[ -d /dev/shm ]] && (($(df --output=avail -B1G /dev/shm | tail -n 1) >= 4)); then
    export TMPDIR=/dev/shm
fi

# run TARGETS... -- [FILTER]: builds these targets, and runs those of their tests whose name holds the filter.
run() {
    local targets=()
    while [[ $1 != -- ]]; do
        targets+=("$1")
        shift
    done
    shift
    if [[ $has_nextest ]]; then
        # It tells how many of how many are done.
        $stage "Tests" cargo nextest run --workspace "${targets[@]}" --no-fail-fast "${@/#/-E=}"
    else
        $stage "Tests" cargo test --workspace "${targets[@]}" --no-fail-fast
    fi
}

if (($# == 0)); then
    # Also the binary that the end-to-end tests start.
    $stage "Build (debug)" cargo build --workspace --lib --bins --tests
    $stage "Build (release: what instructions are counted of)" cargo build --release -p portico-engine-cost
    run --lib --tests --
    exit
fi

if [[ $1 == --unit ]]; then
    run --lib --test scanner --test tidy --
    exit
fi

word=$1
unset T # it is not for what is started from here
expression=""
declare -A targets=()
also() { expression+="${expression:+ | }$1"; }

# A file, by its whole name or the part behind its folder's; or a folder.
for path in tests/tests/*/*.rs; do
    folder=$(basename "$(dirname "$path")")
    module=$(basename "$path" .rs)
    if [[ $word == "$folder" ]]; then
        targets["--test $folder"]=1
        [[ $expression ]] || also "binary(=$folder)"
    elif [[ $module != main && ($word == "${folder}_$module" || $word == "$folder/$module" || $word == "$module") ]]; then
        targets["--test $folder"]=1
        also "(binary(=$folder) & test(/^$module::/))"
    fi
done
# A test's name, or a part of it.
if [[ ! $expression ]]; then
    name=${word##*::}
    while read -r path; do
        case $path in
            tests/tests/*) targets["--test $(cut -d/ -f3 <<<"$path")"]=1 ;;
            resp/tests/*) targets["--test $(basename "$path" .rs)"]=1 ;;
            *) targets["--lib"]=1 ;;
        esac
    done < <(git grep --untracked -lE "(fn|mod) [a-z0-9_]*$name" -- '*.rs')
    also "test($word)"
fi
if ((${#targets[@]} == 0)); then
    echo "No test is called $word. T= is a file below tests/tests (live_watch), one of its folders (live)," \
        "or a part of a test's name." >&2
    exit 2
fi
read -ra chosen <<<"${!targets[*]}"

if [[ ${targets[--test programs]:-} ]]; then
    make --no-print-directory clients
fi
# One command, so that the binary that end-to-end tests start is built with the features that they are built with.
$stage "Build (debug)" cargo build --workspace --bins "${chosen[@]}"
if [[ $has_nextest ]]; then
    run "${chosen[@]}" -- "$expression"
else
    $stage "Tests" cargo test --workspace "${chosen[@]}" --no-fail-fast -- "${word#*_}"
fi
