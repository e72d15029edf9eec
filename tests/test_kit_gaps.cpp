// Gaps: what is read of the sources and of the gaps' pages, what becomes of it, and what is
// refused.
#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <map>
#include <set>

#include "../lessons/kit/gaps.h"
#include "../lessons/kit/grader/gap_text.h"
#include "../lessons/kit/tree.h"
#include "error.h"
#include "files/atomic_file.h"

using namespace focus;
using namespace focus::kit;

namespace {

// A checkout of its own, with one lesson, while it lives.
struct Checkout {
  std::filesystem::path root =
      std::filesystem::temp_directory_path() / str("focus-gaps-", ::getpid());
  Manifest manifest{root, {}};

  explicit Checkout(const std::map<std::string, std::string>& files) {
    for (const auto& [path, text] : files) {
      std::filesystem::create_directories((root / path).parent_path());
      std::ofstream(root / path) << text;
    }
    Lesson lesson;
    lesson.number = "04", lesson.folder = "04-halves";
    manifest.lessons.push_back(lesson);
  }
  ~Checkout() { std::filesystem::remove_all(root); }
};

const char* const code = R"(before
//@ from 04
four
  //@ gap 04 half
  y = x / 2;

  z = y;
  w = z;
  //@ end
//@ from 05
five
//@ end
//@ end
after
//@ authors
ours
//@ end
)";

const char* const page = R"(# half, 3 points
## Plan
halve it

   twice
## Hint 1
what is
half of it?
## Hint 2
think
## Hint 3
    if x:
      y = x over 2
## Notice
small
## Mistake double: twice as much
-y = x / 2;
+y = x * 2;
## Mistake nothing: both lines are missing
-  z = y;
-    w = z;
## Mistake twice: two changes
-y = x / 2;
+y = 2;
-w = z;
+v = z;
+w = v;
)";

const std::string page_path = "lessons/04-halves/gaps/half.md";

std::string replaced(std::string text, const std::string& what, const std::string& with) {
  text.replace(text.find(what), what.size(), with);
  return text;
}

std::string text_of(const std::vector<Line>& lines) {
  std::string text;
  for (const Line& line : lines) text += line.text + "|";
  return text;
}

}  // namespace

TEST_CASE("a file at each lesson") {
  const Checkout here({{"x.h", code}, {page_path, page}});
  const Source source = read_source(here.root, "x.h");
  const auto at_lesson = [&](int lesson) { return render(source, lesson, code_text); };
  CHECK(at_lesson(3) == "before\nafter\n");
  CHECK(at_lesson(4) == "before\nfour\n  y = x / 2;\n\n  z = y;\n  w = z;\nafter\n");
  CHECK(at_lesson(5) == "before\nfour\n  y = x / 2;\n\n  z = y;\n  w = z;\nfive\nafter\n");
  CHECK(at_lesson(every_lesson).find("ours") == std::string::npos);
}

TEST_CASE("a gap, its help and its stub") {
  const Checkout here({{"x.h", code}, {page_path, page}});
  const std::vector<Gap> gaps = gaps_of(read_source(here.root, "x.h"));
  REQUIRE(gaps.size() == 1);
  const Gap& gap = gaps[0];
  CHECK(gap.name == "half");
  CHECK(gap.lesson == "04");
  CHECK(gap.points == 3);
  CHECK(gap.line == 4);
  CHECK(gap.hints[0] == std::vector<std::string>{"what is", "half of it?"});
  CHECK(gap.hints[2] == std::vector<std::string>{"if x:", "  y = x over 2"});
  CHECK(stub_text(gap) ==
        "  // ---- gap 04 half (3 points; ours has 4 lines) ----\n"
        "  // halve it\n"
        "  //    twice\n"
        "  // Delete the next line and write yours. `make hint-04` helps, `make test-04` checks.\n"
        "  GAP(\"04\", \"half\");\n"
        "  // ---- end of gap 04 half ----\n");
  CHECK(gap_table(gaps) ==
        "half\tplace\tx.h\nhalf\tpoints\t3\nhalf\tlines\t4\nhalf\t1\twhat is\n"
        "half\t1\thalf of it?\nhalf\t2\tthink\nhalf\t3\tif x:\nhalf\t3\t  y = x over 2\n"
        "half\tnotice\tsmall\n");
}

