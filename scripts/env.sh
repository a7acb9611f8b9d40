# Sourced by the other scripts: finds cargo and a C++ compiler that Bitcoin Core's code accepts.
if ! command -v cargo >/dev/null 2>&1 && [ -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ]; then
    export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi
# Ubuntu 22.04: the default g++ is 11, which cannot compile it; scripts/deps installed 12 beside it.
if [ -z "${CXX:-}" ] && command -v g++-12 >/dev/null 2>&1 && command -v g++ >/dev/null 2>&1; then
    if [ "$(g++ -dumpversion | cut -d. -f1)" -lt 12 ]; then
        export CXX=g++-12
    fi
fi
