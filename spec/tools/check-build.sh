#!/usr/bin/env bash
# Prints one line that names what the build lacks, or nothing. Reads PLATFORM, CC, URING_CFLAGS and
# URING_LIBS from the environment.
set -euo pipefail
# shellcheck source=spec/tools/packages.sh
. "$(dirname "${BASH_SOURCE[0]}")/packages.sh"

# CC, URING_CFLAGS and URING_LIBS may be several words each.
read -ra cc <<<"${CC:-cc}"
read -ra cflags <<<"${URING_CFLAGS-}"
read -ra libs <<<"${URING_LIBS--luring}"
command -v "${cc[0]}" >/dev/null ||
    { echo "jdbfs: no C compiler (${CC:-cc}); $(install_hint cc libc)"; exit; }

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
try() { "${cc[@]}" -x c - -o "$tmp/a.out" "$@" >/dev/null 2>&1; }

try <<<$'#include <stdio.h>\nint main(void) { return puts("") < 0; }' ||
    { echo "jdbfs: ${CC:-cc} cannot make a program; $(install_hint cc libc)"; exit; }
[[ ${PLATFORM:-Linux} == Linux ]] || exit 0
try "${cflags[@]}" -c <<<'#include <liburing.h>' ||
    { echo "jdbfs: no liburing.h; $(install_hint liburing)"; exit; }
try "${cflags[@]}" -Werror=implicit-function-declaration "${libs[@]}" <<'EOC' ||
#include <liburing.h>
int main(void) { struct io_uring ring; return io_uring_get_events(&ring); }
EOC
    echo "jdbfs: liburing is older than 2.3 or its library is missing; $(install_hint liburing)"
