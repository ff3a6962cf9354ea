#pragma once
// The operand of a dynamic layer, quantized when its values are known.

#include <cstdint>
#include <string>

#include "octet/engine/integer_weights_impl.h"

namespace octet::engine_detail {

// Makes quint8 codes of n floats whose range chooses the qparams by `rule`, whose errors it has, in
// parallel.
affine::RunTimeQParams quantize_at_run_time(const kernels::KernelTable& table, const float* x,
                                            int64_t n, const RunTimeRule& rule,
                                            const std::string& label, uint8_t* codes);

}  // namespace octet::engine_detail
