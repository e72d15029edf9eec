#!/bin/sh
# `make setup`: installs what the project needs and is missing, with apt where there is apt.
# Safe to run again: it does nothing when nothing is missing.
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

if [ -z "$missing" ]; then
  echo "setup: nothing is missing"
  exit 0
fi
echo "setup: missing:$missing"

if ! command -v apt-get > /dev/null; then
  echo "setup: this script knows Debian's and Ubuntu's apt-get only. Install what corresponds to"
  echo "      $missing"
  echo "  with your package manager (gnuplot is optional: it draws the figures as SVG), then go on."
  exit 1
fi
root=
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo > /dev/null; then
    echo "setup: you are not root and there is no sudo. Ask an administrator for:"
    echo "  apt-get install$missing"
    exit 1
  fi
  root=sudo
fi
install="env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends"
echo "setup: ${root:+$root }apt-get install$missing"
$root apt-get update -q=2 && $root $install -q=2 $missing > /dev/null || {
  echo "setup: apt-get failed; run this to see why:"
  echo "  ${root:+$root }apt-get update && ${root:+$root }apt-get install$missing"
  exit 1
}
echo "setup: done"
