# Semantic Focus, from scratch.  `make help` lists the targets.
#
#   MODE=release|debug|asan|ubsan|tsan   which build (default release)
#   CXX=g++|clang++                      which compiler
#   WERROR=1                             warnings are errors
#   V=1                                  show the commands
#   ARCH=native                          the processor to build for (-march)

MODE ?= release
ARCH ?= native
CXX  ?= g++
V    ?= 0
Q    := $(if $(filter 1,$(V)),,@)

# The release build lives in build/ itself, every other mode in a folder of its own.
B := build$(if $(filter release,$(MODE)),,/$(MODE))

WARNINGS := -Wall -Wextra -Wpedantic $(if $(WERROR),-Werror)
FLAGS_release := -O3 -DNDEBUG
FLAGS_debug   := -O0 -g
FLAGS_asan    := -O1 -g -fsanitize=address -fno-omit-frame-pointer
FLAGS_ubsan   := -O1 -g -fsanitize=undefined -fno-sanitize-recover=all
FLAGS_tsan    := -O1 -g -fsanitize=thread
FLAGS := $(FLAGS_$(MODE))
$(if $(FLAGS),,$(error MODE=$(MODE) is unknown: use release, debug, asan, ubsan or tsan))

# No fast-math: masks of minus infinity, NaN checks and reproducible curves rest on IEEE rules.
CXXFLAGS += -std=c++20 -march=$(ARCH) $(WARNINGS) $(FLAGS) -Isrc -pthread
LDFLAGS  += $(filter -fsanitize=%,$(FLAGS)) -pthread

ENGINE  := $(filter-out src/cli/main.cpp,$(wildcard src/*.cpp src/*/*.cpp))
UNITS   := $(wildcard tests/test_*.cpp)
STAGES  := $(wildcard tests/stage_*.cpp)
object   = $(patsubst %.cpp,$(B)/obj/%.o,$(1))

.DEFAULT_GOAL := all
.PHONY: all setup test demo bench clean help
.SECONDARY:

all: $(B)/focus

$(B)/libfocus.a: $(call object,$(ENGINE))
	@echo "  AR   $@"
	$(Q)rm -f $@ && ar rcs $@ $^

$(B)/focus: $(call object,src/cli/main.cpp) $(B)/libfocus.a
	@echo "  LINK $@"
	$(Q)$(CXX) $(LDFLAGS) -o $@ $^

$(B)/unit-tests: $(call object,tests/main.cpp $(UNITS)) $(B)/libfocus.a
	@echo "  LINK $@"
	$(Q)$(CXX) $(LDFLAGS) -o $@ $^

$(B)/stage-%: $(B)/obj/tests/stage_%.o $(call object,tests/main.cpp) $(B)/libfocus.a
	@echo "  LINK $@"
	$(Q)$(CXX) $(LDFLAGS) -o $@ $^

$(B)/obj/%.o: %.cpp
	@mkdir -p $(@D)
	@echo "  CXX  $<"
	$(Q)$(CXX) $(CXXFLAGS) -MMD -MP -c -o $@ $<

clean:
	rm -rf build out

-include $(shell find $(B)/obj -name '*.d' 2>/dev/null)
