#!/usr/bin/env bash
# Uploads objects one after another: upload.sh SOCKET ORIGINS PREFIX COUNT. ORIGINS is a directory
# of files; the objects are PREFIX.1, PREFIX.2, ..., the files in turn. Appends a line to
# ORIGINS.PREFIX for each: "NAME FILE STATUS", what curl could not do being status 000; makes ORIGINS.PREFIX.over at its end, which comes early when
# ORIGINS.stop is there.
socket=$1 origins=$2 prefix=$3 count=$4
files=("$origins"/*)
for ((i = 1; i <= count; i++)); do
    [[ ! -e $origins.stop ]] || break
    file=${files[i % ${#files[@]}]}
    status=$(curl -s -m 30 -o /dev/null -w '%{http_code}' -T "$file" --unix-socket "$socket" \
        "http://localhost/objects/$prefix.$i")
    echo "$prefix.$i ${file##*/} $status" >>"$origins.$prefix"
done
: >"$origins.$prefix.over"
