# Semantic Focus, from scratch.  `make help` lists the targets.

MODE  ?= release
ARCH  ?= native
CXX   ?= g++
SCALE ?= laptop
V     ?= 0
Q     := $(if $(filter 1,$(V)),,@)
JOBS  ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)
MAKEFLAGS += -j$(JOBS)

# The release build lives in build/ itself, every other mode in a folder of its own.
B := build$(if $(filter release,$(MODE)),,/$(MODE))

FLAGS_release := -O3 -DNDEBUG
FLAGS_debug   := -O0 -g
FLAGS_asan    := -O1 -g -fsanitize=address -fno-omit-frame-pointer
FLAGS_ubsan   := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
FLAGS_tsan    := -O1 -g -fsanitize=thread
FLAGS := $(FLAGS_$(MODE))
$(if $(FLAGS),,$(error MODE=$(MODE) is unknown: use release, debug, asan, ubsan or tsan))

# No fast-math: masks of minus infinity, NaN checks and reproducible curves rest on IEEE rules.
WARNINGS := -Wall -Wextra -Wpedantic $(if $(WERROR),-Werror)
CXXFLAGS += -std=c++20 -march=$(ARCH) $(WARNINGS) $(FLAGS) -Isrc -pthread
LDFLAGS  += $(filter -fsanitize=%,$(FLAGS)) -pthread

ENGINE  := $(filter-out src/cli/main.cpp,$(wildcard src/*.cpp src/*/*.cpp))
UNITS   := $(filter-out tests/test_cuda_%,$(wildcard tests/test_*.cpp))
LESSONS := $(patsubst lessons/%,%,$(wildcard lessons/[0-9][0-9]-*))
NUMBERS := $(foreach lesson,$(LESSONS),$(firstword $(subst -, ,$(lesson))))
STAGES  := $(NUMBERS:%=$(B)/stage-%)
FUZZERS := $(patsubst tests/%.cpp,$(B)/%,$(wildcard tests/fuzz_*.cpp))
object   = $(patsubst %.cpp,$(B)/obj/%.o,$(1))

.DEFAULT_GOAL := all
.PHONY: all setup test demo bench check-authors clean help $(NUMBERS:%=test-%) $(NUMBERS:%=lesson-%)
.SECONDARY:

all: $(B)/focus $(B)/demo $(NUMBERS:%=$(B)/lesson-%)
	@echo
	@echo "compiler  $(shell $(CXX) --version 2>/dev/null | head -n 1), $(MODE) build in $(B)/"
	@echo "CUDA      $(CUDA_SUMMARY)"
	@echo "next      make demo, make test, make lesson-01"

# --- building -------------------------------------------------------------------------------------

# `make setup demo` installs first and builds then, whatever -j says.
AFTER_SETUP := $(filter setup,$(MAKECMDGOALS))

$(B)/obj/%.o: %.cpp | $(AFTER_SETUP)
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	$(Q)$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

$(B)/libfocus.a: $(call object,$(ENGINE))
	@echo "  AR   $@"
	$(Q)rm -f $@ && ar rcs $@ $^

LINK = @echo "  LINK $@"; $(if $(filter 1,$(V)),set -x;) $(CXX) $(LDFLAGS) -o $@ $^

$(B)/focus: $(call object,src/cli/main.cpp) $(B)/libfocus.a
	$(LINK)
$(B)/demo: $(call object,lessons/demo.cpp) $(B)/libfocus.a
	$(LINK)
$(B)/unit-tests: $(call object,tests/main.cpp $(UNITS)) $(B)/libfocus.a
	$(LINK)
$(B)/fuzz_%: $(B)/obj/tests/fuzz_%.o $(B)/libfocus.a
	$(LINK)
define LESSON_RULES
$(B)/lesson-$(1): $(call object,$(wildcard lessons/$(1)-*/lesson.cpp)) $(B)/libfocus.a
	$$(LINK)
$(B)/stage-$(1): $(call object,tests/main.cpp $(wildcard tests/stage_$(1)_*.cpp)) $(B)/libfocus.a
	$$(LINK)
endef
$(foreach number,$(NUMBERS),$(eval $(call LESSON_RULES,$(number))))

include cuda/cuda.mk
-include lessons/book/book.mk

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)

# --- for users --------------------------------------------------------------------------------------

setup:
	@tests/setup.sh

demo: $(B)/demo
	@$(B)/demo

$(NUMBERS:%=lesson-%): lesson-%: $(B)/lesson-%
	@$(B)/lesson-$* --scale $(SCALE)

bench: $(B)/focus
	@tests/bench.sh $(B)/focus

# --- tests ------------------------------------------------------------------------------------------

# Every test program prints its failures; the last line is the sum: N passed, N failed.
test: $(B)/unit-tests $(B)/focus $(STAGES) $(FUZZERS) $(CUDA_TEST_PROGRAMS)
	@FOCUS=$(B)/focus tests/run.sh $(B)/unit-tests $(STAGES) $(FUZZERS) $(CUDA_TEST_PROGRAMS)

# A stage's test and those of the stages it stands on.
$(NUMBERS:%=test-%): test-%: $(STAGES)
	@tests/run.sh $$(for n in $(NUMBERS); do [ $$n -gt $* ] || echo $(B)/stage-$$n; done)

# What the authors check: wrong versions are caught, the sources are formatted.
check-authors: $(B)/libfocus.a
	@tests/check_authors.sh

clean:
	rm -rf build out

help:
	@echo "make setup       install what is missing (compiler, libraries, gnuplot)"
	@echo "make             build the program, the demo and the lessons"
	@echo "make demo        four attention mechanisms learn even pairs side by side, in about a minute"
	@echo "make test        every check this machine can do; ends with N passed, N failed"
	@echo "make test-NN     the test of stage NN and of the stages it stands on  ($(NUMBERS))"
	@echo "make lesson-NN   run a lesson; SCALE=paper for the paper's scale"
	@echo "make attention   a page that shows what each query attends to while the model learns"
	@echo "make book        the lessons as a site to read, in out/book/ (needs pandoc)"
	@echo "make bench       tables of speed"
	@echo "make check-authors   the tests catch wrong code; the sources are formatted"
	@echo "make clean       remove build/ and out/"
	@echo
	@echo "MODE=release|debug|asan|ubsan|tsan   which build"
	@echo "CXX=clang++  ARCH=native  WERROR=1  JOBS=N  V=1"
