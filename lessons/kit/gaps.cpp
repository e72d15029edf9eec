#include "gaps.h"

#include <algorithm>
#include <sstream>

#include "error.h"
#include "files/atomic_file.h"

namespace focus::kit {

namespace fs = std::filesystem;

namespace {

constexpr size_t columns = 100;  // a stub is no wider

std::vector<Line> read_lines(const fs::path& root, const std::string& path, bool page) {
  std::vector<Line> lines;
  std::istringstream in(read_file(root / path, 4 << 20));
  for (std::string line; std::getline(in, line);)
    lines.push_back({line, int(lines.size()) + 1, page});
  return lines;
}

std::string indent_of(const std::string& line) {
  return line.substr(0, std::min(line.size(), line.find_first_not_of(" \t")));
}

std::string trimmed(const std::string& line) {
  return line.substr(indent_of(line).size());
}

bool is_name(const std::string& text) {
  return !text.empty() &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789-") == std::string::npos;
}

// The number that `text` is, of at most `digits` digits.
std::optional<int> number_of(const std::string& text, size_t digits) {
  if (text.empty() || text.size() > digits ||
      text.find_first_not_of("0123456789") != std::string::npos)
    return {};
  return std::stoi(text);
}

// What follows `before`, which the text must begin with.
std::optional<std::string> after(const std::string& text, const std::string& before) {
  if (!text.starts_with(before)) return {};
  return text.substr(before.size());
}

// The two sides of the first `mark`.
std::optional<std::pair<std::string, std::string>> parted(const std::string& text,
                                                          const std::string& mark) {
  const size_t at = text.find(mark);
  if (at == std::string::npos) return {};
  return std::pair{text.substr(0, at), text.substr(at + mark.size())};
}

// --- pages ---------------------------------------------------------------------------------------

struct Section {
  Line title;
  std::vector<Line> body;  // its lines but for empty ones
};

std::vector<Change> changes_of(const Section& section, const std::string& page) {
  std::vector<Change> changes;
  for (const auto& [text, number, _] : section.body) {
    if (text[0] == '-') {
      if (changes.empty() || !changes.back().after.empty()) changes.emplace_back();
      changes.back().before.push_back({text.substr(1), number, true});
    } else if (text[0] == '+' && !changes.empty()) {
      changes.back().after.push_back({text.substr(1), number, true});
    } else {
      fail_input(page, ":", number, ": a mistake is - lines and, below them, + lines");
    }
  }
  return changes;
}

void read_page(const fs::path& root, Gap& gap) {
  std::vector<Section> sections;
  for (const Line& line : read_lines(root, gap.page, true)) {
    if (sections.empty() || line.text.starts_with("## "))
      sections.push_back({line, {}});
    else if (!trimmed(line.text).empty())
      sections.back().body.push_back(line);
  }
  // "8 points" or "1 point"
  const std::string points =
      sections.empty() ? "" : after(sections[0].title.text, "# " + gap.name + ", ").value_or("");
  const auto [digits, unit] = parted(points, " ").value_or(std::pair<std::string, std::string>{});
  if (!number_of(digits, 3) || (unit != "points" && unit != "point"))
    fail_input(gap.page, ":1: the first line must be '# ", gap.name, ", N points'");
  gap.points = *number_of(digits, 3);

  const std::pair<const char*, std::vector<std::string>*> needed[] = {{"## Plan", &gap.plan},
                                                                      {"## Hint 1", &gap.hints[0]},
                                                                      {"## Hint 2", &gap.hints[1]},
                                                                      {"## Hint 3", &gap.hints[2]},
                                                                      {"## Notice", &gap.notice}};
  size_t at = 1;
  for (const auto& [name, words] : needed) {
    const bool there = at < sections.size() && sections[at].title.text == name;
    if (!there || sections[at].body.empty())
      fail_input(gap.page, ":", sections[std::min(at, sections.size() - 1)].title.number,
                 ": the section '", name, there ? "' is empty" : "' must stand here");
    for (const Line& line : sections[at].body)
      words->push_back(line.text.substr(line.text.starts_with("    ") ? 4 : 0));
    ++at;
  }
  for (; at < sections.size(); ++at) {
    const Line& line = sections[at].title;
    const auto words = parted(after(line.text, "## Mistake ").value_or(""), ": ");
    if (!words || !is_name(words->first) || words->second.empty() || sections[at].body.empty())
      fail_input(gap.page, ":", line.number, ": expected '## Mistake name: words', then its lines");
    gap.mistakes.push_back(
        {words->first, words->second, line.number, changes_of(sections[at], gap.page)});
  }
}

// `inner` stands before every line of the text but its first.
void add_wrapped(std::string& out, const std::string& before, std::string text,
                 const std::string& inner) {
  for (size_t width = columns - before.size(); text.size() > width;) {
    const size_t blank = text.rfind(' ', width);
    if (blank == std::string::npos || blank <= inner.size()) break;
    out += before + text.substr(0, blank) + "\n";
    text = inner + text.substr(blank + 1);
  }
  out += before + text + "\n";
}

// A plan in lines for a stub. If one of its lines is too long, it is one text with those that
// follow up to the next item, so that none is left with a word or two; else they stay as the page
// has them.
std::string wrapped(const std::vector<std::string>& plan, const std::string& before) {
  const size_t width = columns - before.size();
  const auto is_item = [](const std::string& line) {
    return line.empty() || line[0] == '-' || (line[0] >= '0' && line[0] <= '9');
  };
  std::string out;
  for (size_t i = 0; i < plan.size(); ++i) {
    std::string text = plan[i], inner = indent_of(text);
    while (text.size() > width && i + 1 < plan.size() && !is_item(plan[i + 1])) {
      inner = indent_of(plan[++i]);
      text += " " + plan[i].substr(inner.size());
    }
    add_wrapped(out, before, text, inner);
  }
  return out;
}

// --- gaps in a student's file --------------------------------------------------------------------

std::string first_line(const Gap& gap) {
  return "// ---- gap " + gap.lesson + " " + gap.name + " ";
}

std::string last_line(const Gap& gap) {
  return "// ---- end of gap " + gap.lesson + " " + gap.name + " ";
}

std::string call(const Gap& gap) {
  return "GAP(\"" + gap.lesson + "\", \"" + gap.name + "\")";
}

// Begin and end of what stands between the gap's first and last line.
std::optional<std::pair<size_t, size_t>> place_in(const std::string& text, const Gap& gap) {
  const size_t first = text.find(first_line(gap)), last = text.find(last_line(gap));
  if (first == std::string::npos || last == std::string::npos || last < first) return {};
  return std::pair{text.find('\n', first) + 1, text.rfind('\n', last) + 1};
}

}  // namespace

std::string lesson_folder(const fs::path& root, const std::string& number) {
  for (const auto& entry : fs::directory_iterator(root / "lessons"))
    if (entry.path().filename().string().starts_with(number + "-"))
      return "lessons/" + entry.path().filename().string();
  fail_input((root / "lessons").string(), ": there is no folder of lesson ", number);
}

Source read_source(const fs::path& root, const std::string& path) {
  // What a marker says: "//@ end" in C++, "#@ end" elsewhere.
  const auto marker = [](const std::string& line) {
    const std::string text = trimmed(line);
    std::optional<std::string> words = after(text, "//@");
    if (!words) words = after(text, "#@");
    return words && words->starts_with(" ") ? words->substr(1) : words;
  };
  Source source{path, {}};
  std::vector<std::pair<int, int>> open;  // the lesson and line of each part that has not ended
  bool in_gap = false;
  const auto new_part = [&]() -> Part& {
    source.parts.push_back({open.empty() ? 0 : open.back().first, {}, {}});
    return source.parts.back();
  };
  new_part();
  for (const Line& line : read_lines(root, path, false)) {
    const auto fail = [&](const auto&... what) {
      fail_input(path, ":", line.number, ": ", what...);
    };
    const std::optional<std::string> words = marker(line.text);
    if (!words) {
      Part& last = source.parts.back();
      (in_gap ? last.gap[0].code : last.lines).push_back(line);
      continue;
    }
    const std::string& text = *words;
    const auto begun = parted(after(text, "gap ").value_or(""), " ");
    const std::string from = after(text, "from ").value_or("");
    const auto is_lesson = [](const std::string& word) {
      return word.size() == 2 && number_of(word, 2);
    };
    if (text == "end") {
      if (open.empty()) fail("an end without a begin");
      if (in_gap) {
        Gap& gap = source.parts.back().gap[0];
        if (gap.code.size() < 3 || gap.code.size() > 20)
          fail_input(path, ":", gap.line, ": gap '", gap.name, "' has ", gap.code.size(),
                     " lines, not 3 to 20");
        read_page(root, gap);
      }
      in_gap = false;
      open.pop_back();
      new_part();
    } else if (in_gap) {
      fail("only an end may stand in a gap, not '", text, "'");
    } else if (begun && is_lesson(begun->first) && is_name(begun->second)) {
      in_gap = true;
      Gap gap;
      gap.lesson = begun->first, gap.name = begun->second, gap.file = path, gap.line = line.number;
      gap.page = lesson_folder(root, gap.lesson) + "/gaps/" + gap.name + ".md";
      if (!fs::exists(root / gap.page)) fail("gap '", gap.name, "' has no page ", gap.page);
      new_part().gap.push_back(gap);
      open.emplace_back(source.parts.back().from, line.number);
    } else if (is_lesson(from)) {
      open.emplace_back(std::max(std::stoi(from), source.parts.back().from), line.number);
      new_part();
    } else if (text == "authors") {
      open.emplace_back(every_lesson + 1, line.number);
      new_part();
    } else {
      fail("unknown marker '", text, "': gap, from, authors or end");
    }
  }
  if (!open.empty()) fail_input(path, ":", open.back().second, ": this marker has no end");
  return source;
}

std::vector<Gap> gaps_of(const Source& source) {
  std::vector<Gap> all;
  for (const Part& part : source.parts) all.insert(all.end(), part.gap.begin(), part.gap.end());
  return all;
}

std::string render(const Source& source, int lesson,
                   const std::function<std::string(const Gap&)>& gap_text) {
  std::string out;
  for (const Part& part : source.parts) {
    if (part.from > lesson) continue;
    for (const Line& line : part.lines) out += line.text + "\n";
    for (const Gap& gap : part.gap) out += gap_text(gap);
  }
  return out;
}

std::string code_text(const Gap& gap) {
  std::string text;
  for (const Line& line : gap.code) text += line.text + "\n";
  return text;
}

std::string stub_text(const Gap& gap) {
  const std::string indent = indent_of(gap.code.front().text);
  std::string text = str(indent, first_line(gap), "(", gap.points, " points; ours has ",
                         gap.code.size(), " lines) ----\n");
  text += wrapped(gap.plan, indent + "// ");
  text += str(indent, "// Delete the next line and write yours. `make hint-", gap.lesson,
              "` helps, `make test-", gap.lesson, "` checks.\n", indent, call(gap), ";\n", indent,
              last_line(gap), "----\n");
  return text;
}

bool is_empty(const std::string& text, const Gap& gap) {
  const auto [begin, end] = place_in(text, gap).value_or(std::pair<size_t, size_t>{0, text.size()});
  for (size_t at = begin; (at = text.find(call(gap), at)) < end; ++at) {
    const size_t line = text.rfind('\n', at) + 1;
    if (text.substr(line, at - line).find("//") == std::string::npos) return true;
  }
  return false;
}

std::optional<std::string> with_solution(const std::string& text, const Gap& gap) {
  const auto place = place_in(text, gap);
  if (!place) return {};
  return text.substr(0, place->first) + code_text(gap) + text.substr(place->second);
}

std::vector<Line> with_mistake(const Gap& gap, const Mistake& mistake) {
  std::vector<Line> code = gap.code;
  for (const auto& [before, after] : mistake.changes) {
    const auto same = [](const Line& a, const Line& b) {
      return trimmed(a.text) == trimmed(b.text);
    };
    const auto found = std::search(code.begin(), code.end(), before.begin(), before.end(), same);
    const bool again = found != code.end() && std::search(found + 1, code.end(), before.begin(),
                                                          before.end(), same) != code.end();
    if (found == code.end() || again)
      fail_input(
          gap.page, ":", before[0].number, ": mistake '", mistake.name, "': these lines ",
          again ? "stand more than once in the gap (add a neighbour)" : "do not stand in the gap",
          " at ", gap.file, ":", gap.line);
    const auto at = code.erase(found, found + ptrdiff_t(before.size()));
    code.insert(at, after.begin(), after.end());
  }
  return code;
}

std::string render_mistakes(const Source& source) {
  // The compiler names the place that a line is from.
  const auto numbered = [&](const std::vector<Line>& lines, const std::string& page) {
    std::string text;
    const Line* last = nullptr;
    for (const Line& line : lines) {
      if (!last || last->of_page != line.of_page || last->number + 1 != line.number)
        text += str("#line ", line.number, " \"", line.of_page ? page : source.path, "\"\n");
      text += line.text + "\n";
      last = &line;
    }
    return text;
  };
  std::string chosen, code;  // what the environment chooses, asked once: gaps stand in inner loops
  const auto choice = [&](const std::string& kind, const std::string& name) {
    std::string is = str("focus_", kind, "_", name);
    std::replace(is.begin(), is.end(), '-', '_');
    chosen +=
        str("static const bool ", is, " = focus_chosen(\"FOCUS_", kind, "\", \"", name, "\");\n");
    return is;
  };
  for (const Part& part : source.parts) {
    if (part.from > every_lesson) continue;
    code += numbered(part.lines, "");
    for (const Gap& gap : part.gap) {
      code += str("if (", choice("EMPTY", gap.name), ") {\n", call(gap), ";\n} else\n");
      for (const Mistake& mistake : gap.mistakes)
        code += str("if (", choice("MISTAKE", mistake.name), ") {\n",
                    numbered(with_mistake(gap, mistake), gap.page), "} else\n");
      code += str("{\n", numbered(gap.code, gap.page), "}\n");
    }
  }
  return "#include \"focus_mistake.h\"\n" + chosen + code;
}

}  // namespace focus::kit