TEST_CASE("a plan in a gap is no wider than the code") {
  const std::string words(60, 'a'), wide = "   " + words + " " + words + " b\n";
  const auto stub_of = [&](const std::string& plan) {
    const Checkout here({{"x.h", code}, {page_path, replaced(page, "halve it\n", plan)}});
    return stub_text(gaps_of(read_source(here.root, "x.h"))[0]);
  };
  // What follows, "twice", is on the same line then; a new item is not.
  CHECK(stub_of(wide).find("  //    " + words + "\n  //    " + words + " b twice\n") !=
        std::string::npos);
  CHECK(stub_of(wide + "2. halve it\n")
            .find("  //    " + words + " b\n  // 2. halve it\n  //    twice\n") !=
        std::string::npos);
}

TEST_CASE("a gap in a student's file") {
  const Checkout here({{"x.h", code}, {page_path, page}});
  const Source source = read_source(here.root, "x.h");
  const Gap gap = gaps_of(source)[0];
  const std::string empty = render(source, 4, stub_text);
  CHECK(is_empty(empty, gap));
  CHECK(!is_empty(replaced(empty, "  GAP(", "  // GAP("), gap));
  const std::string filled = with_solution(empty, gap).value();
  CHECK(!is_empty(filled, gap));
  CHECK(filled == "before\nfour\n  // ---- gap 04 half (3 points; ours has 4 lines) ----\n" +
                      code_text(gap) + "  // ---- end of gap 04 half ----\nafter\n");
  CHECK(with_solution(filled, gap) == filled);
  CHECK(!with_solution(replaced(filled, "end of gap 04 half", "end"), gap));
  CHECK(!with_solution(replaced(filled, "gap 04 half", "gap 04 half-more"), gap));
}

TEST_CASE("a gap with a mistake in it") {
  const Checkout here({{"x.h", code}, {page_path, page}});
  const Source source = read_source(here.root, "x.h");
  const Gap gap = gaps_of(source)[0];
  REQUIRE(gap.mistakes.size() == 3);
  CHECK(gap.mistakes[0].words == "twice as much");
  CHECK(text_of(with_mistake(gap, gap.mistakes[0])) == "y = x * 2;||  z = y;|  w = z;|");
  CHECK(text_of(with_mistake(gap, gap.mistakes[1])) == "  y = x / 2;||");
  CHECK(text_of(with_mistake(gap, gap.mistakes[2])) == "y = 2;||  z = y;|v = z;|w = v;|");
  const std::string all = render_mistakes(source);
  CHECK(all.starts_with(
      "#include \"focus_mistake.h\"\n"
      "static const bool focus_EMPTY_half = focus_chosen(\"FOCUS_EMPTY\", \"half\");\n"
      "static const bool focus_MISTAKE_double = focus_chosen(\"FOCUS_MISTAKE\", \"double\");\n"));
  CHECK(
      all.find(
          "if (focus_EMPTY_half) {\nGAP(\"04\", \"half\");\n} else\nif (focus_MISTAKE_double) {") !=
      std::string::npos);
  CHECK(all.find("if (focus_MISTAKE_double) {\n#line 18 \"" + page_path +
                 "\"\ny = x * 2;\n#line 6 \"x.h\"\n\n  z = y;\n  w = z;\n} else\n") !=
        std::string::npos);
  CHECK(all.find("{\n#line 5 \"x.h\"\n  y = x / 2;\n\n  z = y;\n  w = z;\n}\n#line 11") !=
        std::string::npos);
  CHECK(all.find("//@") == std::string::npos);
}

