#!/bin/sh
# `make setup`: installs what the project needs and is missing, with apt where there is apt.
# Safe to run again: it does nothing when nothing is missing.
#
#   tests/setup.sh            what users need
#   tests/setup.sh authors    also what the authors' checks need (a browser, clang-format, Slurm, the
#                             grader's sandbox)
set -u

missing=
need() {  # need PACKAGE COMMAND...: the package is missing if the command fails
  package=$1
  shift
  "$@" > /dev/null 2>&1 || missing="$missing $package"
}
header() { echo "#include <$1>" | ${CXX:-g++} -std=c++20 -E -x c++ - ; }

need g++ ${CXX:-g++} -std=c++20 -E -x c++ /dev/null
need doctest-dev header doctest/doctest.h
need libcli11-dev header CLI/CLI.hpp
need nlohmann-json3-dev header nlohmann/json.hpp
need gnuplot-nox command -v gnuplot
need pandoc command -v pandoc
if [ "${1:-}" = authors ]; then
  need chromium command -v chromium
  need clang-format command -v clang-format
  need python3 command -v python3
  need bubblewrap command -v bwrap
  need libarchive-tools command -v bsdtar
  need slurm-wlm env PATH="$PATH:/usr/sbin" command -v slurmctld
  need munge env PATH="$PATH:/usr/sbin" command -v munged
fi

root=
[ "$(id -u)" -eq 0 ] || root=sudo
install="env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
# SentencePiece, for two tokenizers of lesson 15: taken where apt knows it, and no fault where not.
optional() {
  [ "${1:-}" != authors ] && ! pkg-config --exists sentencepiece 2> /dev/null || return
  wanted="pkg-config libsentencepiece-dev"
  apt-cache show libsentencepiece-dev > /dev/null 2>&1 &&
    $root timeout 40 $install -q=2 --download-only $wanted > /dev/null 2>&1 &&
    $root $install -q=2 $wanted > /dev/null 2>&1 &&
    echo "setup: installed libsentencepiece-dev" ||
    echo "setup: no libsentencepiece-dev here; only focus text's tokenizers unigram and sentencepiece-bpe need it"
}

if [ -z "$missing" ]; then
  optional "$@"
  echo "setup: nothing is missing"
  exit 0
fi
echo "setup: missing:$missing"

if ! command -v apt-get > /dev/null; then
  echo "setup: this script knows Debian's and Ubuntu's apt-get only. Install what corresponds to"
  echo "      $missing"
  echo "  with your package manager (gnuplot and pandoc are optional: figures as SVG, the book), then go on."
  exit 1
fi
if [ -n "$root" ] && ! command -v sudo > /dev/null; then
  echo "setup: you are not root and there is no sudo. Ask an administrator for:"
  echo "  apt-get install$missing"
  exit 1
fi
echo "setup: ${root:+$root }apt-get install$missing"
$root apt-get update -q=2 && $root $install -q=2 $missing > /dev/null || {
  echo "setup: apt-get failed; run this to see why:"
  echo "  ${root:+$root }apt-get update && ${root:+$root }apt-get install$missing"
  exit 1
}
optional "$@"
echo "setup: done"
