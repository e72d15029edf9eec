// Trees made from the one source: a student's, with the gaps of one lesson; and the snapshot after
// a lesson, complete.
#pragma once

#include <filesystem>
#include <map>

#include "manifest.h"

namespace focus::kit {

// A student's tree: lessons before `lesson` complete, `lesson` with gaps, nothing after it, no
// solutions, no history. `folder` must not exist or be empty (InputError); it appears whole or not
// at all.
void write_student_tree(const Manifest& manifest, const std::string& lesson,
                        const std::filesystem::path& folder);

// The tree after `lesson`. Files that are already as they should be are left alone and those that
// do not belong are removed, so that a build there starts from what it has. With `stubs` the
// lesson's gaps are empty.
void write_snapshot(const Manifest& manifest, const std::string& lesson, bool stubs,
                    const std::filesystem::path& folder);

// The sources with all mistakes of all gaps (render_mistakes), in the same way.
void write_with_mistakes(const Manifest& manifest, const std::filesystem::path& folder);

// What `make hint-NN` and `make solution-NN` read: a line "NAME<TAB>KIND<TAB>TEXT" each, where KIND
// is place, points, lines, 1, 2, 3 or notice.
std::string gap_table(const std::vector<Gap>& gaps);

}  // namespace focus::kit
