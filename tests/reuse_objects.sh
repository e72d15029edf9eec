#!/bin/sh
# Spares TREE, which has sources of this checkout beside changed ones, compiling what would come out
# the same: copies those objects of build/ of which all files are the same in TREE, included ones
# too, but for whole lines of comments (tags are comments). A file that asks for another with
# __has_include is the same only if TREE has that one, too. What is not certainly the same is left to
# TREE's make.
#
#   tests/reuse_objects.sh TREE     in the root, once TREE is written
#
# TREE must compile with the same options: the kernels' bits are the same in every grouping only if
# all are compiled alike.
set -u
tree=$(realpath -- "${1:?which tree}") || exit
export tree  # to awk as it is: -v would read backslashes

sources() {
  find -L "$1/src" "$1/cuda" "$1/tests" "$1/lessons" -name '*.[ch]*' -type f -print0 2> /dev/null
}
same=$({ sources .; sources "$tree"; } | xargs -0 awk '
  !/^ *\/\// {text[FILENAME] = text[FILENAME] $0 "\n"}
  /__has_include\("/ {split($0, part, "\""); asks[FILENAME] = part[2]}
  END {for (file in text)
         if (text[file] == text[ENVIRON["tree"] substr(file, 2)] &&
             (!(file in asks) || text[ENVIRON["tree"] "/" asks[file]] != "")) print substr(file, 3)}')
same=" $(echo $same) "

# What an object was built with comes before it.
if [ -f build/obj/sentencepiece.txt ]; then
  mkdir -p "$tree/build/obj" && cp build/obj/sentencepiece.txt "$tree/build/obj/"
fi
find build/obj -name '*.d' | while read -r list; do
  object=${list%.d}.o
  [ "$object" != build/obj/src/cli/bench_commands.o ] || continue  # has options of its own
  # The list's first rule, which ends with the first line that does not go on: OBJECT: FILE...
  for file in $(awk '{on = sub(/\\$/, ""); sub(/^[^ :]*[ ]*:/, ""); print} !on {exit}' "$list"); do
    file=${file#./}
    case $file in /*) continue ;; esac  # the compiler's own
    [ "$file" -nt "$object" ] && continue 2
    case $same in *" $file "*) ;; *) continue 2 ;; esac
  done
  mkdir -p "$tree/${object%/*}"
  cp "$object" "$list" "$tree/${object%/*}"
done
