// The tables of README.md, cuda/README.md and the lessons' pages that hold measured numbers: made
// from recorded results, so that no number is copied by hand.
#pragma once

#include "../manifest.h"

namespace focus::kit {

// Rewrites what stands between the lines `<!-- table: NAME -->` and `<!-- end of table -->`. NAME:
//   lessons        the manifest, and each lesson's recorded verdict
//   plan           minutes and prerequisites, from the manifest
//   step speed, gpu step speed, kernel speed, kernel ratios, ladder      see speed_tables.h
//   results/X.md   that file beside the page: a lesson's own table, which the lesson writes
// With `check` nothing is written, and the status is 1 if a table is not current. InputError for
// an unknown name, or if a lesson's recorded verdict and the manifest's words disagree on whether
// it was reproduced.
int write_tables(const Manifest& manifest, bool check);

}  // namespace focus::kit
