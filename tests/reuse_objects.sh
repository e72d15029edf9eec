#!/bin/sh
# Spares TREE, which has sources of this checkout beside changed ones, compiling what would come out
# the same: copies those objects of build/ of which all files are the same in TREE, included ones
# too, but for whole lines of comments (tags are comments). A file that asks for another with
# __has_include is the same only if TREE has that one, too. What is not certainly the same is left to
# TREE's make, and an object that it would leave alone is not copied again.
#
#   tests/reuse_objects.sh TREE     in the root, once TREE is written
#
# TREE must compile with the same options: the kernels' bits are the same in every grouping only if
# all are compiled alike.
set -u
tree=$(realpath -- "${1:?which tree}") || exit
export tree  # to awk as it is: -v would read backslashes

# What an object was built with comes before it.
mkdir -p "$tree/build/obj"
txt=build/obj/sentencepiece.txt
[ ! -f $txt ] || cmp -s $txt "$tree/$txt" || cp $txt "$tree/$txt"

files() {  # files FOLDER: its sources and objects
  find -L "$1/src" "$1/cuda" "$1/tests" "$1/lessons" "$1/build/obj" -type f \
    \( -name '*.[ch]*' -o -name '*.o' \) -print0 2> /dev/null
}
# The newest first, all in one list (-x).
{ files .; files "$tree"; } | xargs -0 -x -s 900000 ls -dLt | awk '
  function text_of(path,  text, line) {
    text = ""
    while ((getline line < path) > 0) {
      if (line !~ /^ *\/\//) text = text line "\n"
      if (line ~ /__has_include\("/) {
        split(line, part, "\"")
        asks[path] = part[2]
      }
    }
    close(path)
    return text
  }
  function is_same(file,  here, there) {
    if (!(file in known)) {
      here = "./" file
      there = tree "/" file
      known[file] = (there in age) && text_of(here) == text_of(there) &&
                    (!(here in asks) || (tree "/" asks[here]) in age)
    }
    return known[file]
  }
  # From LIST.d: the first rule, which ends with the first line that does not go on: OBJECT: FILE...
  function look_at(stem,  list, object, on, line, count, i, file, is_there) {
    list = stem ".d"
    object = stem ".o"
    is_there = (tree "/" substr(object, 3)) in age  # and newer than all that it is made of
    on = 1
    while (on && (getline line < list) > 0) {
      on = sub(/\\$/, "", line)
      sub(/^[^ :]*[ ]*:/, "", line)
      count = split(line, names, " ")
      for (i = 1; i <= count; ++i) {
        file = names[i]
        sub(/^\.\//, "", file)
        if (file ~ /^\//) continue  # of the compiler
        if (!(("./" file) in age) || age["./" file] < age[object] || !is_same(file)) {
          close(list)
          return
        }
        if (is_there && age[tree "/" file] < age[tree "/" substr(object, 3)]) is_there = 0
      }
    }
    close(list)
    if (!is_there) print object "\n" list
  }
  BEGIN {tree = ENVIRON["tree"]}
  {age[$0] = NR}
  /^\.\/build\/obj\/.*\.o$/ {stems[++last] = substr($0, 1, length($0) - 2)}
  END {
    for (i = 1; i <= last; ++i)
      if (stems[i] != "./build/obj/src/cli/bench_commands")  # has options of its own
        look_at(stems[i])
  }' | tar -cf - -T - | tar -xmf - -C "$tree"
