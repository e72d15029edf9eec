# What only the full checkout has: the program that makes students' trees, the unit tests, the
# instructors' and the authors' targets. Included at the end of the Makefile.

NEXT := make demo, make test, make lesson-01

.PHONY: bench check-authors grade stress tables report $(call per_lesson,start demo diff) \
        start-00 test-00 demo-00

# A student waits for the kit and nobody for its code.
$(B)/obj/lessons/kit/%.o: FLAGS := $(FLAGS:-O3=-O0)
KIT_PARTS := lessons/kit/gaps.cpp lessons/kit/manifest.cpp lessons/kit/tree.cpp src/files/atomic_file.cpp
$(B)/kit: $(call object,lessons/kit/main.cpp $(KIT_PARTS) src/suggest.cpp)
	$(LINK)
# Headers are read once (Makefile), by the tests doctest's too. The kit's few files come sooner without;
# the test of lesson 16 has options of its own; what asks for doctest's main() asks before its header.
ifneq ($(READ_ONCE),)
ALONE += lessons/kit/% src/files/atomic_file src/suggest tests/main tests/stage_16_one_launch
$(ALONE:%=$(B)/obj/%.o): READ_ONCE :=
TEST_OBJECTS := $(filter-out $(ALONE:%=$(B)/obj/%.o),$(call object,$(wildcard tests/stage_*.cpp tests/test_*.cpp)))
$(TEST_OBJECTS): READ_ONCE := $(B)/obj/tests.h
$(TEST_OBJECTS): | $(B)/obj/tests.h.gch
$(B)/obj/tests.h.gch: CXXFLAGS := $(CXXFLAGS:-O3=-O1)
$(B)/obj/tests.h.gch: STD += doctest/doctest.h
endif

