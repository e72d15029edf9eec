#include "tags.h"

#include <regex>
#include <sstream>

#include "error.h"
#include "files/atomic_file.h"

namespace focus::kit {

namespace {

std::string without_indent(const std::string& line) {
  const size_t at = line.find_first_not_of(" \t");
  return at == std::string::npos ? "" : line.substr(at);
}

// "//@ plan words" → "plan words". Nothing if the line is no tag of that kind ('@' or '~').
bool strip_leader(const std::string& line, char kind, std::string& rest) {
  const std::string text = without_indent(line);
  size_t length = 0;
  for (const char* leader : {"//", "#"})
    if (text.starts_with(leader) && text.size() > std::string(leader).size() &&
        text[std::string(leader).size()] == kind)
      length = std::string(leader).size() + 1;
  if (length == 0) return false;
  rest = text.substr(length);
  if (rest.starts_with(" ")) rest.erase(0, 1);
  return true;
}

class Reader {
 public:
  Reader(const std::string& path, const std::string& text) : path_(path) {
    std::istringstream in(text);
    int number = 0;
    for (std::string line; std::getline(in, line);) all_.push_back({line, ++number});
  }

  std::vector<Piece> pieces() {
    std::vector<Piece> found = pieces_until_end(nullptr);
    if (at_ < all_.size()) fail("an end without a begin");
    return found;
  }

 private:
  std::string path_;
  std::vector<Line> all_;
  size_t at_ = 0;

  [[noreturn]] void fail(const std::string& what) const { fail_at(all_[at_].number, what); }
  [[noreturn]] void fail_at(int number, const std::string& what) const {
    fail_input(path_, ":", number, ": ", what);
  }

  // Reads up to the end of the file, or up to an end or before tag, which is left to the caller.
  std::vector<Piece> pieces_until_end(const Line* opened) {
    static const std::regex begin("begin ([0-9][0-9]) ([a-z0-9-]+)( points=([0-9]+))?"),
        from("from ([0-9][0-9])");
    std::vector<Piece> found;
    const auto add_line = [&](const Line& line) {
      if (found.empty() || found.back().kind != Piece::lines) found.emplace_back();
      found.back().text.push_back(line);
    };
    for (std::string tag; at_ < all_.size(); ++at_) {
      std::smatch part;
      if (strip_leader(all_[at_].text, '~', tag)) fail("a ~ line that follows no mutant or before");
      if (!strip_leader(all_[at_].text, '@', tag)) {
        add_line(all_[at_]);
      } else if (std::regex_match(tag, part, begin)) {
        Piece& piece = found.emplace_back();
        piece.kind = Piece::gap;
        piece.the_gap = gap(part[1], part[2], part[4].matched ? std::stoi(part[4]) : 0);
      } else if (std::regex_match(tag, part, from)) {
        found.push_back(from_part(std::stoi(part[1])));
      } else if (tag == "authors") {
        found.push_back(from_part(every_lesson + 1));
      } else if (tag == "end" || tag == "before") {
        return found;
      } else {
        fail("unknown tag '" + tag + "' here: begin, from, authors, before or end");
      }
    }
    if (opened) fail_at(opened->number, "this tag has no end");
    return found;
  }

  Piece from_part(int lesson) {
    const Line opened = all_[at_++];
    Piece piece;
    piece.kind = Piece::from;
    piece.lesson = lesson;
    piece.inside = pieces_until_end(&opened);
    std::string tag;
    strip_leader(all_[at_].text, '@', tag);
    if (tag == "before") {
      for (++at_; at_ < all_.size() && strip_leader(all_[at_].text, '~', tag); ++at_) {
        const size_t indent = all_[at_].text.find_first_not_of(" \t");
        const std::string own = tag.empty() ? "" : all_[at_].text.substr(0, indent) + tag;
        piece.text.push_back({own, all_[at_].number});
      }
      if (at_ >= all_.size()) fail_at(opened.number, "this tag has no end");
      if (!strip_leader(all_[at_].text, '@', tag) || tag != "end")
        fail("only ~ lines may stand between before and end");
    }
    return piece;
  }

