// What a grade says: the table, JSON, CSV, and who handed in the same.
#include <iomanip>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "error.h"
#include "grade.h"
#include "joined.h"

namespace focus::kit {

std::string GapGrade::hash() const {
  if (code.empty()) return "";
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (char c : code) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  std::ostringstream text;
  text << std::hex << std::setw(16) << std::setfill('0') << hash;
  return text.str();
}

std::string Grade::name() const {
  return id.empty() ? student : student + " (" + id + ")";
}

int Grade::points() const {
  int sum = 0;
  for (const GapGrade& gap : gaps) sum += gap.points;
  return sum;
}

int Grade::of() const {
  int sum = 0;
  for (const GapGrade& gap : gaps) sum += gap.of;
  return sum;
}

void mark_copies(std::vector<Grade>& grades) {
  std::map<std::string, std::set<std::string>> of_gap, of_all;  // tokens → students
  const auto whole = [](const Grade& grade) {
    std::string code = grade.lesson;
    for (const GapGrade& gap : grade.gaps) {
      if (gap.code.empty()) return std::string();
      code += "\n" + gap.code;
    }
    return grade.gaps.empty() ? "" : code;
  };
  for (const Grade& grade : grades) {
    of_all[whole(grade)].insert(grade.name());
    for (const GapGrade& gap : grade.gaps) of_gap[gap.gap + "\n" + gap.code].insert(grade.name());
  }
  for (Grade& grade : grades) {
    const auto mark = [&](const std::set<std::string>& students, std::vector<std::string>& marks) {
      std::erase_if(marks, [](const std::string& mark) { return mark != "the solution"; });
      for (const std::string& student : students)
        if (student != grade.name()) marks.push_back(student);
    };
    if (const std::string code = whole(grade); !code.empty()) mark(of_all[code], grade.same_as);
    for (GapGrade& gap : grade.gaps)
      if (!gap.code.empty()) mark(of_gap[gap.gap + "\n" + gap.code], gap.same_as);
  }
}

std::string grade_table(const Grade& grade) {
  std::ostringstream out;
  out << grade.student;
  if (!grade.problem.empty()) {
    out << ": not graded: " << grade.problem << "\n";
    return out.str();
  }
  out << ": lesson " << grade.lesson << ", " << grade.points() << " of " << grade.of()
      << " points\n";
  for (const GapGrade& gap : grade.gaps)
    out << "  " << std::left << std::setw(24) << gap.gap << std::right << std::setw(3) << gap.points
        << " / " << std::setw(2) << gap.of << "  " << gap.result
        << (gap.unusual.empty() ? "" : " (look at: " + joined(gap.unusual) + ")") << "\n";
  return out.str();
}

std::string grades_json(const std::vector<Grade>& grades) {
  nlohmann::ordered_json all = nlohmann::ordered_json::array();
  for (const Grade& grade : grades) {
    nlohmann::ordered_json one = {{"student", grade.student}, {"id", grade.id},
                                  {"lesson", grade.lesson},   {"points", grade.points()},
                                  {"of", grade.of()},         {"problem", grade.problem},
                                  {"tree", grade.tree},       {"time", grade.time},
                                  {"same_as", grade.same_as}, {"gaps", nlohmann::json::array()}};
    for (const GapGrade& gap : grade.gaps)
      one["gaps"].push_back({{"gap", gap.gap},
                             {"points", gap.points},
                             {"of", gap.of},
                             {"result", gap.result},
                             {"feedback", gap.feedback},
                             {"hash", gap.hash()},
                             {"look_at", gap.unusual},
                             {"same_as", gap.same_as}});
    all.push_back(one);
  }
  return nlohmann::ordered_json{{"graded", all}}.dump(
             2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) +
         "\n";
}

std::string grades_csv(const std::vector<Grade>& grades) {
  std::string table =
      "student,id,lesson,gap,points,of,result,feedback,look at,hash,same as,time\r\n";
  const auto add = [&](std::initializer_list<std::string> fields) {
    bool first = true;
    for (const std::string& field : fields) {
      table += first ? "\"" : ",\"";
      first = false;
      // A spreadsheet would take what begins so as a formula.
      if (!field.empty() && std::strchr("=+-@", field[0])) table += "'";
      for (char c : field) table += c == '"' ? std::string("\"\"") : std::string(1, c);
      table += "\"";
    }
    table += "\r\n";
  };
  for (const Grade& grade : grades) {
    std::string feedback;
    for (const GapGrade& gap : grade.gaps) {
      feedback += (feedback.empty() ? "" : "; ") + gap.gap + ": " + gap.result;
      add({grade.student, grade.id, grade.lesson, gap.gap, str(gap.points), str(gap.of), gap.result,
           gap.feedback, joined(gap.unusual), gap.hash(), joined(gap.same_as), grade.time});
    }
    // No points where nothing could be graded: that is for the instructor to decide.
    const bool graded = grade.problem.empty();
    add({grade.student, grade.id, grade.lesson, "total", graded ? str(grade.points()) : "",
         graded ? str(grade.of()) : "", graded ? "graded" : "not graded: " + grade.problem,
         feedback, "", joined(grade.same_as), grade.time});
  }
  return table;
}

}  // namespace focus::kit
