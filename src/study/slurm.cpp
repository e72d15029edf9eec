#include "study/slurm.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "error.h"
#include "files/atomic_file.h"
#include "files/folder.h"
#include "suggest.h"

namespace focus {

namespace fs = std::filesystem;

namespace {

// sbatch reads the #SBATCH lines itself, without a shell: blanks need double quotes there.
std::string sbatch_value(const std::string& text) {
  return "\"" + text + "\"";
}

struct Output {
  int status = 0;
  std::string out, err;
};

std::string read_all(int descriptor) {
  std::string text;
  char bytes[4096];
  for (ssize_t got; (got = ::read(descriptor, bytes, sizeof bytes)) != 0;)
    if (got > 0)
      text.append(bytes, size_t(got));
    else if (errno != EINTR)
      break;
  while (text.ends_with('\n')) text.pop_back();
  return text;
}

// Standard error goes to a file, so that neither stream waits for the other to be read.
Output run(const std::vector<std::string>& words) {
  const auto fail = [&] { fail_input("cannot start ", words[0], ": ", std::strerror(errno)); };
  std::FILE* err = std::tmpfile();
  int pipe_ends[2];
  if (!err || ::pipe(pipe_ends) != 0) fail();
  std::vector<char*> arguments;
  for (const std::string& word : words) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  const pid_t child = ::fork();
  if (child < 0) fail();
  if (child == 0) {
    ::dup2(pipe_ends[1], 1);
    ::dup2(::fileno(err), 2);
    ::close(pipe_ends[0]);
    ::close(pipe_ends[1]);
    ::execvp(arguments[0], arguments.data());
    ::_exit(127);
  }
  ::close(pipe_ends[1]);
  Output output;
  output.out = read_all(pipe_ends[0]);
  ::close(pipe_ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) continue;
  output.status = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
  ::lseek(::fileno(err), 0, SEEK_SET);
  output.err = read_all(::fileno(err));
  std::fclose(err);
  return output;
}

// Submits a script and returns the job's number. `sbatch --parsable` prints NUMBER[;CLUSTER], and
// what a site adds comes before that or on standard error.
std::string sbatch(const std::vector<std::string>& options, const fs::path& script) {
  std::vector<std::string> words = {"sbatch", "--parsable"};
  words.insert(words.end(), options.begin(), options.end());
  words.push_back(script.string());
  const Output output = run(words);
  const std::string by_hand = str("; the scripts are in ", script.parent_path().string());
  if (output.status == 127)
    fail_input("sbatch is not there, so nothing was submitted: run this where Slurm is", by_hand);
  if (output.status != 0) {
    std::string why = output.err.empty() ? output.out : output.err;
    std::replace(why.begin(), why.end(), '\n', ' ');
    fail_input("sbatch refused ", script.string(), ": ", why, by_hand);
  }
  const std::string last = output.out.substr(output.out.rfind('\n') + 1);
  const std::string number = last.substr(0, last.find(';'));
  if (number.empty() || number.find_first_not_of("0123456789") != std::string::npos)
    fail_input("sbatch took ", script.string(), " but printed no job number: '", output.out,
               "'; see squeue, and cancel or go on by hand", by_hand);
  return number;
}

}  // namespace

std::string shard_script(const SlurmJob& job) {
  const std::string dir = job.folder.string();
  return str("#!/bin/sh\n#SBATCH --job-name=focus-study\n#SBATCH --array=1-", job.shards,
             "\n#SBATCH --cpus-per-task=", job.threads,
             "\n#SBATCH --output=", sbatch_value(dir + "/slurm/shard-%a.log"), "\n",
             job.device == "cpu" ? "" : str("#SBATCH --gres=gpu:", job.gpus, "\n"),
             "# One shard of the study. Submit it again after a time limit: it goes on.\n",
             "dir=", shell_word(dir), "\n", "exec ", shell_word(job.program.string()),
             " study \"$dir/study.csv\" --out \"$dir/parts/$SLURM_ARRAY_TASK_ID\" \\\n",
             "  --shard \"$SLURM_ARRAY_TASK_ID/", job.shards, "\" --threads ", job.threads,
             job.device == "cpu" ? "" : str(" --device ", job.device, " --gpus ", job.gpus), "\n");
}

std::string merge_script(const SlurmJob& job) {
  const std::string dir = job.folder.string();
  return str("#!/bin/sh\n#SBATCH --job-name=focus-merge\n#SBATCH --output=",
             sbatch_value(dir + "/slurm/merge.log"), "\n",
             "# Joins the shards into the study's folder, once all are over.\n",
             "dir=", shell_word(dir), "\n", "exec ", shell_word(job.program.string()),
             " study merge --out \"$dir\" \"$dir\"/parts/*\n");
}

std::string submit(const SlurmJob& job) {
  const fs::path folder = job.folder / "slurm";
  make_folder(folder);
  const fs::path shards = folder / "shards.sh", merge = folder / "merge.sh";
  write_file_atomically(shards, shard_script(job));
  write_file_atomically(merge, merge_script(job));
  const std::string first = sbatch({}, shards);
  const std::string second = sbatch({"--dependency=afterok:" + first, "--kill-on-invalid-dep=yes"},
                                    merge);  // after a failure it ends
  return str("submitted job ", first, ", an array of ", job.shards, " shards with ", job.threads,
             " thread(s)", job.device == "cpu" ? "" : str(" and ", job.gpus, " GPU(s)"),
             " each, and job ", second,
             ", which joins them afterwards\nscripts and logs: ", folder.string(),
             "\nresults will be in ", job.folder.string(),
             "; after a failure submit the same command again\n");
}

}  // namespace focus
