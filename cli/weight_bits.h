#pragma once
// --weight-bits: weights of fewer than 8 bits, for `quantize` and `qat`.

#include <cstdint>

#include "cli/arguments.h"
#include "octet/quant/observe/qconfig.h"

namespace octet::cli {

void add_weight_bits(Command& command, int64_t& bits);

// The QConfig with symmetric weights in -2^(bits-1) .. 2^(bits-1)-1 (8 bits: as it is).
quant::QConfig with_weight_bits(quant::QConfig qconfig, int64_t bits);

}  // namespace octet::cli