  Gap gap(const std::string& lesson, const std::string& name, int points) {
    static const std::regex mutant(R"(mutant(\(([0-9]+)\))? ([a-z0-9-]+): (.+))"),
        words("(plan|notice|hint ([123])) (.*)");
    const Line opened = all_[at_++];
    Gap gap;
    gap.lesson = lesson, gap.name = name, gap.points = points;
    gap.file = path_, gap.line = opened.number;
    bool replacing = false;
    for (std::string tag;; ++at_) {
      if (at_ >= all_.size()) fail_at(opened.number, "this tag has no end");
      std::smatch part;
      const Line& line = all_[at_];
      if (strip_leader(line.text, '~', tag)) {
        if (!replacing) fail("a ~ line that follows no mutant");
        gap.mutants.back().wrong.push_back(tag);
      } else if (!strip_leader(line.text, '@', tag)) {
        gap.code.push_back(line);
        replacing = false;
      } else if (std::regex_match(tag, part, mutant)) {
        Mutant& m = gap.mutants.emplace_back();
        m.name = part[3], m.words = part[4], m.line = line.number;
        m.first = gap.code.size();
        if (part[2].matched) m.count = size_t(std::stoi(part[2]));
        replacing = true;
      } else if (std::regex_match(tag, part, words)) {
        auto& list = part[1] == "plan"     ? gap.plan
                     : part[1] == "notice" ? gap.notice
                                           : gap.hints[size_t(std::stoi(part[2]) - 1)];
        list.push_back(part[3]);
        replacing = false;
      } else if (tag == "end") {
        gap.end_line = line.number;
        break;
      } else {
        fail("unknown tag '" + tag + "' in gap '" + name + "': plan, hint, notice, mutant or end");
      }
    }
    if (gap.code.empty() || gap.code.size() > 24)
      fail_at(opened.number,
              str("gap '", name, "' has ", gap.code.size(), " lines of code, not 1 to 24"));
    for (const Mutant& m : gap.mutants)
      if (m.first + std::max<size_t>(m.count, 1) > gap.code.size())
        fail_at(m.line, str("mutant '", m.name, "' reaches beyond the end of its gap"));
    return gap;
  }
};

void render_pieces(const std::vector<Piece>& pieces, int lesson,
                   const std::function<std::string(const Gap&)>& gap_text, std::string& out) {
  for (const Piece& piece : pieces) {
    if (piece.kind == Piece::gap) {
      out += gap_text(piece.the_gap);
    } else if (piece.kind == Piece::from && lesson >= piece.lesson) {
      render_pieces(piece.inside, lesson, gap_text, out);
    } else {
      for (const Line& line : piece.text) out += line.text + "\n";
    }
  }
}

void collect_gaps(const std::vector<Piece>& pieces, std::vector<Gap>& all) {
  for (const Piece& piece : pieces) {
    if (piece.kind == Piece::gap) all.push_back(piece.the_gap);
    if (piece.kind == Piece::from) collect_gaps(piece.inside, all);
  }
}

std::string indent_of(const Gap& gap) {
  const std::string& line = gap.code.front().text;
  return line.substr(0, line.find_first_not_of(" \t"));
}

}  // namespace

TaggedFile read_tags(const std::filesystem::path& root, const std::string& path) {
  return {path, Reader(path, read_file(root / path, 4 << 20)).pieces()};
}

std::vector<Gap> gaps_of(const TaggedFile& file) {
  std::vector<Gap> all;
  collect_gaps(file.pieces, all);
  return all;
}

std::string render(const TaggedFile& file, int lesson,
                   const std::function<std::string(const Gap&)>& gap_text) {
  std::string out;
  render_pieces(file.pieces, lesson, gap_text, out);
  return out;
}

std::string code_text(const Gap& gap) {
  std::string text;
  for (const Line& line : gap.code) text += line.text + "\n";
  return text;
}

std::string first_line_of_gap(const Gap& gap) {
  return "// ---- gap " + gap.lesson + " " + gap.name;
}

std::string last_line_of_gap(const Gap& gap) {
  return "// ---- end of gap " + gap.lesson + " " + gap.name;
}

std::string stub_text(const Gap& gap) {
  const std::string indent = indent_of(gap);
  std::string text = str(indent, first_line_of_gap(gap), " (", gap.points, " points; ours has ",
                         gap.code.size(), " lines) ----\n");
  for (const std::string& line : gap.plan) text += str(indent, "// ", line, "\n");
  text += str(indent, "// Delete the next line and write yours. `make hint-", gap.lesson,
              "` helps, `make test-", gap.lesson, "` checks.\n");
  text += str(indent, "GAP(\"", gap.lesson, "\", \"", gap.name, "\");\n");
  text += str(indent, last_line_of_gap(gap), " ----\n");
  return text;
}

std::string render_mutants(const TaggedFile& file) {
  const auto place = [&](int line) { return str("#line ", line, " \"", file.path, "\"\n"); };
  // The gap's code with one mutant's change, or none.
  const auto version = [&](const Gap& gap, const Mutant* m) {
    std::string text = place(gap.code.front().number);
    for (size_t i = 0; i < gap.code.size(); ++i) {
      if (m && i == m->first) {
        text += place(m->line);
        for (const std::string& line : m->wrong) text += line + "\n";
        i += m->count;
        if (i >= gap.code.size()) break;
        text += place(gap.code[i].number);
      } else if (i > 0 && gap.code[i].number != gap.code[i - 1].number + 1) {
        text += place(gap.code[i].number);
      }
      text += gap.code[i].text + "\n";
    }
    return text;
  };
  const auto gap_text = [&](const Gap& gap) {
    std::string text;
    for (const Mutant& m : gap.mutants)
      text += str("if (focus_mutant(\"", m.name, "\")) {\n", version(gap, &m), "} else\n");
    return str(text, "{\n", version(gap, nullptr), "}\n", place(gap.end_line + 1));
  };
  return str("#include \"focus_mutant.h\"\n", place(1), render(file, every_lesson, gap_text));
}

}  // namespace focus::kit
