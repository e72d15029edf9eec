# Semantic Focus, from scratch.  `make help` lists the targets.

MODE  ?= release
ARCH  ?= native
CXX   ?= g++
SCALE ?= laptop
V     ?= 0
Q     := $(if $(filter 1,$(V)),,@)
JOBS  ?= $(shell nproc 2>/dev/null || sysctl -n hw.ncpu 2>/dev/null || echo 1)
# A make that another one starts shares its processors.
ifeq ($(findstring jobserver,$(shell echo "$$MAKEFLAGS")),)
MAKEFLAGS += -j$(JOBS)
endif

# The release build lives in build/ itself, every other mode in a folder of its own.
B := build$(if $(filter release,$(MODE)),,/$(MODE))

FLAGS_release := -O3 -DNDEBUG
FLAGS_debug   := -O0 -g
FLAGS_asan    := -O1 -g -fsanitize=address -fno-omit-frame-pointer
FLAGS_ubsan   := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
FLAGS_tsan    := -O1 -g -fsanitize=thread
FLAGS := $(FLAGS_$(MODE))
$(if $(FLAGS),,$(error MODE=$(MODE) is unknown: use release, debug, asan, ubsan or tsan))

# No fast-math: masks of minus infinity, NaN checks and reproducible curves rely on IEEE rules.
WARNINGS := -Wall -Wextra -Wpedantic $(if $(WERROR),-Werror)
# In a student's tree (it has a lesson.txt) an empty gap leaves parameters and helpers unused.
WARNINGS += $(if $(wildcard lesson.txt),-Wno-unused -Wno-unused-parameter)
# What reads behind a vector there is told so, instead of going on with what it found.
CXXFLAGS += $(if $(wildcard lesson.txt),-D_GLIBCXX_ASSERTIONS)
CXXFLAGS += -std=c++20 -march=$(ARCH) $(WARNINGS) $(FLAGS) -Isrc -I. -pthread
LDFLAGS  += $(filter -fsanitize=%,$(FLAGS)) -pthread
# -O3 is for the code that computes. Elsewhere it gains nothing and doubles the compile time.
CALM := tests lessons src/cli src/files src/report src/study
$(CALM:%=$(B)/obj/%/%.o): FLAGS := $(FLAGS:-O3=-O1)
# A student waits for the tests' main program.
$(B)/obj/tests/stage_main.o: FLAGS := $(FLAGS:-O3=-O0)

ENGINE  := $(filter-out src/cli/main.cpp,$(wildcard src/*.cpp src/*/*.cpp))
LESSONS := $(sort $(patsubst lessons/%/lesson.cpp,%,$(wildcard lessons/[0-9][0-9]-*/lesson.cpp)))
NUMBERS := $(foreach lesson,$(LESSONS),$(firstword $(subst -, ,$(lesson))))
STAGES  := $(NUMBERS:%=$(B)/stage-%)
LESSON_PROGRAMS := $(NUMBERS:%=$(B)/lesson-%)
# The program `focus` comes with lesson 03, the demo with lesson 05.
PROGRAMS := $(if $(wildcard src/cli/main.cpp),$(B)/focus) $(if $(wildcard lessons/demo.cpp),$(B)/demo)
object = $(patsubst %.cpp,$(B)/obj/%.o,$(1))
per_lesson = $(foreach command,$(1),$(NUMBERS:%=$(command)-%))

.DEFAULT_GOAL := all
.PHONY: all setup demo test clean help progress watch $(call per_lesson,test lesson hint solution) \
        lesson-00 hint-00 solution-00 always
.SECONDARY:

CUDA_SUMMARY := comes with lesson 08: everything runs on the CPU
NEXT         := make test, make progress

#: make             build everything
all: $(PROGRAMS) $(LESSON_PROGRAMS)
	@echo
	@echo "compiler  $(shell $(CXX) --version 2>/dev/null | head -n 1), $(MODE) build in $(B)/"
	@echo "CUDA      $(CUDA_SUMMARY)"
	@echo "next      $(NEXT)"

#: make setup       install what is missing (compiler, libraries, gnuplot, pandoc)
setup:
	@tests/setup.sh
# `make setup demo` first installs, then builds, even with -j.
AFTER_SETUP := $(filter setup,$(MAKECMDGOALS))

