#!/bin/sh
# Can this nvcc compile the project? Prints "yes", or why not in one line. An old one knows no C++20,
# and one that comes with a g++ of its own may not take the one of the machine.
#
#   cuda/try_nvcc.sh MEMORY NVCC FLAGS...
#
# The answer is kept in the file MEMORY until nvcc, the flags or the compilers change.
memory=$1
shift
question="$* $("$1" --version 2>&1 | tail -n 1) $(${CXX:-g++} --version 2>&1 | head -n 1)"
if [ "$(sed 1q "$memory" 2> /dev/null)" = "$question" ]; then
  sed -n 2p "$memory"
  exit
fi
here=$(mktemp -d) || exit
trap 'rm -rf "$here"' EXIT
cat > "$here/try.cu" << 'END'
#include <span>
#include <string>
template <class T>
concept Number = requires(T x) { x + x; };
template <Number T>
__global__ void twice(T* x) { x[threadIdx.x] += x[threadIdx.x]; }
void launch(std::span<float> x, const std::string&) {
  twice<<<1, 32>>>(x.data());
}
END
if "$@" -c -o "$here/try.o" "$here/try.cu" > "$here/log" 2>&1 && [ -s "$here/try.o" ]; then
  answer=yes
else
  # The line that has the reason, else the first, fit for make and for echo.
  answer=$(grep -m 1 -i 'error\|fatal\|not found' "$here/log" || sed 1q "$here/log")
  answer=$(printf %s "${answer:-it made no object file}" | tr -d '"$`\\#' |
    sed "s|$here/||; s|.*try_nvcc.sh: [line 0-9]*: ||" | cut -c 1-160)
fi
mkdir -p "$(dirname "$memory")" && printf '%s\n' "$question" "$answer" > "$here/memory" &&
  mv "$here/memory" "$memory"
printf '%s\n' "$answer"
