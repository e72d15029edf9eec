// Fuzz target for the readers of study tables, results.csv, study.txt and metrics.csv:
// `fuzz_study_table SECONDS [SEED]`.
//
// Whatever the readers accept must be sound: settings that pass their checks, runs with different
// folders, variants with different names, and results that read back the same. fuzz.h has the rest.
#include <set>
#include <stdexcept>

#include "files/metrics.h"
#include "fuzz.h"
#include "study/provenance.h"
#include "study/study.h"

using namespace focus;

static void require(bool sound, const char* what) {
  if (!sound) throw std::logic_error(what);
}

static void read_table(const std::string& bytes) {
  const Study study = parse_study(bytes, "fuzz.csv");
  std::set<std::string> names, folders;
  for (const StudyVariant& variant : study.variants) {
    check_settings(variant.settings);
    require(!variant.seeds.empty(), "no seeds");
    require(names.insert(variant.name).second, "two variants of one name");
    require(variant.name.find_first_of(",\n") == std::string::npos, "a name that breaks the CSV");
  }
  for (const StudyRun& run : study.runs) {
    require(run.folder.size() < 200 && run.folder.find('/') == std::string::npos,
            "a folder's name");
    require(folders.insert(run.folder).second, "two runs in one folder");
  }
}

int main(int argc, char** argv) {
  const std::vector<std::string> corpus = {
      "task,attention,k,global-tokens,blocks,heads,seeds\nparity,full|topk,5,,2|4,1 2,3\n"
      "even-pairs,block,9,1,3,,\n",
      "# c\nattention,k,activation,optimizer,lr,lr-decay,target,seed\r\ntopk,5,relu gelu|mish,"
      "sgd|adam,1e-3 0.5,0.99,95%,1 2 3\r\n",
      "attention,length,train-size,val-size,epochs,dropout,clip,batch,d-model,d-mlp\nfull,40,100,"
      "50,"
      "7,0.1,0,25,8,8\n",
      str("# date: x\n# variant topk(5) heads=2: target 95%; seeds 7 8; a\n", results_columns,
          "\ntopk(5) heads=2,1,7,0.72,50.72,0.70,53.4\ntopk(5) heads=2,2,7,0.5,60,nan,nan\n"),
      "results-version: 1\ndevice: cuda\nfirst-date: a\nlast-date: b\nhardware: c\n"
      "data-records: yes\ndata a: b.tsv: rows=12 longest=5 hash=0123456789abcdef\n"
      "data t: rows=12 longest=5 hash=0123456789abcdef vocabulary=262\nprobe x: 0.5\nprobe y: "
      "nan\n",
      "epoch,seed,train_loss,train_accuracy,val_loss,val_accuracy,seconds\n"
      "1,7,0.693,50.25,0.7,49,0.5\n2,7,0.3,100,nan,nan,1.25\n"};
  return fuzz_main(argc, argv, "fuzz_study_table", corpus, [](const std::string& bytes) {
    bool accepted = accepts([&] { read_table(bytes); });
    accepted |= accepts([&] {
      const Provenance provenance = parse_provenance(bytes, "fuzz.txt");
      require(provenance.version > 0, "a version");
      const std::string text = provenance_text(provenance);
      require(provenance_text(parse_provenance(text, "again")) == text,
              "round trip of the provenance");
    });
    accepted |= accepts([&] {
      for (const StudiedVariant& v : parse_results(bytes, "fuzz.csv").variants)
        require(v.seeds.size() == v.curves.size(), "a curve for each seed");
    });
    accepted |= accepts([&] {
      const std::string text = metrics_text(parse_metrics(bytes, "fuzz.csv"));
      require(metrics_text(parse_metrics(text, "again")) == text, "round trip of the metrics");
    });
    return accepted;
  });
}
