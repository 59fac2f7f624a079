# shellcheck shell=bash
# Sourced by the benches, at the top of the tree: what they need, built.

# contestants LUA...: builds the module for each that is here, and fills the arrays names,
# interpreters and modules. Says which are not here.
contestants() {
    local lua verdict id exe
    names=() interpreters=() modules=()
    for lua in "$@"; do
        read -r verdict id _ exe _ <<<"$(bash spec/tools/lua.sh find "$lua")"
        if [[ $verdict != ok || $exe == - ]]; then
            echo "$lua: not here"
            continue
        fi
        "${MAKE:-make}" --no-print-directory LUA="$lua" all >/dev/null
        names+=("${lua:-$id}") interpreters+=("$exe") modules+=("build/$id")
    done
    ((${#names[@]})) || { echo "bench: no Lua to measure" >&2; exit 1; }
}

# tool NAME [FLAG...]: build/bench/NAME from NAME.c.
tool() {
    local name=$1
    shift
    mkdir -p build/bench
    "${CC:-cc}" -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -o "build/bench/$name" \
        "spec/bench/${name%.so}.c" "$@"
}

# with_lua NAME FLAG...: build/bench/LUA/NAME.so from bare.c, for each that contestants found.
with_lua() {
    local i name=$1 include
    shift
    for i in "${!names[@]}"; do
        read -r _ _ _ _ include <<<"$(bash spec/tools/lua.sh find "${names[i]}")"
        mkdir -p "build/bench/${names[i]}"
        "${CC:-cc}" -std=c11 -D_GNU_SOURCE -O2 -Wall -Wextra -fPIC -shared -Icsrc \
            -isystem "$include" -DNAME="$name" -o "build/bench/${names[i]}/$name.so" \
            spec/bench/bare.c "$@"
    done
}
