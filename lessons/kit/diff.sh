#!/bin/sh
# What lesson NN adds to the tree of the lesson before it, as a unified diff.
#
#   diff.sh KIT NN NUMBERS...
set -u
kit=$1 nn=$2
shift 2
before=
for n; do [ "$n" -lt "$nn" ] && before=$n; done
[ -n "$before" ] || { echo "lesson $nn is the first"; exit 0; }
folder=$(mktemp -d) || exit 2
trap 'rm -rf "$folder"' EXIT
"$kit" snapshot "$before" "$folder/$before" && "$kit" snapshot "$nn" "$folder/$nn" || exit 2
(cd "$folder" && diff -ruN -x results -x golden "$before" "$nn")
[ $? -le 1 ]
