#pragma once
// The engines that come with octet; each is put together in the engine.cpp of its folder.

#include <memory>

#include "octet/engine/registry.h"

namespace octet {

namespace native {
Engine make_engine();
// An operator on codes that is defined as dequantize, float operator, quantize, and whose float
// operator has a native kernel: the three steps as one kernel. Null: it is not such.
std::unique_ptr<Kernel> make_through_float(const OpSpec& spec);
}  // namespace native

namespace onednn {
Engine make_engine();
// The gradients of layers alone, which are oneDNN's whatever engine is in force.
Engine make_training_engine();
}  // namespace onednn

namespace xnnpack {
Engine make_engine();
}  // namespace xnnpack

namespace reference {
Engine make_engine();
}  // namespace reference

}  // namespace octet
