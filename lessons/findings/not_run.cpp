// What was not run, and how long it takes.
#include <algorithm>
#include <map>

#include "page.h"

namespace focus::findings {

// One GPU (an H200), ten seeds: of the seven tasks an epoch takes an eighth of a second (at their
// length of 40) whatever the mechanism; of list operations, with ten blocks, full attention 9 s,
// the others about 4.
double gpu_minutes(const RunSettings& s, size_t seeds) {
  if (s.task == "text") {  // a step of one run, by its blocks, and a third of it for evaluation
    const double ms = s.blocks * (s.d_model <= 32 ? 0.45 : 1.0), steps = s.train_size / s.batch;
    return double(seeds) * s.epochs * steps * ms * 4 / 3 / 60000;
  }
  const double ten_blocks = s.attention == Pattern::full ? 9 : 4,
               epoch = s.task == "list-operations" ? ten_blocks * s.blocks / 10
                                                   : 0.125 * s.length / 40 * s.blocks / 5;
  return s.epochs * epoch * std::max(1.0, double(seeds) / 10) / 60;
}

namespace {

std::string command_of(const RunSettings& s, size_t seeds) {
  const RunSettings usual = RunSettings::defaults_for(find_task(s.task));
  std::string command =
      str("build/focus train --task ", s.task, " --attention ", name_of(s.attention));
  for (const SettingField& field : setting_fields()) {
    const std::string name = field.name, value = field.get(s);
    if (name != "task" && name != "attention" && value != field.get(usual))
      command += str(" --", name, value == "yes" ? "" : " " + value);  // a value, or a flag
  }
  return str(command, " --seeds ", seeds, " --device cuda --out DIR");
}

}  // namespace

std::vector<NotRun> not_run(const Records& r) {
  const fs::path lessons = "lessons";
  const std::vector<std::pair<std::string, fs::path>> tables = {
      {"GELU and Mish (F5)", lessons / "07-activations/paper.csv"},
      {"topk(2), for lesson 14's prediction", lessons / "14-conditions/paper.csv"},
      {"list operations (figure 7)", lessons / "06-generalisation/list-operations.csv"},
      {"the factor C (lesson 17)", lessons / "17-sharpness/paper.csv"},
      {"lesson 17's controls", lessons / "17-sharpness/controls.csv"},
      {"more controls of lesson 17", lessons / "17-sharpness/more-controls.csv"},
      {"fixed masks with k = 9", lessons / "06-generalisation/masks-9.csv"},
      {"depths and heads (F6)", lessons / "11-architecture/paper.csv"},
      {"depths and heads, even pairs", lessons / "11-architecture/even-pairs.csv"},
      {"rates, decays and Adam (F7)", lessons / "12-optimisers/paper.csv"},
      {"decays, even pairs", lessons / "12-optimisers/even-pairs.csv"},
      {"deeper models of text (F13)", lessons / "15-next-token/deeper.csv"}};
  std::vector<NotRun> all;
  std::map<std::string, bool> seen;
  for (const auto& [name, table] : tables) {
    NotRun group{name, ""};
    for (StudyVariant v : read_study(table).variants) {
      // Without this machine's folders.
      if (const size_t at = v.settings.text_data.find("out/"); at != std::string::npos)
        v.settings.text_data.erase(0, at);
      TextMap settings = to_text(v.settings);
      for (const char* key : {"task", "attention", "k", "epochs"}) settings.erase(key);
      const RecordedVariant* there =
          r.find(v.settings.task, name_of(v.settings.attention), v.settings.k, settings);
      if (there && there->seeds.size() >= v.seeds.size()) continue;
      const std::string command = command_of(v.settings, v.seeds.size());
      if (seen[command]) continue;
      seen[command] = true;
      const double minutes = gpu_minutes(v.settings, v.seeds.size());
      ++group.variants, group.minutes += minutes;
      group.rows += str("| ", v.settings.task, ", ", v.name,
                        there ? str(" (", there->seeds.size(), " seeds are recorded)") : "", " | `",
                        command, "` | ", format("%.1f", minutes), " |\n");
    }
    if (group.variants > 0) all.push_back(group);
  }
  return all;
}

namespace {

std::string minutes_text(double minutes) {
  return format("%.0f", minutes) + (minutes < 1.5 ? " minute" : " minutes");
}

}  // namespace

// "3 variants of list operations (figure 7), 40 minutes; …"
std::string in_short(const std::vector<NotRun>& groups) {
  std::string text;
  for (const NotRun& g : groups)
    text += str(text.empty() ? "" : "; ", g.name, ": ", g.variants,
                g.variants == 1 ? " variant, " : " variants, ", minutes_text(g.minutes));
  return text;
}

std::string in_full(const std::vector<NotRun>& groups) {
  if (groups.empty()) return "";
  double minutes = 0;
  for (const NotRun& g : groups) minutes += g.minutes;
  std::string text = str(
      "## Not run\n\nRows of the lessons' tables that nobody has run yet, each with its command "
      "and an estimate in minutes of one H200 (ten seeds together; of text three): ",
      format("%.0f", minutes),
      " minutes in all. `build/focus study TABLE --device cuda --out DIR` runs a whole table.\n\n");
  for (const NotRun& g : groups)
    text += str("**", g.name, "**, ", minutes_text(g.minutes),
                "\n\n| variant | command | minutes |\n|---|---|---|\n", g.rows, "\n");
  return text;
}

}  // namespace focus::findings