TEST_CASE("wrong markers are refused with their place") {
  const auto refused = [](const std::string& text, const char* message) {
    CAPTURE(text);
    const Checkout here({{"x.h", text}, {page_path, page}});
    CHECK_THROWS_WITH_AS(read_source(here.root, "x.h"), message, InputError);
  };
  refused("//@ gap 04 half\nx\n", "x.h:1: this marker has no end");
  refused("//@ end\n", "x.h:1: an end without a begin");
  refused("x\n//@ gapp 04 a\n//@ end\n",
          "x.h:2: unknown marker 'gapp 04 a': gap, from, authors or end");
  refused("//@ gap 04\n// half\n//@ end\n",  // as a formatter would break it
          "x.h:1: unknown marker 'gap 04': gap, from, authors or end");
  refused("x\n//@ gap 04 other\n//@ end\n",
          "x.h:2: gap 'other' has no page lessons/04-halves/gaps/other.md");
  refused("//@ gap 04 half\nx\ny\n//@ end\n", "x.h:1: gap 'half' has 2 lines, not 3 to 20");
  refused("//@ gap 04 half\nx\n//@ from 04\n//@ end\n",
          "x.h:3: only an end may stand in a gap, not 'from 04'");
  refused("//@ from 04\nx\n", "x.h:1: this marker has no end");
}

TEST_CASE("wrong pages are refused with their place") {
  const auto refused = [](const std::string& text, const std::string& message) {
    CAPTURE(text);
    const Checkout here({{"x.h", code}, {page_path, text}});
    CHECK_THROWS_WITH_AS(read_source(here.root, "x.h"), (page_path + message).c_str(), InputError);
  };
  refused("", ":1: the first line must be '# half, N points'");
  refused(replaced(page, "# half", "# whole"), ":1: the first line must be '# half, N points'");
  refused(replaced(page, "## Hint 2\nthink\n", ""), ":9: the section '## Hint 2' must stand here");
  refused(replaced(page, "think\n", ""), ":9: the section '## Hint 2' is empty");
  refused("# half, 3 points\n## Plan\nx\n", ":2: the section '## Hint 1' must stand here");
  refused(replaced(page, "Mistake double:", "Mistake double"),
          ":16: expected '## Mistake name: words', then its lines");
  refused(replaced(page, "-y = x / 2;\n+y = x * 2;\n", ""),
          ":16: expected '## Mistake name: words', then its lines");
  refused(replaced(page, "-y = x / 2;\n", ""),
          ":17: a mistake is - lines and, below them, + lines");
}

TEST_CASE("what is wrong between sources and pages") {
  const auto problem = [](std::map<std::string, std::string> files) {
    files.try_emplace("src/x.h", code);
    files.try_emplace(page_path, page);
    const Checkout here(files);
    const std::vector<std::string> problems = gap_problems(here.manifest);
    CHECK(problems.size() <= 1);
    return problems.empty() ? "" : problems[0];
  };
  CHECK(problem({}) == "");
  CHECK(problem({{page_path, replaced(page, "-y = x / 2;", "-y = x / 3;")}}) ==
        page_path + ":17: mistake 'double': these lines do not stand in the gap at src/x.h:4");
  CHECK(problem({{"src/x.h", replaced(code, "\n\n  z", "\n  z = y;\n  z")},
                 {page_path, replaced(page, "-  z = y;\n-    w = z;", "-z = y;")}}) ==
        page_path +
            ":20: mistake 'nothing': these lines stand more than once in the gap (add a "
            "neighbour) at src/x.h:4");
  CHECK(problem({{page_path, replaced(page, "nothing:", "double:")}}) ==
        page_path + ":19: the mistake 'double' is there already: " + page_path + ":16");
  CHECK(problem({{"lessons/04-halves/gaps/other.md", page}}) ==
        "lessons/04-halves/gaps/other.md:1: no source has a gap of this name");
}

TEST_CASE("this project's own gaps: points, help and mistakes of each lesson") {
  const Manifest manifest = read_manifest(".");
  for (const std::string& problem : gap_problems(manifest)) FAIL_CHECK(problem);
  for (const Lesson& lesson : manifest.lessons) {
    if (lesson.number == "00") continue;  // one file to read, without gaps
    CAPTURE(lesson.folder);
    int points = 0, mistakes = 0;
    for (const Gap& gap : gaps_of_lesson(manifest, lesson.number)) {
      CAPTURE(gap.name);
      points += gap.points;
      mistakes += int(gap.mistakes.size());
      CHECK(!gap.mistakes.empty());
    }
    CHECK(points == 20);
    CHECK(mistakes >= 5);
  }
}

