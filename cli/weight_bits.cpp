#include "cli/weight_bits.h"

#include "cli/common.h"

namespace octet::cli {

void add_weight_bits(Command& command, int64_t& bits) {
  command.add_option("--weight-bits", bits, "bits of a weight, 2 to 8 (8)")
      .type_name("N")
      .check(whole_number(2, 8));
}

quant::QConfig with_weight_bits(quant::QConfig qconfig, int64_t bits) {
  if (bits < 8)
    qconfig.weight = qconfig.weight.with_quant_range(-(int64_t{1} << (bits - 1)),
                                                     (int64_t{1} << (bits - 1)) - 1);
  return qconfig;
}

}  // namespace octet::cli