GRADER_SOURCES := $(wildcard lessons/kit/grader/*.cpp)
$(B)/grader: $(call object,$(GRADER_SOURCES) $(KIT_PARTS))
	$(LINK)
TABLES_SOURCES := $(wildcard lessons/kit/tables/*.cpp)
$(B)/tables: $(call object,$(TABLES_SOURCES) $(KIT_PARTS) src/files/rows.cpp src/report/statistics.cpp)
	$(LINK)

#:
#: To build it yourself, lesson by lesson:
#: make start-NN    a working tree with the gaps of lesson NN, in work/ or DIR=folder
$(NUMBERS:%=start-%): start-%: $(B)/kit
	@tree="$${DIR:-work/$(filter $*-%,$(LESSONS))}"; $(B)/kit start $* "$$tree" && \
	  tests/reuse_objects.sh "$$tree"
$(NUMBERS:%=hint-%): $(B)/kit

# Lesson 00 has no gaps: a folder with its file to play with, whose makefile calls this one.
PAGE_FOLDER = $${DIR:-work/00-one-page}
start-00:
	@[ ! -e "$(PAGE_FOLDER)" ] || { echo "$(PAGE_FOLDER) exists already: go on there, or give another folder: make start-00 DIR=…"; exit 2; }
	@mkdir -p "$(PAGE_FOLDER)" && cp lessons/00-one-page/focus.cpp lessons/00-one-page/README.md "$(PAGE_FOLDER)"
	@printf '%s\n' 'lesson-00 test-00 hint-00 solution-00:' \
	  '	@$$(MAKE) --no-print-directory -C "$(CURDIR)" $$@ PAGE="$$(CURDIR)/focus.cpp"' > "$(PAGE_FOLDER)/Makefile"
	@printf '%s\n' "Lesson 00 is in $(PAGE_FOLDER)" "  cd \"$(PAGE_FOLDER)\"" "  less focus.cpp" \
	  "  make lesson-00   # your version; make test-00 compares it with the engine"

# --- tests ----------------------------------------------------------------------------------------

# The page is compared with the whole engine, which no student's tree of that lesson has.
STAGES += $(B)/stage-00
$(B)/obj/tests/stage_00_one_page.o: $(B)/obj/page.txt
$(B)/obj/tests/stage_00_one_page.o: CXXFLAGS += -DFOCUS_PAGE='"$(if $(filter /%,$(PAGE)),,$(CURDIR)/)$(PAGE)"'
$(B)/stage-00: $(call object,tests/stage_main.cpp tests/stage_00_one_page.cpp) $(B)/libfocus.a
	$(LINK)
test-00: $(B)/stage-00 $(B)/lesson-00
	@tests/run.sh $(B)/stage-00

UNITS   := $(filter-out tests/test_cuda_%,$(wildcard tests/test_*.cpp))
FUZZERS := $(patsubst tests/%.cpp,$(B)/%,$(wildcard tests/fuzz_*.cpp))
$(B)/unit-tests: $(call object,tests/main.cpp $(UNITS) $(filter lessons/%,$(KIT_PARTS)) \
    $(filter-out %/main.cpp,$(GRADER_SOURCES))) $(B)/libfocus.a
	$(LINK)
$(B)/fuzz_%: $(B)/obj/tests/fuzz_%.o $(B)/libfocus.a
	$(LINK)

# They run side by side; those that take longest begin.
TEST_PROGRAMS := $(CUDA_TEST_PROGRAMS) $(B)/unit-tests $(STAGES) $(FUZZERS) \
                 $(wildcard tests/slurm/run_slurm_test.sh)
test: export FOCUS := $(B)/focus
test: $(B)/focus $(B)/lesson-00 $(TEST_PROGRAMS)

# --- for instructors ------------------------------------------------------------------------------

#:
#: To teach:
#: make demo-NN     the lesson in at most a minute; REPLAY=1 plays the recorded run
$(NUMBERS:%=demo-%): demo-%: $(B)/lesson-%
	@$(B)/lesson-$* $(if $(filter 1,$(REPLAY)),--replay,--scale demo)
demo-00: $(B)/lesson-00
	@$(if $(filter 1,$(REPLAY)),cat lessons/00-one-page/results/output.txt,$(B)/lesson-00)

#: make grade DIR=folder   points for a submission or a folder of them: grades.csv and grades.json
#:                         (lessons/kit/GRADING.md)
grade: $(B)/grader
	@[ -n "$$DIR" ] || { echo "which submissions? make grade DIR=folder [LESSON=05] [CSV=file] [JSON=file]"; exit 2; }
	@$(B)/grader "$$DIR" $${LESSON:+--lesson "$$LESSON"} --json "$${JSON:-grades.json}" --csv "$${CSV:-grades.csv}"

#: make diff-NN     what lesson NN adds to the code of the lesson before
$(NUMBERS:%=diff-%): diff-%: $(B)/kit
	@lessons/kit/diff.sh $(B)/kit $* $(NUMBERS)

#: make book        the lessons as a site to read, in out/book/ (needs pandoc; SOLUTIONS=no to hand out)
#: make attention   a page that shows what each query attends to while the model learns
-include lessons/book/book.mk

# --- for authors ----------------------------------------------------------------------------------

#:
#: To change it:
#: make check-authors   wrong code is caught, every lesson's tree works, generated files are current
check-authors: $(B)/libfocus.a $(B)/kit $(B)/grader $(B)/tables $(B)/findings $(B)/focus $(B)/attention $(LESSON_PROGRAMS) \
    $(ATTENTION_LIBRARY)
	@tests/check_authors.sh

#: make stress      hostile files, kills, races, limits: what was tried, what was lost   (TIME=600)
TIME ?= 600
stress: $(B)/focus $(FUZZERS)
	@tests/stress.sh "$(TIME)" $(B)

#: make report      figures, verdicts, FINDINGS.md and README's tables from the recorded results
#:                  (STRICT=1: fails if a recording is of other code than the present)
report: $(B)/tables $(B)/findings $(LESSON_PROGRAMS)
	@for n in $(NUMBERS); do $(B)/lesson-$$n --redraw || exit; done
	@$(B)/findings
	@$(B)/tables
	@$(if $(filter 1,$(STRICT)),STRICT=1 tests/recordings.sh check)
$(B)/findings: $(call object,$(wildcard lessons/findings/*.cpp)) $(B)/libfocus.a
	$(LINK)
$(B)/entropy: $(call object,lessons/17-sharpness/entropy.cpp) $(B)/libfocus.a
	$(LINK)

#: make tables      the tables alone
tables: $(B)/tables
	@$(B)/tables

#: make bench       tables of speed
bench: $(B)/focus
	@tests/bench.sh $(B)/focus
