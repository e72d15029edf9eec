# What the full checkout has besides: `focus bench attention`, and the kernels' tests.
#
#   libfocus-cuda.a   by nvcc; without nvcc the emulated kernels take its place

CUDA_BENCH := $(call emulated_obj,$(wildcard cuda/bench/*.cpp))
$(B)/obj/src/cli/bench_commands.o: CXXFLAGS += -DFOCUS_KERNELS  # focus bench attention is there

# The test of counting is itself compiled with the thread sanitizer's calls: it cannot be in a
# program that is built with the thread sanitizer.
CUDA_TESTS := $(wildcard tests/cuda_main.cpp tests/test_cuda_*.cpp)
COUNT_TEST := $(wildcard tests/test_cuda_count.cpp)
$(B)/cuda-emulated-tests: $(call emulated_obj,$(filter-out $(COUNT_TEST),$(CUDA_TESTS))) \
    $(if $(filter tsan,$(MODE)),,$(call counted_obj,$(COUNT_TEST))) \
    $(B)/libfocus-emulated.a $(B)/libfocus.a
	$(LINK)
CUDA_TEST_PROGRAMS := $(B)/cuda-emulated-tests

# They and the steppers read the standard headers once. Not doctest: what the library is made of
# would ask for it.
ifneq ($(READ_ONCE),)
HOST_ONCE := $(B)/obj/emulated/host.h
$(HOST_ONCE).gch: CXXFLAGS := $(CXXFLAGS:-O3=-O2) -g1 -fPIC
$(call emulated_obj,$(CUDA_TESTS) $(CUDA_HOST) $(EMULATOR) $(wildcard cuda/bench/*.cpp cuda/lesson/*.cpp)): \
  | $(HOST_ONCE).gch
endif

ifeq ($(NVCC),)
CUDA_SUMMARY := no nvcc: the kernels are tested on the CPU
endif
ifneq ($(CUDA_WORKS),yes)
CUDA_LIBRARY := $(B)/libfocus-emulated.a
else
CUDA_LIBRARY := $(B)/libfocus-cuda.a $(CUDA_RUNTIME)
CUDA_SUMMARY := nvcc for $(CUDA_ARCH), $(if $(GPU),$(GPU),no GPU here: the kernels are tested on the CPU)
$(B)/libfocus-cuda.a: $(call cuda_obj,$(KERNELS)) $(call emulated_obj,$(CUDA_HOST))
	$(ARCHIVE)
$(B)/cuda-tests: $(call emulated_obj,$(filter-out %_emulator.cpp %_count.cpp,$(CUDA_TESTS))) \
    $(B)/libfocus-cuda.a $(B)/libfocus.a $(CUDA_RUNTIME)
	$(LINK)
CUDA_TEST_PROGRAMS += $(B)/cuda-tests

# For callers in other languages (tests/pytorch/attention_ratio.py). It exports its two functions only:
# of a libstdc++ linked in (LDFLAGS=-static-libstdc++) some symbols, not all, would be replaced by those
# of the caller's libstdc++, and printing a number would crash.
ATTENTION_LIBRARY := $(B)/libfocus-attention.so
$(ATTENTION_LIBRARY): LDFLAGS += -shared -Wl,-z,defs -Wl,--version-script=cuda/attention/c_interface.map
$(ATTENTION_LIBRARY): $(call cuda_obj,$(wildcard cuda/attention/*.cu cuda/fast/attention/*.cu) \
      cuda/device/device.cu) \
    $(call emulated_obj,$(wildcard cuda/attention/*.cpp) src/attention/pattern.cpp) $(CUDA_RUNTIME)
	$(LINK)
endif

# The thread sanitizer follows fibers a hundred times slower: under it, run single tests by hand.
ifeq ($(MODE),tsan)
CUDA_TEST_PROGRAMS :=
endif
