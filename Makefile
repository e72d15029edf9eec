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
# A student's tree (lesson.txt says which): what only an empty gap would use is unused.
STUDENT  := $(wildcard lesson.txt)
WARNINGS += $(if $(STUDENT),-Wno-unused -Wno-unused-parameter)
CXXFLAGS += -std=c++20 -march=$(ARCH) $(WARNINGS) $(FLAGS) -Isrc -I. -pthread
LDFLAGS  += $(filter -fsanitize=%,$(FLAGS)) -pthread
# -O3 is for what computes; elsewhere it makes nothing faster, and compiling takes twice as long.
$(foreach calm,tests lessons src/cli src/files src/report src/study,$(B)/obj/$(calm)/%.o): \
  FLAGS := $(FLAGS:-O3=-O1)

ENGINE  := $(filter-out src/cli/main.cpp,$(wildcard src/*.cpp src/*/*.cpp))
UNITS   := $(filter-out tests/test_cuda_%,$(wildcard tests/test_*.cpp))
LESSONS := $(shell sed -n 's/.*"folder": *"\([^"]*\)".*/\1/p' lessons/manifest.json 2>/dev/null)
LESSONS := $(or $(LESSONS),$(patsubst lessons/%,%,$(wildcard lessons/[0-9][0-9]-*)))
NUMBERS := $(foreach lesson,$(LESSONS),$(firstword $(subst -, ,$(lesson))))
STAGES  := $(NUMBERS:%=$(B)/stage-%)
PROGRAM := $(if $(wildcard src/cli/main.cpp),$(B)/focus)
DEMO    := $(if $(wildcard lessons/demo.cpp),$(B)/demo)
FUZZERS := $(patsubst tests/%.cpp,$(B)/%,$(wildcard tests/fuzz_*.cpp))
object   = $(patsubst %.cpp,$(B)/obj/%.o,$(1))

.DEFAULT_GOAL := all
PER_LESSON := $(foreach do,start test hint solution lesson demo diff,$(NUMBERS:%=$(do)-%))
comma := ,
.PHONY: all setup test demo bench check-authors clean help progress watch grade tables report $(PER_LESSON)
.SECONDARY:

all: $(PROGRAM) $(DEMO) $(NUMBERS:%=$(B)/lesson-%)
	@echo
	@echo "compiler  $(shell $(CXX) --version 2>/dev/null | head -n 1), $(MODE) build in $(B)/"
	@echo "CUDA      $(or $(CUDA_SUMMARY),comes with a later lesson: everything runs on the CPU)"
	@echo "next      $(if $(STUDENT),make test$(comma) make progress,make demo$(comma) make test$(comma) make lesson-01)"

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

# The kernels; without that folder everything else builds.
-include cuda/cuda.mk

$(B)/focus: $(call object,src/cli/main.cpp) $(CUDA_BENCH) $(B)/libfocus.a $(CUDA_LIBRARY)
	$(LINK)
$(B)/demo: $(call object,lessons/demo.cpp) $(B)/libfocus.a
	$(LINK)
KIT_SOURCES := $(wildcard lessons/kit/*.cpp)
$(B)/unit-tests: $(call object,tests/main.cpp $(UNITS) $(filter-out %/main.cpp,$(KIT_SOURCES))) $(B)/libfocus.a
	$(LINK)
$(B)/fuzz_%: $(B)/obj/tests/fuzz_%.o $(B)/libfocus.a
	$(LINK)
with_kernels = $(if $(filter $(1),$(KERNEL_LESSONS)),$(B)/libfocus-$(2).a)
define LESSON_RULES
$(B)/lesson-$(1): $(call object,$(wildcard lessons/$(1)-*/lesson.cpp)) $(call with_kernels,$(1),$(if $(filter $(1),$(COUNTED_LESSONS)),counted,emulated)) $(B)/libfocus.a
	$$(LINK)
$(B)/stage-$(1): $(call object,tests/stage_main.cpp $(wildcard tests/stage_$(1)_*.cpp)) $(call with_kernels,$(1),emulated) $(B)/libfocus.a
	$$(LINK)
endef
$(foreach number,$(NUMBERS),$(eval $(call LESSON_RULES,$(number))))

-include lessons/book/book.mk

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)

# --- for users --------------------------------------------------------------------------------------

setup:
	@tests/setup.sh

demo: $(B)/demo
	@$(B)/demo

$(NUMBERS:%=lesson-%): lesson-%: $(B)/lesson-%
	@$(B)/lesson-$* --scale $(SCALE)

# For instructors: at most a minute; REPLAY=1 plays the recorded run.
$(NUMBERS:%=demo-%): demo-%: $(B)/lesson-%
	@$(B)/lesson-$* $(if $(filter 1,$(REPLAY)),--replay,--scale demo)

bench: $(B)/focus
	@tests/bench.sh $(B)/focus

# --- tests ------------------------------------------------------------------------------------------

