# The kernels of cuda/: the same sources twice.
#
#   libfocus-emulated.a   by the C++ compiler, on top of cuda/simt/emulator.h: runs on the CPU,
#                         for tests and debuggers, everywhere
#   libfocus-cuda.a       by nvcc, for the GPU; without nvcc it is the emulated one
#
# CUDA_ARCH picks the GPU: sm_90, … ; default: the one in this machine, else sm_75 with code for
# later ones translated by the driver.  NVCC= (empty) builds as if there were no nvcc.

NVCC ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
GPU  := $(shell nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | head -n 1)
CUDA_ARCH ?= $(if $(GPU),native,sm_75)

KERNELS      := $(wildcard cuda/attention/*.cu cuda/one_launch/*.cu cuda/ops/*.cu cuda/bench/*.cu cuda/stepper/*.cu) \
                $(wildcard cuda/device/*.cu)
CUDA_HOST    := $(wildcard cuda/attention/*.cpp cuda/stepper/*.cpp)
EMULATOR     := $(wildcard cuda/simt/*.cpp)
# A student's tree has the kernels, their emulator and nothing that needs nvcc.
BENCH        := $(wildcard cuda/bench/bench_attention.cpp)
ifneq ($(BENCH),)
CUDA_BENCH   := $(patsubst %.cpp,$(B)/obj/emulated/%.o,$(wildcard cuda/bench/*.cpp))
$(B)/obj/src/cli/main.o: CXXFLAGS += -DFOCUS_KERNELS  # focus bench attention is there
endif
CUDA_TESTS   := $(wildcard tests/cuda_main.cpp tests/test_cuda_*.cpp)
emulated_obj  = $(patsubst %,$(B)/obj/emulated/%.o,$(basename $(1)))
cuda_obj      = $(patsubst %,$(B)/obj/cuda/%.o,$(basename $(1)))

# -O3 emulates no faster than -O2, and takes two to four times as long to compile. Tests that run the
# kernels' functions are compiled alike: a function compiled in two ways may have bits of two kinds.
$(B)/obj/emulated/%.o $(B)/obj/tests/stage_16_one_launch.o: FLAGS := $(FLAGS:-O3=-O2)
# A kernel's #pragma unroll means nothing to the C++ compiler.
$(B)/obj/emulated/%.o: %.cu | $(AFTER_SETUP)
	@mkdir -p $(@D)
	@echo "  CXX  $< (emulated)"
	$(Q)$(CXX) $(CXXFLAGS) -I. -Wno-unknown-pragmas $(if $(findstring clang,$(CXX)),-Wno-pass-failed) -MMD -MP -x c++ -c -o $@ $<
$(B)/obj/emulated/%.o: %.cpp | $(AFTER_SETUP)
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	$(Q)$(CXX) $(CXXFLAGS) -fPIC -I. -MMD -MP -c -o $@ $<

# The host code under nvcc is compiled without -march and -Wpedantic: nvcc's own output warns.
NVCCFLAGS = -std=c++20 -arch=$(CUDA_ARCH) -O3 -lineinfo -I. -Isrc --threads 1 \
            -Xcompiler -Wall,-Wextra,-fPIC $(NVCC_EXTRA) \
            $(if $(CXX),-ccbin $(if $(findstring clang,$(CXX)),g++,$(CXX)))
$(B)/obj/cuda/%.o: %.cu | $(AFTER_SETUP)
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	$(Q)$(NVCC) $(NVCCFLAGS) -MMD -MP -c -o $@ $<

$(B)/libfocus-emulated.a: $(call emulated_obj,$(KERNELS) $(CUDA_HOST) $(EMULATOR))
	@echo "  AR   $@"
	$(Q)rm -f $@ && ar rcs $@ $^

# Once more, with a call before every load and store, which cuda/simt/count.cpp counts.
$(B)/obj/counted/%.o: %.cu | $(AFTER_SETUP)
	@mkdir -p $(@D)
	@echo "  CXX  $< (counted)"
	$(Q)$(CXX) $(COUNTED_FLAGS) -Wno-unknown-pragmas $(if $(findstring clang,$(CXX)),-Wno-pass-failed) -MMD -MP -x c++ -c -o $@ $<
$(B)/obj/counted/%.o: %.cpp | $(AFTER_SETUP)
	@mkdir -p $(@D)
	@echo "  CXX  $< (counted)"
	$(Q)$(CXX) $(COUNTED_FLAGS) -MMD -MP -c -o $@ $<
COUNTED_FLAGS = $(filter-out $(FLAGS),$(CXXFLAGS)) -I. -O1 -g -DNDEBUG -fsanitize=thread
counted_obj   = $(patsubst %,$(B)/obj/counted/%.o,$(basename $(1)))

# What the kernels' lessons link with: their tests the first, their programs too, but for those that
# count accesses, which link with the second.
KERNEL_LESSONS := 08 09 10 16
COUNTED_LESSONS := 08 09 10
# Its test runs single functions of the kernels, in kernels of its own.
$(B)/obj/tests/stage_16_one_launch.o: CXXFLAGS += -Wno-unknown-pragmas
$(B)/libfocus-counted.a: $(call counted_obj,$(wildcard cuda/attention/*.cu)) \
    $(call emulated_obj,cuda/device/device.cu cuda/bench/measure.cpp $(wildcard cuda/lesson/*.cpp) \
      $(CUDA_HOST) $(EMULATOR))
	@echo "  AR   $@"
	$(Q)rm -f $@ && ar rcs $@ $^

# The test of counting is compiled like what it counts: with the thread sanitizer's calls, of which
# there is one kind only in a program.
COUNT_TEST := $(wildcard tests/test_cuda_count.cpp)
COUNTED := $(if $(filter tsan,$(MODE)),,$(COUNT_TEST))
$(B)/cuda-emulated-tests: $(call emulated_obj,$(filter-out $(COUNT_TEST),$(CUDA_TESTS))) $(call counted_obj,$(COUNTED)) $(B)/libfocus-emulated.a $(B)/libfocus.a
	$(LINK)

ifeq ($(NVCC),)
CUDA_LIBRARY := $(B)/libfocus-emulated.a
CUDA_TEST_PROGRAMS := $(B)/cuda-emulated-tests
CUDA_SUMMARY := no nvcc: the kernels are tested on the CPU
else
CUDA_RUNTIME := $(firstword $(wildcard $(dir $(realpath $(NVCC)))../lib64/libcudart_static.a \
                  $(dir $(realpath $(NVCC)))../targets/*/lib/libcudart_static.a \
                  /usr/lib/*/libcudart_static.a))
CUDA_LIBRARY := $(B)/libfocus-cuda.a $(CUDA_RUNTIME)
LDFLAGS      += -Wl,--no-as-needed -ldl -lrt -Wl,--as-needed
CUDA_TEST_PROGRAMS := $(B)/cuda-emulated-tests $(B)/cuda-tests
CUDA_SUMMARY := nvcc for $(CUDA_ARCH), $(if $(GPU),$(GPU),no GPU here: the kernels are tested on the CPU)

$(B)/libfocus-cuda.a: $(call cuda_obj,$(KERNELS)) $(call emulated_obj,$(CUDA_HOST))
	@echo "  AR   $@"
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/cuda-tests: $(call emulated_obj,$(filter-out %_emulator.cpp %_count.cpp,$(CUDA_TESTS))) $(B)/libfocus-cuda.a $(B)/libfocus.a
	@echo "  LINK $@"
	$(Q)$(CXX) $(LDFLAGS) -o $@ $^ $(CUDA_RUNTIME)

# For callers in other languages (tests/peers/attention_ratio.py).
$(B)/libfocus-attention.so: $(call cuda_obj,$(KERNELS)) $(call emulated_obj,$(CUDA_HOST) src/attention/pattern.cpp)
	@echo "  LINK $@"
	$(Q)$(CXX) $(LDFLAGS) -shared -o $@ $^ $(CUDA_RUNTIME)
endif

ifeq ($(BENCH),)
CUDA_LIBRARY :=
CUDA_TEST_PROGRAMS :=
CUDA_SUMMARY := the kernels run on the CPU; for a GPU see lesson 08
endif
# The thread sanitizer follows fibers a hundred times slower: for single tests, by hand.
CUDA_TEST_PROGRAMS := $(if $(filter tsan,$(MODE)),,$(CUDA_TEST_PROGRAMS))
