#include "cli/weight_bits.h"

#include "cli/common.h"

namespace octet::cli {

void add_weight_bits(Command& command, int64_t& bits) {
  command.add_option("--weight-bits", bits, "bits of a weight, 2 to 8 (8)")
      .type_name("N")
      .check(whole_number(2, 8));
}

}  // namespace octet::cli
