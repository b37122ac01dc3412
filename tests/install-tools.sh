#!/usr/bin/env bash
# Sees to it that the named programs are there: installs Debian's packages where it can, says what is missing where
# it cannot. Nothing is started: Debian starts a server with its package, and a policy holds it back.
set -euo pipefail

declare -A packages=(
    [redis-server]=redis-server
    [redis-benchmark]=redis-tools
    [python3]=python3
    [node]=nodejs
    [npm]=npm
    [valgrind]=valgrind
    [strace]=strace
    [sidekiq]=ruby-sidekiq
    [cc]=build-essential
    [venv]=python3-venv
    [haproxy]=haproxy
    [nutcracker]=nutcracker
)
declare -A versions=(
    [redis-server]="7.0 or later" [redis-benchmark]="7.0 or later, it comes with Redis" [python3]="3.10 or later"
    [node]="18 or later" [npm]="it comes with Node.js" [valgrind]="any version" [strace]="any version"
    [sidekiq]="6 or later, a Ruby gem"
    [cc]="any C compiler, to link with" [venv]="Python's module"
    [haproxy]="2.4 or later" [nutcracker]="0.5, it is twemproxy's program"
)
# Where Debian puts servers, and where a user's PATH does not look.
PATH=$PATH:/usr/sbin

present() {
    case $1 in
        # Debian splits it off; `import venv` works without the part that is needed.
        venv) python3 -c "import venv, ensurepip" 2>/dev/null ;;
        *) command -v "$1" >/dev/null ;;
    esac
}

wanted=()
for program in "$@"; do
    case $program in
        cargo) if ! present cargo; then
            echo "cargo is missing. Install Rust 1.88 or later: https://rustup.rs" >&2
            exit 1
        fi
        wanted+=(cc) ;;
        python3) wanted+=(python3 venv) ;;
        *) wanted+=("$program") ;;
    esac
done

missing=()
for program in "${wanted[@]}"; do
    present "$program" || missing+=("$program")
done

if ((${#missing[@]} > 0)); then
    if ! command -v apt-get >/dev/null; then
        echo "Missing, and there is no apt-get to install it with. Please install:" >&2
        for program in "${missing[@]}"; do
            echo "  $program (${versions[$program]})" >&2
        done
        exit 1
    fi
    as_root=()
    if ((EUID != 0)); then
        if ! command -v sudo >/dev/null; then
            echo "Missing: ${missing[*]}. Installing needs root, and there is no sudo." >&2
            exit 1
        fi
        as_root=(sudo)
    fi
    names=()
    for program in "${missing[@]}"; do
        names+=("${packages[$program]}")
    done
    echo "== Installing ${names[*]}"

    policy=/usr/sbin/policy-rc.d
    if [[ ! -e $policy ]]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee "$policy" >/dev/null
        "${as_root[@]}" chmod 755 "$policy"
        trap '"${as_root[@]}" rm -f "$policy"' EXIT
    fi
    apt=("${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
    "${apt[@]}" update
    "${apt[@]}" install -y --no-install-recommends "${names[@]}" >/dev/null </dev/null
    for program in "${missing[@]}"; do
        present "$program" || { echo "$program is still missing after installing ${packages[$program]}" >&2; exit 1; }
    done
fi

# Too old is as bad as absent, and its errors are harder to understand.
too_old() {
    echo "$1 is too old: $2, and ${versions[$1]} is needed" >&2
    exit 1
}
for program in "${wanted[@]}"; do
    case $program in
        redis-server)
            version=$(redis-server --version | sed -n 's/.* v=\([0-9]*\).*/\1/p')
            ((${version:-0} >= 7)) || too_old "$program" "$(redis-server --version)" ;;
        node)
            version=$(node --version)
            version=${version#v}
            ((${version%%.*} >= 18)) || too_old "$program" "$version" ;;
        python3)
            python3 -c "import sys; sys.exit(sys.version_info < (3, 10))" || too_old "$program" "$(python3 --version)" ;;
    esac
done
