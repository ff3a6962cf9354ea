#include "octet/engine/pool_taps_impl.h"

#include "octet/base/check_impl.h"
#include "octet/engine/geometry_impl.h"

namespace octet::engine_detail {
namespace {

// One output's window along one dimension.
struct WindowSpan {
  std::vector<int64_t> inside;  // its places inside the image
  int64_t padded = 0;           // how many there are with the padding
};

std::vector<WindowSpan> window_spans(const Window3& w, size_t d, int64_t size, int64_t outputs) {
  std::vector<WindowSpan> spans(static_cast<size_t>(outputs));
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t k = 0; k < w.kernel[d]; ++k) {
      const int64_t i = o * w.stride[d] - w.begin[d] + k * w.dilation[d];
      if (i >= 0 && i < size) spans[o].inside.push_back(i);
      if (i < size + w.end[d]) ++spans[o].padded;  // ceil_mode can reach beyond the padding
    }
  return spans;
}

// Cell i of n covers floor(i*size/n) to ceil((i+1)*size/n): PyTorch's adaptive pooling.
std::vector<WindowSpan> adaptive_spans(int64_t size, int64_t outputs) {
  std::vector<WindowSpan> spans(static_cast<size_t>(outputs));
  for (int64_t o = 0; o < outputs; ++o) {
    for (int64_t i = o * size / outputs; i < ((o + 1) * size + outputs - 1) / outputs; ++i)
      spans[o].inside.push_back(i);
    spans[o].padded = static_cast<int64_t>(spans[o].inside.size());
  }
  return spans;
}

int64_t most_inside(const std::vector<WindowSpan>& spans) {
  size_t most = 0;
  for (const WindowSpan& s : spans) most = std::max(most, s.inside.size());
  return static_cast<int64_t>(most);
}

}  // namespace

PoolTaps pool_taps(const OpSpec& spec, const Shape& x, const Shape& y) {
  OCTET_CHECK(x[1] * x[2] * x[3] * x[4] < (int64_t{1} << 31), unsupported,
              "{}: an image of {} is too large for 32-bit offsets", spec.label, to_string(x));
  const bool adaptive = spec.attrs.has("output_size");
  const bool include_pad =
      spec.attrs.has("count_include_pad") && spec.attrs.get_bool("count_include_pad");
  const int64_t divisor =
      spec.attrs.has("divisor_override") ? spec.attrs.get_int("divisor_override") : 0;
  std::array<std::vector<WindowSpan>, 3> spans;
  for (size_t d = 0; d < 3; ++d)
    spans[d] = adaptive ? adaptive_spans(x[d + 2], y[d + 2])
                        : window_spans(pool_window3(spec), d, x[d + 2], y[d + 2]);
  PoolTaps t;
  t.taps = most_inside(spans[0]) * most_inside(spans[1]) * most_inside(spans[2]);
  t.offsets.assign(static_cast<size_t>(y[2] * y[3] * y[4] * t.taps), -1);
  int32_t* row = t.offsets.data();
  for (const WindowSpan& z : spans[0])
    for (const WindowSpan& r : spans[1])
      for (const WindowSpan& c : spans[2]) {
        int32_t* to = row;
        for (int64_t iz : z.inside)
          for (int64_t iy : r.inside)
            for (int64_t ix : c.inside)
              *to++ = static_cast<int32_t>(((iz * x[3] + iy) * x[4] + ix) * x[1]);
        const auto inside =
            static_cast<int64_t>(z.inside.size() * r.inside.size() * c.inside.size());
        t.counts.push_back(divisor > 0   ? divisor
                           : include_pad ? z.padded * r.padded * c.padded
                                         : inside);
        row += t.taps;
      }
  return t;
}

}  // namespace octet::engine_detail
