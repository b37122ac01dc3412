#!/usr/bin/env bash
# Runs one stage of a long make target: says its name when it begins, and how long it took when it has ended.
#   tests/stage.sh NAME COMMAND...
set -euo pipefail

name=$1
shift
echo "== $name"
begun=$SECONDS
if "$@"; then
    echo "== $name: $((SECONDS - begun)) s"
else
    status=$?
    echo "== $name: FAILED after $((SECONDS - begun)) s"
    exit "$status"
fi
