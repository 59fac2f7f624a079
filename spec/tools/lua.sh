#!/usr/bin/env bash
# Finds Lua interpreters and their header files.
#
#   lua.sh find [NAME [INCDIR]]   "ok ID ABI INTERPRETER INCDIR", or "err MESSAGE"
#   lua.sh list                   a name per installed version, for LUA=
#
# NAME: lua5.4, 5.4, luajit, lua, or a path; empty: the first version that can be built for.
# ID names the build directory (5.1 ... 5.5, luajit), ABI the module directories (luajit: 5.1).
# INTERPRETER is "-" when only the header files are there: enough to build, not to test.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
# shellcheck source=spec/tools/packages.sh
. "$here/packages.sh"

version_code='io.write(type(jit) == "table" and "luajit" or _VERSION:match("%d+%.%d+") or "?")'

id_of() { # INTERPRETER
    env -u LUA_INIT -u LUA_INIT_5_2 -u LUA_INIT_5_3 -u LUA_INIT_5_4 -u LUA_INIT_5_5 \
        "$1" -e "$version_code" 2>/dev/null </dev/null || true
}

id_of_name() { # "5.4" of lua5.4, lua54, lua-5.4, 5.4; "luajit"; nothing for plain lua
    case $1 in
        luajit*) echo luajit ;;
        *5.[1-9]) echo "5.${1##*.}" ;;
        *5[1-9]) echo "5.${1##*5}" ;;
    esac
}

interpreter_of() { # ID
    local name path id=$1
    local names=("lua$id" "lua${id/./}" "lua-$id" lua)
    [[ $id == luajit ]] && names=(luajit luajit-2.1 luajit2 lua)
    for name in "${names[@]}"; do
        path=$(command -v "$name") || continue
        [[ $(id_of "$path") == "$id" ]] && { echo "$path"; return; }
    done
    return 1
}

fits() { # ID DIR: whether DIR has that version's lua.h
    [[ -f $2/lua.h ]] || return 1
    case $1 in
        luajit) [[ -f $2/luajit.h ]] ;;
        5.1) [[ ! -f $2/luajit.h ]] && grep -Eq 'LUA_VERSION_NUM[[:space:]]+501' "$2/lua.h" ;;
        *) grep -Eq "LUA_VERSION_MINOR(_N)?[[:space:]]+\"?${1#5.}\"?([^0-9]|$)" "$2/lua.h" ;;
    esac
}

headers_of() { # ID INTERPRETER
    local id=$1 name flag prefix dir prefixes=() names=()
    local pkg_config=${PKG_CONFIG:-pkg-config}
    if [[ $id == luajit ]]; then names=(luajit)
    else names=("lua$id" "lua${id/./}" "lua-$id" lua); fi
    [[ $2 == */bin/* ]] && prefixes+=("${2%/bin/*}")
    for prefix in "${prefixes[@]}" pkg-config /usr/local /usr; do
        if [[ $prefix == pkg-config ]]; then
            command -v "$pkg_config" >/dev/null || continue
            for name in "${names[@]}"; do
                # A directory that the compiler searches anyway is left out of --cflags.
                for flag in $("$pkg_config" --cflags-only-I "$name" 2>/dev/null) \
                    "-I$("$pkg_config" --variable=includedir "$name" 2>/dev/null)"; do
                    fits "$id" "${flag#-I}" && { echo "${flag#-I}"; return; }
                done
            done
            continue
        fi
        for dir in "lua$id" "lua-$id" "lua/$id" "lua${id/./}" luajit-2.1 luajit-2.0 .; do
            dir=$prefix/include/$dir
            fits "$id" "${dir%/.}" && { echo "${dir%/.}"; return; }
        done
    done
    return 1
}

find_one() { # NAME INCDIR
    local name=$1 incdir=$2 exe='' id
    if [[ $name == */* ]]; then
        exe=$name
        [[ -x $exe ]] || { echo "err jdbfs: LUA=$name is not a program"; return; }
    elif [[ -n $(id_of_name "$name") ]]; then
        exe=$(interpreter_of "$(id_of_name "$name")") || exe=-
    else
        exe=$(command -v "$name") || {
            echo "err jdbfs: no Lua interpreter $name; $(install_hint lua-5.4 headers-5.4)"
            return
        }
    fi
    if [[ $exe == - ]]; then id=$(id_of_name "$name"); else id=$(id_of "$exe"); fi
    case $id in
        luajit | 5.[1-9]) ;;
        *) echo "err jdbfs: $exe is not a Lua 5.1 or later"; return ;;
    esac
    if [[ -n $incdir ]]; then
        fits "$id" "$incdir" ||
            {
                echo "err jdbfs: LUA_INCDIR=$incdir has no lua.h of Lua $id;" \
                    "$(install_hint "headers-$id") and leave LUA_INCDIR out"
                return
            }
    else
        incdir=$(headers_of "$id" "$exe") || {
            if [[ $exe == - ]]; then
                echo "err jdbfs: Lua $id is not here; $(install_hint "lua-$id" "headers-$id")"
            else
                echo "err jdbfs: no header files of Lua $id (lua.h);" \
                    "$(install_hint "headers-$id"), or set LUA_INCDIR"
            fi
            return
        }
    fi
    local abi=$id
    [[ $id == luajit ]] && abi=5.1
    echo "ok $id $abi $exe $incdir"
}

find_default() { # INCDIR
    local name found first=''
    for name in lua5.4 lua5.3 lua5.2 lua5.1 luajit lua; do
        command -v "$name" >/dev/null || continue
        found=$(find_one "$name" "$1")
        [[ $found == ok* ]] && { echo "$found"; return; }
        first=${first:-$found}
    done
    echo "${first:-err jdbfs: no Lua; $(install_hint lua-5.4 headers-5.4)}"
}

case ${1-} in
    find) if [[ -n ${2-} ]]; then find_one "$2" "${3-}"; else find_default "${3-}"; fi ;;
    list)
        for id in 5.1 5.2 5.3 5.4 5.5 luajit; do
            interpreter_of "$id" >/dev/null || continue
            if [[ $id == luajit ]]; then echo luajit; else echo "lua$id"; fi
        done
        ;;
    *) echo "usage: lua.sh find [NAME [INCDIR]] | list" >&2; exit 2 ;;
esac
