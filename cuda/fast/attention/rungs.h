// The rungs that are there for speed alone; cuda/attention/ladder.cpp lists them after the others.
//
// In *.cu.
#pragma once

#include "cuda/attention/rungs.h"

namespace focus::gpu {

extern const Rung dense_14_forward, dense_15_backward, topk_16_forward, topk_17_forward,
    dense_18_forward, dense_19_backward;

}  // namespace focus::gpu