# Every test program prints its failures; the last line is the sum: N passed, N failed. The one that
# takes longest comes first, as they run side by side.
TEST_PROGRAMS = $(CUDA_TEST_PROGRAMS) $(if $(UNITS),$(B)/unit-tests) $(STAGES) $(FUZZERS)
test: $(PROGRAM) $(TEST_PROGRAMS)
	@FOCUS=$(B)/focus tests/run.sh $(TEST_PROGRAMS) $(wildcard tests/slurm/run_slurm_test.sh)

# A stage's test and those of the stages it stands on.
# In a student's tree it says which files are under test, and remembers success.
$(NUMBERS:%=test-%): test-%: $(STAGES)
	@lessons/kit/student.sh files $*
	@tests/run.sh $$(for n in $(NUMBERS); do [ $$n -gt $* ] || echo $(B)/stage-$$n; done)
	@lessons/kit/student.sh passed $*

# --- the learning kit -----------------------------------------------------------------------------

$(NUMBERS:%=hint-%): hint-%: $(if $(STUDENT),,$(B)/kit)
	@lessons/kit/student.sh hint $*
$(NUMBERS:%=solution-%): solution-%:
	@lessons/kit/student.sh solution $*
progress:
	@lessons/kit/student.sh progress
watch:
	@lessons/kit/student.sh watch $(LESSON)

#@ authors
# Only the full checkout has the program that makes students' trees.
$(B)/kit: $(call object,$(KIT_SOURCES) src/files/atomic_file.cpp src/report/statistics.cpp)
	$(LINK)

$(NUMBERS:%=start-%): start-%: $(B)/kit
	@$(B)/kit start $* $(or $(DIR),work/$(filter $*-%,$(LESSONS)))

# What a lesson adds to the one before it.
$(NUMBERS:%=diff-%): diff-%: $(B)/kit
	@lessons/kit/diff.sh $(B)/kit $* $(NUMBERS)

grade: $(B)/kit
	@[ -n "$(DIR)" ] || { echo "which submissions? make grade DIR=folder [LESSON=05] [JSON=file]"; exit 2; }
	@$(B)/kit grade $(DIR) $(if $(LESSON),--lesson $(LESSON)) --json $(or $(JSON),grades.json)

tables: $(B)/kit
	@$(B)/kit tables

# Every figure, verdict and README's table of lessons, from the recorded files alone.
report: $(B)/kit $(NUMBERS:%=$(B)/lesson-%)
	@for n in $(NUMBERS); do $(B)/lesson-$$n --redraw || exit; done
	@$(B)/kit tables
#@ end

# What the authors check: wrong versions are caught, the sources are formatted.
check-authors: $(B)/libfocus.a $(B)/kit $(B)/focus $(B)/attention $(NUMBERS:%=$(B)/lesson-%)
	@tests/check_authors.sh

clean:
	rm -rf build out

help:
	@echo "make setup       install what is missing (compiler, libraries, gnuplot, pandoc)"
	@echo "make             build what is here"
#@ authors
	@echo "make demo        four attention mechanisms learn even pairs side by side, in about a minute"
#@ end
	@echo "make test        every check this machine can do; ends with N passed, N failed"
	@echo "make test-NN     the test of stage NN and of the stages it stands on  ($(NUMBERS))"
	@echo "make lesson-NN   run a lesson; SCALE=paper for the paper's scale"
#@ authors
	@echo "make attention   a page that shows what each query attends to while the model learns"
	@echo "make book        the lessons as a site to read, in out/book/ (needs pandoc)"
	@echo "make bench       tables of speed"
#@ end
	@echo "make clean       remove build/ and out/"
	@echo
	@echo "To build it yourself, lesson by lesson:"
#@ authors
	@echo "make start-NN    a working tree with the gaps of lesson NN, in work/ or DIR=folder"
#@ end
	@echo "make hint-NN     the next step of help for a gap      (GAP=name STEP=1..3)"
	@echo "make progress    which gaps are filled, which lessons passed"
	@echo "make watch       build and test at each save           (LESSON=05)"
	@echo "make solution-NN our code for the gaps                 (GAP=name, ASK=1 before success)"
#@ authors
	@echo
	@echo "To teach:"
	@echo "make demo-NN     the lesson in at most a minute; REPLAY=1 plays the recorded run"
	@echo "make grade DIR=folder   points for a submission or a folder of them, and grades.json"
	@echo "make diff-NN     what lesson NN adds to the code of the lesson before"
	@echo
	@echo "To change it:"
	@echo "make check-authors   wrong code is caught, every lesson's tree works, what is generated is current"
	@echo "make report      figures, verdicts and README's table from the recorded results, in seconds"
	@echo "make tables      the tables of measured numbers in README and the lessons, from recorded results"
#@ end
	@echo
	@echo "MODE=release|debug|asan|ubsan|tsan   which build"
	@echo "CXX=clang++  ARCH=native  WERROR=1  JOBS=N  V=1"