TEST_CASE("a student's tree has nothing of its gaps' solutions and of later lessons") {
  const Manifest manifest = read_manifest(".");
  const auto folder = std::filesystem::temp_directory_path() / str("focus-tree-", ::getpid());
  const std::vector<Gap> gaps = all_gaps(manifest);
  for (const Lesson& lesson : manifest.lessons) {
    if (lesson.number == "00") continue;  // one file to read, without gaps
    CAPTURE(lesson.folder);
    std::filesystem::remove_all(folder);
    write_student_tree(manifest, lesson.number, folder);
    std::string all;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder))
      if (entry.is_regular_file()) {
        const std::string text = read_file(entry.path(), 64 << 20);
        if (entry.path().extension() != ".html") CHECK(text.find("//@") == std::string::npos);
        all += text;
      }
    for (const Lesson& other : manifest.lessons) {
      const bool later = other.number > lesson.number;
      CHECK(std::filesystem::exists(folder / "lessons" / other.folder) == !later);
      for (const Gap& gap : gaps) {
        if (gap.lesson != other.number) continue;
        CAPTURE(gap.name);
        // Held-out accuracy, depth, heads, the scale of the scores, the classifier's loss and the
        // choice among keys are in use before the lessons that ask for them: what 06, 11, 15 and 17
        // ask for stands complete in those trees before them that have its file.
        const bool needed_before = later && (other.number == "06" || other.number == "11" ||
                                             other.number == "15" || other.number == "17");
        const bool complete = needed_before ? std::filesystem::exists(folder / gap.file)
                                            : other.number < lesson.number;
        const std::string code = code_text(gap);
        const std::boyer_moore_horspool_searcher searcher(code.begin(), code.end());
        CHECK((std::search(all.begin(), all.end(), searcher) != all.end()) == complete);
      }
    }
    CHECK_THROWS_AS(write_student_tree(manifest, lesson.number, folder), InputError);
  }
  std::filesystem::remove_all(folder);
}

TEST_CASE("what a gap may hold: our own code and every mistake are taken, layout does not count") {
  const Manifest manifest = read_manifest(".");
  std::vector<std::string> kernels;
  for (const std::string& path : source_files(manifest))
    if (path.starts_with("cuda/")) kernels.push_back(read_file(path, 64 << 20));
  const std::set<std::string> reserved = reserved_names(kernels);
  for (const Gap& gap : all_gaps(manifest)) {
    CAPTURE(gap.name);
    const std::string before = "// ---- gap 77 " + gap.name + " (renumbered) ----\r\n",
                      after = "  // ---- end of gap 77 " + gap.name + " ----\n";
    const GapText written = written_in("int x;\n" + before + code_text(gap) + after, gap);
    CHECK(written.problem == "");
    CHECK(written.text == code_text(gap));
    CHECK(written.line == 3);
    CHECK(!written.empty);
    CHECK(refusal(written, reserved) == "");
    CHECK(tokens("/* more */ " + code_text(gap) + "// and more") == tokens(code_text(gap)));
    CHECK(written_in(before + stub_text(gap) + after, gap).problem != "");
    CHECK(written_in(stub_text(gap), gap).empty);
    for (const Mistake& mistake : gap.mistakes) {
      std::string text;
      for (const Line& line : with_mistake(gap, mistake)) text += line.text + "\n";
      CHECK(refusal({"", text, 1, false}, reserved) == "");
    }
  }
  CHECK(reserved.count("__syncthreads"));
  CHECK(!reserved.count("__asm__"));
  CHECK(standard_includes("  #include <numeric>\n#include <unistd.h>\n#include \"x\"\n") ==
        "#include <numeric>\n");
}
