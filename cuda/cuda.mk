# The kernels of cuda/ on the CPU: compiled by the C++ compiler on top of cuda/simt/emulator.h, for
# tests and debuggers on any machine.  nvcc.mk compiles the same sources for the GPU.
#
#   libfocus-emulated.a   the kernels
#   libfocus-counted.a    the kernels with a call before every load and store, counted by
#                         cuda/simt/count.cpp

# cuda/fast is there for speed alone: no lesson before 16 needs it.
KERNELS   := $(wildcard cuda/attention/*.cu cuda/one_launch/*.cu cuda/ops/*.cu cuda/bench/*.cu \
               cuda/stepper/*.cu cuda/fast/*/*.cu cuda/device/*.cu)
CUDA_HOST := $(wildcard cuda/attention/*.cpp cuda/stepper/*.cpp)
EMULATOR  := $(wildcard cuda/simt/*.cpp cuda/fast/tensor_cores/*.cpp)
CUDA_SUMMARY := the kernels run on the CPU

# Lessons whose program links with the kernels, and those of them that count accesses.
KERNEL_LESSONS  := 08 09 10 16
COUNTED_LESSONS := 08 09 10
lesson_kernels = $(if $(filter $*,$(COUNTED_LESSONS)),$(B)/libfocus-counted.a,\
                   $(if $(filter $*,$(KERNEL_LESSONS)),$(B)/libfocus-emulated.a))

emulated_obj = $(patsubst %,$(B)/obj/emulated/%.o,$(basename $(1)))
counted_obj  = $(patsubst %,$(B)/obj/counted/%.o,$(basename $(1)))

# A kernel's #pragma unroll means nothing to the C++ compiler.
COMPILE_KERNEL = $(CXX) $(CXXFLAGS) $(addprefix -include ,$(READ_ONCE)) $(LINES) -I. \
  -Wno-unknown-pragmas $(if $(findstring clang,$(CXX)),-Wno-pass-failed) -MMD -MP -x c++ -c -o $@ $<

# The thread sanitizer puts in the calls that are counted; its library is replaced by count.cpp.
COUNTED := -O1 -g1 -DNDEBUG -fsanitize=thread

# Standard headers that g++ reads once (Makefile), with the options of each kind.
once_for = $(READ_ONCE:$(B)/obj/%=$(B)/obj/$(1)/%)
$(B)/obj/emulated/%.o: READ_ONCE := $(call once_for,emulated)
$(B)/obj/counted/%.o: READ_ONCE := $(call once_for,counted)
$(B)/obj/emulated/std.h.gch: CXXFLAGS := $(CXXFLAGS:-O3=-O2) -g1
$(B)/obj/counted/std.h.gch:  CXXFLAGS := $(filter-out -O%,$(CXXFLAGS)) $(COUNTED)

# -O3 emulates no faster than -O2 and takes two to four times as long to compile. A test that calls
# the kernels' functions is compiled alike: otherwise its results may differ in the last bit.
$(B)/obj/emulated/%.o $(B)/obj/tests/stage_16_one_launch.o: FLAGS := $(FLAGS:-O3=-O2)
# The compiler notes the lines of the code, so that a fault in a kernel can name its own.
$(B)/obj/emulated/%.o: LINES := -g1
$(B)/obj/tests/stage_16_one_launch.o: CXXFLAGS += -Wno-unknown-pragmas
$(B)/obj/tests/stage_16_one_launch.o: READ_ONCE :=
$(B)/obj/emulated/%.o: %.cu | $(AFTER_SETUP) $(addsuffix .gch,$(call once_for,emulated))
	@mkdir -p $(@D)
	@echo "  CXX  $< (emulated)"
	$(Q)$(COMPILE_KERNEL)
$(B)/obj/emulated/%.o: %.cpp | $(AFTER_SETUP)
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	$(Q)$(CXX) $(CXXFLAGS) $(addprefix -include ,$(HOST_ONCE)) $(LINES) -fPIC -I. -MMD -MP -c -o $@ $<

$(B)/libfocus-emulated.a: $(call emulated_obj,$(KERNELS) $(CUDA_HOST) $(EMULATOR))
	$(ARCHIVE)

$(B)/obj/counted/%.o: FLAGS := $(COUNTED)
$(B)/obj/counted/%.o: %.cu | $(AFTER_SETUP) $(addsuffix .gch,$(call once_for,counted))
	@mkdir -p $(@D)
	@echo "  CXX  $< (counted)"
	$(Q)$(COMPILE_KERNEL)
$(B)/obj/counted/%.o: %.cpp | $(AFTER_SETUP) $(addsuffix .gch,$(call once_for,counted))
	@mkdir -p $(@D)
	@echo "  CXX  $< (counted)"
	$(Q)$(COMPILE_KERNEL)

$(B)/libfocus-counted.a: $(call counted_obj,$(wildcard cuda/attention/*.cu cuda/fast/attention/*.cu)) \
    $(call emulated_obj,cuda/device/device.cu cuda/bench/measure.cpp $(wildcard cuda/lesson/*.cpp) \
      $(CUDA_HOST) $(EMULATOR))
	$(ARCHIVE)

include cuda/nvcc.mk
-include cuda/gpu.mk
