#!/usr/bin/env bash
# make pgo: builds Portico, trains it on a throwaway cluster, and builds it again with the profile of that run.
# Usage: profile-guided.sh FOLDER PORT; leaves FOLDER/portico.
set -euo pipefail
folder=$1 port=$2
target=$(rustc -vV | sed -n 's/^host: //p')
profdata=$(rustc --print sysroot)/lib/rustlib/$target/bin/llvm-profdata
[[ -x $profdata ]] || rustup component add llvm-tools

# The target is named so that build scripts, which run on this machine, are not instrumented.
build() {
    echo "== Building ($1)"
    RUSTFLAGS="$2" CARGO_TARGET_DIR=$folder cargo build --release -p portico --target "$target"
}

rm -rf "$folder/raw"
build "instrumented" "-Cprofile-generate=$folder/raw"
"$folder/$target/release/portico" sandbox --port "$port" >"$folder/sandbox.log" 2>&1 &
sandbox=$!
trap 'kill "$sandbox" 2>/dev/null || true' EXIT
for _ in {1..200}; do
    redis-cli -p "$port" dbsize >/dev/null 2>&1 && break
    kill -0 "$sandbox" 2>/dev/null || { cat "$folder/sandbox.log" >&2; exit 1; }
    sleep 0.1
done

echo "== Training"
load() { timeout 120 redis-benchmark -p "$port" -q -d 64 -r 100000 "$@" >/dev/null; }
load -t set,get,incr,lpush,hset,zadd -n 200000 -P 16
load -t set,get -n 50000
load -t set,get -n 100000 -P 16 -3
load -t mset -n 5000
load -n 10000 mget key:__rand_int__ key:__rand_int__ key:__rand_int__ key:__rand_int__ key:__rand_int__
load -n 5000 del key:__rand_int__ key:__rand_int__ key:__rand_int__

kill -INT "$sandbox"
wait "$sandbox" || true
"$profdata" merge -o "$folder/portico.profdata" "$folder/raw"
build "with the profile" "-Cprofile-use=$folder/portico.profdata"
cp "$folder/$target/release/portico" "$folder/portico"
echo "== $folder/portico"