# --- building -------------------------------------------------------------------------------------

# Below, $$ waits until the file's or lesson's number's stem, $*, is known.
.SECONDEXPANSION:

# A third of most files' compile time would be the same standard headers again and again: g++ reads
# them once for each set of options (what it read with -O1 makes it crash with -O3). Not under ccache,
# which then keeps nothing, nor in a student's tree that came with the checkout's objects: there is
# little to compile. clang and the other modes see what each file includes itself; so does ONCE=.
ONCE ?= 1
STD := algorithm array atomic cmath cstdint cstring deque filesystem functional map memory mutex \
       optional set sstream string thread vector
IS_CCACHE := $(findstring ccache,$(realpath $(shell command -v $(firstword $(CXX)) 2> /dev/null)))
REUSED := $(if $(wildcard $(B)/obj/std.h.gch),,$(and $(wildcard lesson.txt),\
            $(wildcard $(B)/obj/tests/stage_main.o)))
ifeq ($(ONCE)$(MODE)$(findstring clang,$(CXX))$(IS_CCACHE)$(REUSED),1release)
READ_ONCE := $(B)/obj/std.h
# Of strings whose header was read before, g++ 12 warns falsely.
CXXFLAGS += $(addprefix -Wno-,array-bounds restrict stringop-overflow stringop-overread)
$(CALM:%=$(B)/obj/%/%.o): READ_ONCE := $(B)/obj/calm.h
ALONE := tests/stage_main
$(B)/obj/tests/stage_main.o: READ_ONCE :=
read_once = $(if $(filter $(ALONE),$(1)),,$(B)/obj/$(if $(filter $(CALM:%=%/%),$(1)),calm,std).h.gch)
endif
# Not with the options of the object that asks first.
$(B)/obj/std.h.gch:  CXXFLAGS := $(CXXFLAGS)
$(B)/obj/calm.h.gch: CXXFLAGS := $(CXXFLAGS:-O3=-O1)
$(B)/obj/%.h.gch: | $(AFTER_SETUP)
	@mkdir -p $(@D) && printf '#include <%s>\n' $(STD) > $(@:.gch=)
	$(Q)$(CXX) $(CXXFLAGS) -x c++-header -o $@ $(@:.gch=)

$(B)/obj/%.o: %.cpp | $(AFTER_SETUP) $$(call read_once,$$*)
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	$(Q)$(CXX) $(CXXFLAGS) $(addprefix -include ,$(READ_ONCE)) -MMD -MP -c -o $@ $<

ARCHIVE = @echo "  AR   $@"; $(if $(filter 1,$(V)),set -x;) rm -f $@ && ar rcs $@ $^
LINK    = @echo "  LINK $@"; $(if $(filter 1,$(V)),set -x;) $(CXX) $(LDFLAGS) -o $@ $^ $(LDLIBS)

# The kernels, from lesson 08 on: CUDA_BENCH and CUDA_LIBRARY for focus, lesson_kernels for the
# lessons.
-include cuda/cuda.mk

# SentencePiece, from lesson 15 on and optional: it learns the paper's tokenizer. SENTENCEPIECE= builds
# without it.
ifneq ($(wildcard src/text/sentencepiece.cpp),)
SENTENCEPIECE = $(shell pkg-config --libs sentencepiece 2>/dev/null)
$(B)/obj/src/text/sentencepiece.o: CXXFLAGS += $(if $(SENTENCEPIECE),-DFOCUS_SENTENCEPIECE \
  $(shell pkg-config --cflags sentencepiece 2>/dev/null))
$(B)/obj/src/text/sentencepiece.o: $(B)/obj/sentencepiece.txt
$(B)/obj/sentencepiece.txt: always | $(AFTER_SETUP)
	@mkdir -p $(@D) && echo '$(SENTENCEPIECE)' | cmp -s - $@ || echo '$(SENTENCEPIECE)' > $@
only_where_used := -Wl,--as-needed
LDLIBS += $(if $(SENTENCEPIECE),$(only_where_used) $(SENTENCEPIECE))
endif

$(B)/libfocus.a: $(call object,$(ENGINE))
	$(ARCHIVE)
$(B)/focus: $(call object,src/cli/main.cpp) $(CUDA_BENCH) $(B)/libfocus.a $(CUDA_LIBRARY)
	$(LINK)

