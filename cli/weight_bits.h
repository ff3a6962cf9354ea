#pragma once
// --weight-bits: weights of fewer than 8 bits, for `quantize`, `tune` and `qat`.

#include <cstdint>

#include "cli/arguments.h"

namespace octet::cli {

void add_weight_bits(Command& command, int64_t& bits);

}  // namespace octet::cli
