#include "speed_tables.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <functional>
#include <map>
#include <vector>

#include "error.h"
#include "files/atomic_file.h"
#include "files/rows.h"
#include "report/statistics.h"

namespace focus::kit {

namespace {

using Cells = std::vector<std::string>;

double number(const std::string& text, const std::filesystem::path& csv) {
  try {
    return std::stod(text);
  } catch (const std::exception&) {
    fail_input(csv.string(), ": '", text, "' is not a number");
  }
}

std::string rounded(const char* format, double value) {
  char text[32];
  std::snprintf(text, sizeof text, format, value);
  return text;
}

// "memory-efficient" → what a reader calls it.
std::string peer_name(const std::string& peer) {
  if (peer == "memory-efficient") return "memory-efficient SDPA, full attention";
  if (peer == "eager masked top-k") return "masked top-5 in eager PyTorch";
  if (peer.starts_with("FlexAttention")) return "compiled FlexAttention, the same mask";
  return peer;
}

std::string our_name(const std::string& ours) {
  return ours == "full" ? "full attention" : ours + "(5)";
}

}  // namespace

std::string step_speed_table(const std::filesystem::path& csv) {
  struct Times {
    std::vector<double> torch, focus;
  };
  std::vector<std::pair<std::string, Times>> settings;  // in the file's order
  for (const Cells& row : read_rows(csv, "program,attention,k,length,blocks,round,ms_per_step")) {
    const std::string attention = row[1] == "full" ? "full" : str(row[1], "(", row[2], ")");
    const std::string key = str(row[3], ", ", row[4], " | ", attention);
    auto at = std::find_if(settings.begin(), settings.end(),
                           [&](const auto& entry) { return entry.first == key; });
    if (at == settings.end()) at = settings.insert(at, {key, {}});
    (row[0] == "torch" ? at->second.torch : at->second.focus).push_back(number(row[6], csv));
  }
  std::string table =
      "| length, blocks | attention | PyTorch, ms | ours, ms | ratio (of the minima) |\n"
      "|---|---|---|---|---|\n";
  for (const auto& [key, times] : settings) {
    if (times.torch.empty() || times.focus.empty())
      fail_input(csv.string(), ": only one side measured ", key);
    const double theirs = median(times.torch), ours = median(times.focus);
    const char* format = theirs < 100 ? "%.1f" : "%.0f";
    table += str("| ", key, " | ", rounded(format, theirs), " | ", rounded(format, ours), " | ",
                 rounded("%.1f", theirs / ours), " (",
                 rounded("%.1f", *std::min_element(times.torch.begin(), times.torch.end()) /
                                     *std::min_element(times.focus.begin(), times.focus.end())),
                 ") |\n");
  }
  return table;
}

std::string kernel_speed_table(const std::filesystem::path& csv, bool brief) {
  std::string table = brief
                          ? "| ours | against | forward | forward + backward |\n|---|---|---|---|\n"
                          : "| shape | pass | PyTorch / ours | ratio | aimed at |\n"
                            "|---|---|---|---|---|\n";
  std::vector<std::pair<std::string, std::map<std::string, std::string>>> pairs;
  for (const Cells& row :
       read_rows(csv, "shape,pass,name,median_or_ratio,quartile1_or_gate,quartile3_or_target")) {
    const size_t over = row[2].find(" / ours ");
    if (over == std::string::npos) continue;
    const std::string ratio = rounded("%.2f", number(row[3], csv));
    if (!brief) {
      table +=
          str("| ", row[0], " | ", row[1] == "both" ? "forward + backward" : row[1], " | ", row[2],
              " | ", ratio, " | ", row[4], row[5].empty() ? "" : " / ", row[5], " |\n");
    } else if (row[0] == "A") {
      const std::string key =
          str(our_name(row[2].substr(over + 8)), " | ", peer_name(row[2].substr(0, over)));
      auto at = std::find_if(pairs.begin(), pairs.end(),
                             [&](const auto& entry) { return entry.first == key; });
      if (at == pairs.end()) at = pairs.insert(at, {key, {}});
      at->second[row[1]] = ratio;
    }
  }
  for (auto& [key, ratios] : pairs)
    table += str("| ", key, " | ", ratios["forward"], " | ", ratios["both"], " |\n");
  return table;
}

std::string ladder_table(const std::filesystem::path& folder) {
  const std::filesystem::path csv = folder / "ladder_h200.csv";
  const std::vector<Cells> measured = read_rows(
      csv,
      "rung,kernel,pass,pattern,batch,heads,length,width,k,global_tokens,cold_ms,quartile1_ms,"
      "quartile3_ms,warm_ms,runs,useful_tflops,dense_tflops,gbytes_per_s,percent_of_roof,error");
  std::string table =
      "| rung | pattern | idea | pass | predicted ms | measured ms | TFLOP/s useful | % of roof |\n"
      "|---|---|---|---|---|---|---|---|\n";
  for (const Cells& row : read_rows(folder / "predicted_ms.csv", "rung,pass,pattern,idea,ms")) {
    const auto m = std::find_if(measured.begin(), measured.end(), [&](const Cells& cells) {
      return cells[0] == row[0] && cells[2] == row[1] && cells[3] == row[2];
    });
    if (m == measured.end()) fail_input(csv.string(), ": no row for rung ", row[0], " ", row[1]);
    const auto value = [&](size_t column) { return number((*m)[column], csv); };
    table += str("| ", row[0].size() < 2 ? "0" : "", row[0], " | ",
                 row[2] == "topk" ? "top-k" : row[2], " | ", row[3], " | ", row[1], " | ",
                 row[4].empty() ? "–" : row[4], " | ", rounded("%.3g", value(10)), " | ",
                 rounded("%.3g", value(15)), " | ", rounded("%.1f", value(18)), " |\n");
  }
  return table;
}

std::string gpu_step_table(const std::filesystem::path& csv) {
  static const std::pair<const char*, const char*> columns[] = {
      {"eager", "eager"},
      {"compiled", "compiled"},
      {"stacked", "seeds stacked, one graph"},
      {"ours operations", "ours by operation"},
      {"ours graph", "ours as a graph"},
      {"ours fused", "ours, blocks fused"},
      {"ours one", "ours, one launch"},
      {"ours 3xtf32", "in 3xtf32"},
      {"ours tf32", "in tf32"},
      {"ours bf16", "in bf16"}};
  std::vector<std::pair<std::string, std::map<std::string, Cells>>> shapes;  // in the file's order
  std::map<std::string, int> measured;
  for (const Cells& row :
       read_rows(csv, "length,blocks,seeds,attention,what,ms,times_ours,floor_ms")) {
    const std::string key = str(row[0], ", ", row[1], ", ", row[2], " | ", our_name(row[3]));
    if (shapes.empty() || shapes.back().first != key) shapes.push_back({key, {}});
    shapes.back().second[row[4]] = row;
    ++measured[row[4]];
  }
  const std::string text = read_file(csv, 1 << 20);
  std::string table = text.substr(2, text.find('\n') - 2) + ".\n\n", line = "|---|---|---|---|\n";
  table += "| length, blocks, seeds | attention |";
  for (const auto& [what, title] : columns)
    if (measured[what] > 0) table += str(" ", title, " |"), line = "|---" + line;
  table += " floor | ours in float32 / floor |\n" + line;
  for (const auto& [key, rows] : shapes) {
    table += "| " + key + " |";
    double fastest = HUGE_VAL, floor = 0;
    for (const auto& [what, title] : columns) {
      if (measured[what] == 0) continue;
      const auto row = rows.find(what);
      if (row == rows.end()) {
        table += " |";
        continue;
      }
      const double ms = number(row->second[5], csv);
      table += str(" ", rounded(ms < 1 ? "%.3f" : "%.2f", ms), " |");
      const std::string name = what;
      if (name == "ours operations" || name == "ours graph" || name == "ours fused" ||
          name == "ours one")
        fastest = std::min(fastest, ms), floor = number(row->second[7], csv);
    }
    table += str(" ", rounded(floor < 1 ? "%.3f" : "%.2f", floor), " | ",
                 rounded("%.1f", fastest / floor), " |\n");
  }
  return table;
}

}  // namespace focus::kit
