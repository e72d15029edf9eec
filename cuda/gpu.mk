# The kernels for the GPU, and what the full checkout has besides: `focus bench attention`, the
# kernels' tests.
#
#   libfocus-cuda.a   by nvcc; without nvcc the emulated kernels take its place
#
# CUDA_ARCH picks the GPU: sm_90, … ; default: the one in this machine. Without one the kernels are
# compiled in a hurry, to see that nvcc takes them: the driver of a GPU runs them, slowly.
# NVCC= (empty) builds as if there were no nvcc.

NVCC ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
GPU  := $(shell names=$$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null) && echo "$$names" | head -n 1)
CUDA_ARCH ?= $(if $(GPU),native,compute_75)

CUDA_BENCH := $(call emulated_obj,$(wildcard cuda/bench/*.cpp))
$(B)/obj/src/cli/main.o: CXXFLAGS += -DFOCUS_KERNELS  # focus bench attention is there

# The test of counting is itself compiled with the thread sanitizer's calls: it cannot be in a
# program that is built with the thread sanitizer.
CUDA_TESTS := $(wildcard tests/cuda_main.cpp tests/test_cuda_*.cpp)
COUNT_TEST := $(wildcard tests/test_cuda_count.cpp)
$(B)/cuda-emulated-tests: $(call emulated_obj,$(filter-out $(COUNT_TEST),$(CUDA_TESTS))) \
    $(if $(filter tsan,$(MODE)),,$(call counted_obj,$(COUNT_TEST))) \
    $(B)/libfocus-emulated.a $(B)/libfocus.a
	$(LINK)
CUDA_TEST_PROGRAMS := $(B)/cuda-emulated-tests

CUDA_SUMMARY := no nvcc: the kernels are tested on the CPU
ifneq ($(and $(NVCC),$(filter-out help clean setup,$(or $(MAKECMDGOALS),all))),)
# From nvcc 12.9 on; a third of the time.
NVCC_HURRY := $(if $(filter compute_%,$(CUDA_ARCH)),$(shell $(NVCC) --help 2>/dev/null | \
                grep -q Ofast-compile && echo --Ofast-compile=max))
# Host code under nvcc is compiled without -march and -Wpedantic: the code that nvcc generates warns.
NVCCFLAGS := -std=c++20 -arch=$(CUDA_ARCH) -O3 -lineinfo $(NVCC_HURRY) -I. -Isrc --threads 1 \
             -Xcompiler -Wall,-Wextra,-fPIC $(NVCC_EXTRA)
# The machine's g++, if nvcc takes it, or the one that a packaged nvcc brings with it.
NVCC_HOST := -ccbin $(if $(findstring clang,$(CXX)),g++,$(CXX))
try_nvcc = $(shell CXX='$(CXX)' cuda/try_nvcc.sh $(B)/obj/$(1).txt '$(NVCC)' $(NVCCFLAGS) $(2))
CUDA_WORKS := $(call try_nvcc,nvcc,$(NVCC_HOST))
ifneq ($(CUDA_WORKS),yes)
ifeq ($(call try_nvcc,nvcc-alone),yes)
CUDA_WORKS := yes
NVCC_HOST  :=
else
CUDA_SUMMARY := $(NVCC) is of no use here: $(CUDA_WORKS); the kernels are tested on the CPU
endif
endif
endif

ifneq ($(CUDA_WORKS),yes)
CUDA_LIBRARY := $(B)/libfocus-emulated.a
else
CUDA_RUNTIME := $(firstword $(wildcard $(dir $(realpath $(NVCC)))../lib64/libcudart_static.a \
                  $(dir $(realpath $(NVCC)))../targets/*/lib/libcudart_static.a \
                  /usr/lib/*/libcudart_static.a))
CUDA_LIBRARY := $(B)/libfocus-cuda.a $(CUDA_RUNTIME)
CUDA_SUMMARY := nvcc for $(CUDA_ARCH), $(if $(GPU),$(GPU),no GPU here: the kernels are tested on the CPU)
LDFLAGS += -Wl,--no-as-needed -ldl -lrt -Wl,--as-needed

cuda_obj = $(patsubst %,$(B)/obj/cuda/%.o,$(basename $(1)))
$(B)/obj/cuda/%.o: %.cu | $(AFTER_SETUP)
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	$(Q)$(NVCC) $(NVCCFLAGS) $(NVCC_HOST) -MMD -MP -c -o $@ $<

$(B)/libfocus-cuda.a: $(call cuda_obj,$(KERNELS)) $(call emulated_obj,$(CUDA_HOST))
	$(ARCHIVE)
$(B)/cuda-tests: $(call emulated_obj,$(filter-out %_emulator.cpp %_count.cpp,$(CUDA_TESTS))) \
    $(B)/libfocus-cuda.a $(B)/libfocus.a $(CUDA_RUNTIME)
	$(LINK)
CUDA_TEST_PROGRAMS += $(B)/cuda-tests

# For callers in other languages (tests/pytorch/attention_ratio.py).
$(B)/libfocus-attention.so: LDFLAGS += -shared
$(B)/libfocus-attention.so: $(call cuda_obj,$(wildcard cuda/attention/*.cu cuda/fast/attention/*.cu) \
      cuda/device/device.cu) \
    $(call emulated_obj,$(wildcard cuda/attention/*.cpp) src/attention/pattern.cpp) $(CUDA_RUNTIME)
	$(LINK)
endif

# The thread sanitizer follows fibers a hundred times slower: under it, run single tests by hand.
ifeq ($(MODE),tsan)
CUDA_TEST_PROGRAMS :=
endif