$(LESSON_PROGRAMS): $(B)/lesson-%: $$(call object,$$(wildcard lessons/$$*-*/lesson.cpp)) \
    $$(lesson_kernels) $(B)/libfocus.a
	$(LINK)
# The demo and a stage are linked with what they need and no more, so that their first answer comes soon.
objects_of = $(call object,$(filter-out cuda/%,$(1))) $(call emulated_obj,$(filter cuda/%,$(1)))
$(STAGES): $(B)/stage-%: \
    $$(call objects_of,$$(shell tests/needs.sh tests/stage_main.cpp $$(wildcard tests/stage_$$*_*.cpp)))
	$(LINK)
$(B)/demo: $$(call objects_of,$$(shell tests/needs.sh lessons/demo.cpp))
	$(LINK)

# Lesson 00 is one file and needs nothing else. PAGE=FILE takes another version of it.
PAGE ?= lessons/00-one-page/focus.cpp
blank := $(subst x,,x x)
$(B)/obj/page.txt: always
	@mkdir -p $(@D) && echo '$(PAGE)' | cmp -s - $@ || echo '$(PAGE)' > $@
$(B)/lesson-00: $(subst $(blank),\$(blank),$(PAGE)) $(B)/obj/page.txt
	@echo "  LINK $@"
	$(Q)$(CXX) $(filter-out -I%,$(CXXFLAGS)) $(LDFLAGS) -o $@ '$(PAGE)'

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)

# --- a lesson -------------------------------------------------------------------------------------

#: make demo        four attention mechanisms learn even pairs side by side, in a minute or two
demo: $(B)/demo
	@$(B)/demo

#: make lesson-NN   run a lesson; SCALE=paper for the paper's scale
# At the paper's scale of most lessons `focus study` makes the runs (lessons/paper_scale.sh).
made_by_focus = $(and $(filter paper,$(SCALE)),$(wildcard lessons/$*-*/paper.csv lessons/$*-*/paper.sh))
$(NUMBERS:%=lesson-%): lesson-%: $(B)/lesson-% $$(if $$(made_by_focus),$(B)/focus)
	@$(if $(made_by_focus),lessons/paper_scale.sh $* $(B),$(B)/lesson-$* --scale $(SCALE))
lesson-00: $(B)/lesson-00
	@$(B)/lesson-00

#: make test        every check this machine can do; ends with N passed, N failed
TEST_PROGRAMS := $(STAGES)
test: $(STAGES)
	@tests/run.sh $(TEST_PROGRAMS)

#: make test-NN     the test of lesson NN and of the lessons before it
$(NUMBERS:%=test-%): test-%: $(B)/stage-%
	@lessons/kit/student.sh files $*
	@+MAKE='$(MAKE)' tests/run.sh $< -- $$(for n in $(NUMBERS); do [ $$n -ge $* ] || echo $(B)/stage-$$n; done)
	@lessons/kit/student.sh passed $*

#: make hint-NN     the next step of help for a gap      (GAP=name STEP=1..3)
$(NUMBERS:%=hint-%): hint-%:
	@lessons/kit/student.sh hint $*
#: make progress    which gaps are filled, which lessons passed
progress:
	@lessons/kit/student.sh progress
#: make watch       build and test at each save           (LESSON=05)
watch:
	@MAKEFLAGS= lessons/kit/student.sh watch $(LESSON)
#: make solution-NN our code for the gaps                 (GAP=name, ASK=1 before success)
$(NUMBERS:%=solution-%): solution-%:
	@MAKEFLAGS= lessons/kit/student.sh solution $*
hint-00 solution-00:
	@echo "lesson 00 is complete: there is nothing to fill in. Read lessons/00-one-page/README.md"

#: make clean       remove build/ and out/
clean:
	rm -rf build/* out
#:
#: MODE=release|debug|asan|ubsan|tsan   which build
#: CXX=clang++  ARCH=native  WERROR=1  JOBS=N  V=1

# The lines above that begin with a colon, and those of the other makefiles.
help:
	@sed -n 's/^#: \{0,1\}//p' $(filter-out %.d,$(MAKEFILE_LIST))

# In the full checkout: students' trees, all tests, grades, the book, the recorded results.
-include lessons/kit/authors.mk
