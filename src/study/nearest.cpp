#include "study/nearest.h"

#include "error.h"

namespace focus {

std::vector<std::string> differences(const RunSettings& there, const RunSettings& here) {
  std::vector<std::string> all;
  for (const SettingField& field : setting_fields())
    if (const std::string a = field.get(there), b = field.get(here); a != b)
      all.push_back(str(field.name, " is ", a, " there, ", b, " here"));
  return all;
}

}  // namespace focus
