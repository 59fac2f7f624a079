#!/usr/bin/env bash
# `make tidy`: one line per check, findings below it. Ends with "N passed, N failed, N skipped".
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
. spec/tools/packages.sh

shopt -s nullglob globstar
c_files=(csrc/*.[ch] spec/c/*.[ch] spec/c/{macos,windows}/**/*.[ch] spec/tools/*/*.[ch])
lua_files=(lua/**/*.lua lua/bin/* spec/**/*.lua)
scripts=(spec/tools/*.sh .ci/run)
rockspec=rockspec/jdbfs-scm-1.rockspec
lua=${LUA_EXE:-lua}
passed=0 failed=0 skipped=0

check() { # NAME COMMAND...
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        passed=$((passed + 1))
        echo "ok   $name"
    else
        failed=$((failed + 1))
        echo "FAIL $name"
        awk 'NR <= 100 { print "     | " $0 } END { if (NR > 100) print "     | ..." }' \
            <<<"${out:-(no output)}"
    fi
}

check_with() { # TOOL NAME COMMAND...: skipped when the tool is not here
    local tool=$1
    shift
    if command -v "$tool" >/dev/null; then
        check "$@"
    else
        skipped=$((skipped + 1))
        echo "skip $1: $tool is missing; $(install_hint "$tool")"
    fi
}

# What only the builds for tests have, or one build of a host: in csrc/, in no rock.
shipped_c_files() {
    local file test_only
    test_only=" $("${MAKE:-make}" -s --no-print-directory print-test-sources) "
    for file in csrc/*.c; do [[ $test_only == *" $file "* ]] || echo "$file"; done
}

# The systems whose lists the Makefile has.
systems=(Linux Darwin FreeBSD Windows)
rockspec_lists() {
    local system bad=0
    for system in "${systems[@]}"; do
        # shellcheck disable=SC2046
        "$lua" spec/tools/tidy.lua rockspec "$rockspec" \
            $("${MAKE:-make}" -s --no-print-directory print-sources PLATFORM="$system") -- \
            $(shipped_c_files) || bad=1
    done
    return $bad
}

top_level_entries() { # what one sees in the top directory is these, and only these
    local entry bad=0
    for entry in $(if [[ -d .git ]]; then git ls-files | cut -d/ -f1 | sort -u; else ls; fi); do
        case $entry in
            csrc | lua | spec | rockspec | Makefile | README.md | LICENSE | .* | build) ;;
            *) echo "$entry does not belong into the top directory"; bad=1 ;;
        esac
    done
    return $bad
}

# The version stands in jdb.h; the release's rockspec is made of the tree's, and the README tells
# what is new in it.
versions() {
    local make=${MAKE:-make} version release bad=0
    version=$("$make" -s --no-print-directory print-version)
    release=rockspec/jdbfs-$version-1.rockspec
    "$make" -s --no-print-directory print-rockspec | diff - "$release" ||
        { echo "$release is not what \`make rockspec\` makes"; bad=1; }
    [[ $(echo rockspec/*) == "$release $rockspec" ]] ||
        { echo "rockspec/ holds others than $release and $rockspec"; bad=1; }
    [[ $(grep -m 1 '^### [0-9]' README.md) == "### $version" ]] ||
        { echo "README.md: the first of its changes is not those of $version"; bad=1; }
    return $bad
}

script_syntax() {
    local script bad=0
    for script in "${scripts[@]}"; do bash -n "$script" || bad=1; done
    return $bad
}

check_with "$lua" "include and #if rules" "$lua" spec/tools/tidy.lua includes "${c_files[@]}"
check_with "$lua" "columns" "$lua" spec/tools/tidy.lua columns "${c_files[@]}" \
    "${lua_files[@]}" "${scripts[@]}" Makefile "$rockspec"
check_with "$lua" "function length" "$lua" spec/tools/tidy.lua functions "${c_files[@]}"
check_with "$lua" "rockspec against Makefile" rockspec_lists
check "one version" versions
check_with clang-format "clang-format" clang-format --dry-run -Werror "${c_files[@]}"
check_with luacheck "luacheck" luacheck -q --no-color --codes "${lua_files[@]}" "$rockspec"
check_with bash "scripts" script_syntax
check_with git "top directory" top_level_entries
if command -v shellcheck >/dev/null; then
    check "shellcheck" shellcheck -x -S warning "${scripts[@]}"
fi

echo
echo "$passed passed, $failed failed, $skipped skipped"
((failed == 0))
