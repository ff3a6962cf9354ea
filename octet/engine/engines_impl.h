#pragma once
// The engines behind make_kernel.

#include "octet/engine/engine.h"

namespace octet {

// float conv2d, linear, matmul, pools, add, mul, clamps, and training
const Engine& onednn_engine();
const Engine& reference_engine();  // the plainest C++: the oracle

namespace onednn {
// The kernels of training, which are oneDNN's whatever engine is in force; null if `spec` is none
// of them.
std::unique_ptr<Kernel> make_training(const OpSpec& spec);
}  // namespace onednn

}  // namespace octet
