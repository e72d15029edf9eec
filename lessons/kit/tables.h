// README's table of lessons, generated from the manifest and the recorded verdicts.
#pragma once

#include "manifest.h"

namespace focus::kit {

// Rewrites what stands between the marker lines <!-- lessons --> and <!-- end of lessons --> of
// README.md. With `check` nothing is written, and the status is 1 if it is not current. InputError
// if a lesson's recorded verdict and the manifest's words disagree on whether it was reproduced.
int write_tables(const Manifest& manifest, bool check);

}  // namespace focus::kit
