#pragma once
// The engines behind make_kernel.

#include "octet/engine/engine.h"

namespace octet {

const Engine& onednn_engine();     // float conv2d, linear, matmul, pools, add, mul, clamps
const Engine& reference_engine();  // the plainest C++: the oracle

}  // namespace octet
