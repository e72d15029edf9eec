// Submissions as learning platforms deliver them: a folder for each student with the lesson's tree
// somewhere in it, or with an archive of the tree, or an archive alone. Nothing is unpacked to the
// disk, no symbolic or hard link is followed, and every size is bounded.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "../manifest.h"

namespace focus::kit {

struct Upload {
  std::string student, id;  // "Ada Lovelace", "12345"; without a platform's pattern the name, ""
  std::string problem;      // why it is no submission; empty: it is one
  std::string tree;         // where in the upload its files were found, ends with "/" or is empty
  std::string lesson;       // its number, by lesson.txt or by the gaps in its files
  std::map<std::string, std::string> files;    // the lesson's files with gaps: path → text
  std::map<std::string, std::string> missing;  // those that cannot be taken: path → why
};

// Where the uploads are: `folder` itself if it is one student's tree, else all that is in it,
// ascending. `gaps`: those of all lessons.
std::vector<std::filesystem::path> find_uploads(const std::vector<Gap>& gaps,
                                                const std::filesystem::path& folder);

// Never throws for what a student may have put there. `lesson`: the one that it must be of, or "".
Upload read_upload(const Manifest& manifest, const std::vector<Gap>& gaps,
                   const std::filesystem::path& path, const std::string& lesson);

// For terminals and tables: control characters, direction marks and broken UTF-8 as \xNN.
std::string printable(const std::string& text);

}  // namespace focus::kit
