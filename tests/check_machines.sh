#!/bin/sh
# Machines of other kinds, as `make` sees them: what stands in PATH there is played by small scripts;
# folders have blanks and letters of other languages. Nothing is compiled. Last line: N passed, N failed.
set -u
here=$(mktemp -d) || exit 2
trap 'rm -rf "$here"' EXIT
. tests/check.sh
unset MAKEFLAGS MFLAGS MAKELEVEL NVCC CUDA_ARCH 2> /dev/null

tool() {  # tool NAME: a program of that name, from standard input, first in PATH
  mkdir -p "$here/bin" && { echo '#!/bin/sh'; cat; } > "$here/bin/$1" && chmod +x "$here/bin/$1"
}
says() {  # says NAME PATTERN [VARIABLE=VALUE]: what `make` would say of CUDA; no kernel for nvcc
  name=$1 pattern=$2
  shift 2
  PATH=$here/bin:$PATH make -n B="$here/build" all "$@" > "$here/log" 2>&1
  if grep '^echo "CUDA ' "$here/log" | grep -q -- "$pattern"; then ok "$name"
  else
    grep 'CUDA ' "$here/log"
    bad "$name: it does not say '$pattern'"
  fi
  rm -rf "$here/build"
}
kernels_for_the_cpu() {
  check "$1: the emulator takes its place" sh -c "! grep -q '^echo \"  NVCC' '$here/log'"
}

tool nvidia-smi << 'END'
exit 9
END
tool nvcc << 'END'
case " $* " in
*" --version "*) echo "Cuda compilation tools, release 11.5, V11.5.119"; exit 0 ;;
*" -std=c++20 "*) echo "nvcc fatal   : Value 'c++20' is not defined for option 'std'" >&2; exit 1 ;;
esac
END
says "an nvcc that knows no C++20" "nvcc is of no use here: nvcc fatal   : Value 'c++20' is not defined for option 'std'; the kernels"
kernels_for_the_cpu "an nvcc that knows no C++20"

tool nvcc << 'END'
echo '/usr/include/crt/host_config.h:132:2: error: #error -- unsupported GNU version! "`$(no)`"' >&2
exit 1
END
says "an nvcc that takes no g++" "of no use here: .*error: error -- unsupported GNU version! (no); the kernels"
kernels_for_the_cpu "an nvcc that takes no g++"

tool nvcc << 'END'
case " $* " in *" -ccbin "*) echo "#error -- unsupported GNU version!" >&2; exit 1 ;; esac
while [ "$#" -gt 1 ]; do
  [ "$1" != -o ] || echo object > "$2"
  shift
done
END
says "an nvcc with a g++ of its own" "nvcc for compute_75, no GPU here"
check "… which compiles the kernels" sh -c "grep -q '/nvcc -std' '$here/log' && ! grep -q -- '-ccbin' '$here/log'"

tool nvcc << 'END'
exit 0
END
says "an nvcc that makes nothing" "of no use here: it made no object file; the kernels"
kernels_for_the_cpu "an nvcc that makes nothing"
says "an nvcc that is not there" "/no/nvcc is of no use here: /no/nvcc: not found; the kernels" NVCC=/no/nvcc

tool nvcc << 'END'
while [ "$#" -gt 1 ]; do
  [ "$1" != -o ] || echo object > "$2"
  shift
done
END
tool nvidia-smi << 'END'
echo "No devices were found"
exit 6
END
says "a driver that shows no GPU" "nvcc for compute_75, no GPU here"
tool nvidia-smi << 'END'
echo "NVIDIA H200"
echo "NVIDIA H200"
END
says "a GPU" "nvcc for native, NVIDIA H200$\|nvcc for native, NVIDIA H200\""
says "NVCC= leaves it alone" "no nvcc: the kernels are tested on the CPU" NVCC=

# Whatever else it exported, the caller's library of the same name could replace (cuda/gpu.mk).
exports() { [ "$(nm -D --defined-only "$1" | awk '{print $3}' | sort | xargs)" = "focus_attention focus_attention_workspace" ]; }
if [ -e build/libfocus-attention.so ]; then
  check "the library for other languages exports its two functions and no more" exports build/libfocus-attention.so
else skip "what the library for other languages exports: nvcc builds it"
fi

# Names with blanks and other letters: of the checkout, and of a page to play with.
odd="$here/mein Ordner ü" page="$here/my page ß"
mkdir "$odd" && cp -r Makefile lessons src tests cuda "$odd"
starts() { (cd "$odd" && make -s NVCC= start-00 DIR="$page"); }
check "a page in a folder with blanks" starts
plans() { (cd "$page" && make -n NVCC= lesson-00 test-00) > "$here/log" 2>&1 && grep -q -- "$1" "$here/log"; }
check "… is compiled" plans "-o build/lesson-00 '$page/focus.cpp'\$"
check "… and tested" plans "-DFOCUS_PAGE='\"$page/focus.cpp\"'"
print_sum
