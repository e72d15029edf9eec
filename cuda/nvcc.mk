# The compiler for the GPU, and a lesson's kernels on this machine's GPU.
#
# CUDA_ARCH picks the GPU: sm_90, … ; default: the one in this machine. Without one the kernels are
# compiled in a hurry, to see that nvcc takes them: the driver of a GPU runs them, slowly.
# NVCC= (empty) builds as if there were no nvcc.

NVCC ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
GPU  := $(shell names=$$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null) && echo "$$names" | head -n 1)
CUDA_ARCH ?= $(if $(GPU),native,compute_75)

# In a student's tree nvcc is asked only where its kernels go to a GPU.
NVCC_FOR := $(filter $(if $(wildcard cuda/gpu.mk),%,gpu-%),\
              $(filter-out help clean setup demo start-% hint-% solution-%,$(or $(MAKECMDGOALS),all)))
ifneq ($(and $(NVCC),$(NVCC_FOR)),)
# From nvcc 12.9 on; a third of the time.
NVCC_HURRY := $(if $(filter compute_%,$(CUDA_ARCH)),$(shell $(NVCC) --help 2>/dev/null | \
                grep -q Ofast-compile && echo --Ofast-compile=max))
# Host code under nvcc is compiled without -march and -Wpedantic: the code that nvcc generates warns.
NVCCFLAGS := -std=c++20 -arch=$(CUDA_ARCH) -O$(if $(NVCC_HURRY),0,3) -lineinfo $(NVCC_HURRY) \
             -I. -Isrc --threads 1 -Xcompiler -Wall,-Wextra,-fPIC $(NVCC_EXTRA)
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

ifeq ($(CUDA_WORKS),yes)
CUDA_RUNTIME := $(firstword $(wildcard $(dir $(realpath $(NVCC)))../lib64/libcudart_static.a \
                  $(dir $(realpath $(NVCC)))../targets/*/lib/libcudart_static.a \
                  /usr/lib/*/libcudart_static.a))
LDFLAGS += -Wl,--no-as-needed -ldl -lrt -Wl,--as-needed

cuda_obj = $(patsubst %,$(B)/obj/cuda/%.o,$(basename $(1)))
$(B)/obj/cuda/%.o: %.cu | $(AFTER_SETUP)
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	$(Q)$(NVCC) $(NVCCFLAGS) $(NVCC_HOST) -MMD -MP -c -o $@ $<
endif

#: make gpu-NN      lesson NN's kernels on this machine's GPU: its test, then their time
.PHONY: $(NUMBERS:%=gpu-%)
$(filter-out $(KERNEL_LESSONS:%=gpu-%),$(NUMBERS:%=gpu-%)): gpu-%:
	@echo "lesson $* has no kernels of its own"
ifeq ($(and $(GPU),$(filter yes,$(CUDA_WORKS))),)
$(filter $(KERNEL_LESSONS:%=gpu-%),$(NUMBERS:%=gpu-%)): gpu-%:
	@echo "no $(if $(GPU),nvcc that works,GPU) here: make test-$* runs the kernels on the CPU"
else
# A test that has kernels of its own is compiled by nvcc, too.
WITH_KERNELS := tests/stage_16_one_launch.cpp
gpu_needs = $(filter-out cuda/simt/% $(EMULATOR),$(shell tests/needs.sh $(1)))
gpu_objects = $(call object,$(filter-out cuda/% $(WITH_KERNELS),$(1))) \
  $(call cuda_obj,$(filter %.cu $(WITH_KERNELS),$(1))) \
  $(call emulated_obj,$(filter cuda/%.cpp,$(1))) $(CUDA_RUNTIME)
$(B)/obj/cuda/tests/%.o: tests/%.cpp
	@mkdir -p $(@D)
	@echo "  NVCC $<"
	$(Q)$(NVCC) $(NVCCFLAGS) $(NVCC_HOST) -MMD -MP -x cu -c -o $@ $<
$(KERNEL_LESSONS:%=$(B)/gpu-stage-%): $(B)/gpu-stage-%: $$(call gpu_objects,$$(call gpu_needs,\
    tests/stage_main.cpp $$(wildcard tests/stage_$$*_*.cpp)))
	$(LINK)
$(B)/time-kernels: $$(call gpu_objects,$$(call gpu_needs,lessons/time_kernels.cpp))
	$(LINK)
# An empty gap would stop the GPU without a word: where there is one nothing is built.
filled = $(shell lessons/kit/student.sh filled $* > /dev/null 2>&1 && echo yes)
$(filter $(KERNEL_LESSONS:%=gpu-%),$(NUMBERS:%=gpu-%)): gpu-%: \
    $$(if $$(filled),$(B)/gpu-stage-% $(B)/time-kernels)
	@lessons/kit/student.sh filled $*
	@$(B)/gpu-stage-$* && $(B)/time-kernels $*
endif
