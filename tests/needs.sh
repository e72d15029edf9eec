#!/bin/sh
# The sources that FILE needs to be linked: itself, and for every header that is included, directly
# or by others, the .cpp or .cu of the same name, with what that one includes. Where what a header
# declares stands in other files, the header says so in a line "// In a.cpp, b.cpp." or "// In *.cu.".
#
#   tests/needs.sh FILE...      in the root; one line, sorted
set -u
awk '
  function exists(path,  line, there) {
    there = (getline line < path) >= 0
    close(path)
    return there
  }
  function folder(path) { sub(/[^\/]*$/, "", path); return path }
  function add(path) {
    while (sub(/[^\/.]+\/\.\.\//, "", path)) {}
    if (!seen[path]++) todo[++last] = path
  }
  function source(path) { if (exists(path)) add(path) }
  function follow(path,  line, name, stem) {
    if (path ~ /\.h$/) {
      stem = substr(path, 1, length(path) - 2)
      source(stem ".cpp")
      source(stem ".cu")
    }
    while ((getline line < path) > 0) {
      if (line ~ /^#include "/) {
        name = line
        sub(/^#include "/, "", name)
        sub(/".*/, "", name)
        if (exists(folder(path) name)) add(folder(path) name)
        else if (exists("src/" name)) add("src/" name)
        else if (exists(name)) add(name)
      } else if (line ~ /^\/\/ In .*\.(cpp|cu)\.$/) {
        sub(/^\/\/ In /, "", line)
        sub(/\.$/, "", line)
        count = split(line, names, ", ")
        for (i = 1; i <= count; ++i) {
          command = "ls " folder(path) names[i] " 2> /dev/null"
          while ((command | getline name) > 0) add(name)
          close(command)
        }
      }
    }
    close(path)
  }
  BEGIN {
    for (i = 1; i < ARGC; ++i) add(ARGV[i])
    for (at = 1; at <= last; ++at) follow(todo[at])
    for (at = 1; at <= last; ++at) if (todo[at] ~ /\.(cpp|cu)$/) print todo[at]
  }' "$@" | LC_ALL=C sort -u | tr '\n' ' '
echo
