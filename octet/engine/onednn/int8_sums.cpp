#include <algorithm>
#include <limits>

#include "octet/engine/geometry_impl.h"
#include "octet/engine/onednn/int8_impl.h"

namespace octet::onednn {

CodeSums::CodeSums(const engine_detail::WeightCodes& w, const OpSpec& spec) {
  struct Channel {
    int64_t above = 0, below = 0;  // sums of the codes above 0 and, as a positive number, below
    int32_t most[2] = {0, 0}, least[2] = {0, 0};  // the two largest and smallest, and 0
  };
  std::vector<Channel> channels(static_cast<size_t>(w.out_channels));
  const Shape shape = spec.inputs[1].shape();
  const bool transposed = engine_detail::is_transposed(spec);
  // Rows of the weight's second dimension; in a transposed one those are the output channels of a
  // group.
  const int64_t columns = shape[1], window = numel({shape.begin() + 2, shape.end()});
  const int64_t group_rows = transposed ? shape[0] / spec.attrs.get_int("groups") : 0;
  taps.assign(static_cast<size_t>(window * w.out_channels), 0);
  const int8_t* q = w.codes.data();
  for (int64_t row = 0; row < shape[0]; ++row)
    for (int64_t column = 0; column < columns; ++column) {
      const int64_t n = transposed ? row / group_rows * columns + column : row;
      Channel& c = channels[static_cast<size_t>(n)];
      for (int64_t t = 0; t < window; ++t) {
        const int32_t code = *q++;
        taps[static_cast<size_t>(t * w.out_channels + n)] += code;
        (code > 0 ? c.above : c.below) += std::abs(code);
        if (code > c.most[1]) c.most[1] = code;
        if (c.most[1] > c.most[0]) std::swap(c.most[0], c.most[1]);
        if (code < c.least[1]) c.least[1] = code;
        if (c.least[1] < c.least[0]) std::swap(c.least[0], c.least[1]);
      }
    }
  for (const Channel& c : channels) {
    farthest = std::max({farthest, 255 * c.above, 255 * c.below});
    pairs_fit = pairs_fit && 255 * (c.most[0] + c.most[1]) <= std::numeric_limits<int16_t>::max() &&
                255 * (c.least[0] + c.least[1]) >= std::numeric_limits<int16_t>::min();
  }
}

bool sums_in_32_bits() {
  static const bool vnni = [] {
    const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
    constexpr auto wanted = static_cast<unsigned>(dnnl::cpu_isa::avx512_core_vnni);
    return (isa & wanted) == wanted;
  }();
  return vnni;
}

}  // namespace octet::onednn
