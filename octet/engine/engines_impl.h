#pragma once
// What the engines that come with octet have for other parts of it.

#include <memory>

#include "octet/engine/registry.h"

namespace octet {

namespace native {
// An operator on codes that is defined as dequantize, float operator, quantize, and whose float
// operator has a native kernel: the three steps as one kernel. Null: it is not such.
std::unique_ptr<Kernel> make_through_float(const OpSpec& spec);
}  // namespace native

namespace onednn {
// The gradients of layers alone, which are oneDNN's whatever engine is in force.
Engine make_training_engine();
}  // namespace onednn

}  // namespace octet
