#include "octet/engine/geometry_impl.h"

#include <algorithm>
#include <map>
#include <utility>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"

namespace octet::engine_detail {
namespace {

Window window(const OpSpec& spec, int64_t kh, int64_t kw) {
  const auto& stride = spec.attrs.get_ints("stride");
  const auto& pad = spec.attrs.get_ints("padding");
  Window w{kh, kw, stride[0], stride[1], pad[0], pad[1], pad[2], pad[3]};
  if (spec.attrs.has("dilation")) {
    w.dh = spec.attrs.get_ints("dilation")[0];
    w.dw = spec.attrs.get_ints("dilation")[1];
  }
  return w;
}

Window3 window3(const OpSpec& spec, const int64_t* kernel, size_t spatial) {
  Window3 w;
  const auto &stride = spec.attrs.get_ints("stride"), &pad = spec.attrs.get_ints("padding");
  for (size_t i = 0, d = 3 - spatial; i < spatial; ++i, ++d) {
    w.kernel[d] = kernel[i];
    w.stride[d] = stride[i];
    w.begin[d] = pad[i];
    w.end[d] = pad[i + spatial];
    if (spec.attrs.has("dilation")) w.dilation[d] = spec.attrs.get_ints("dilation")[i];
  }
  return w;
}

}  // namespace

Window3 conv_window3(const OpSpec& spec) { return conv_window3(spec, spec.inputs[1].shape()); }
Window3 conv_window3(const OpSpec& spec, const Shape& weight) {
  return window3(spec, weight.data() + 2, weight.size() - 2);
}

Window3 pool_window3(const OpSpec& spec) {
  const auto& kernel = spec.attrs.get_ints("kernel");
  return window3(spec, kernel.data(), kernel.size());
}

bool Window3::is_pointwise() const {
  const std::array<int64_t, 3> ones{1, 1, 1}, zeros{};
  return kernel == ones && stride == ones && begin == zeros && end == zeros;
}

int64_t input_place(const Window3& w, bool transposed, size_t d, int64_t o, int64_t k,
                    int64_t size) {
  int64_t i = o * w.stride[d] - w.begin[d] + k * w.dilation[d];
  if (transposed) {
    i = o + w.begin[d] - k * w.dilation[d];
    if (i % w.stride[d] != 0) return -1;
    i /= w.stride[d];
  }
  return i >= 0 && i < size ? i : -1;
}

TapOffsets tap_offsets(const Window3& w, bool transposed, const Shape& x, const Shape& y) {
  OCTET_CHECK(x[1] * x[2] * x[3] * x[4] < (int64_t{1} << 31), unsupported,
              "an image of {} is too large for 32-bit offsets", to_string(x));
  // Along each dimension first: where the tap of an output lies there, in bytes, below 0 if
  // outside.
  std::array<std::vector<int64_t>, 3> places;
  int64_t step = x[1];
  for (size_t d = 3; d-- > 0; step *= x[d + 2])
    for (int64_t o = 0; o < y[d + 2]; ++o)
      for (int64_t k = 0; k < w.kernel[d]; ++k)
        places[d].push_back(input_place(w, transposed, d, o, k, x[d + 2]) * step);
  TapOffsets offsets(y[2] * y[3] * y[4] * w.taps());
  const int64_t row = y[4] * w.taps();
  parallel_ranges(y[2] * y[3], 20'000 / (row + 1) + 1, [&](int64_t row0, int64_t row1) {
    int32_t* to = offsets.data() + row0 * row;
    for (int64_t at_row = row0; at_row < row1; ++at_row)
      for (int64_t ox = 0, oz = at_row / y[3], oy = at_row % y[3]; ox < y[4]; ++ox)
        for (int64_t kz = 0; kz < w.kernel[0]; ++kz)
          for (int64_t ky = 0; ky < w.kernel[1]; ++ky) {
            const int64_t z = places[0][oz * w.kernel[0] + kz],
                          at = places[1][oy * w.kernel[1] + ky];
            const int64_t* columns = &places[2][ox * w.kernel[2]];
            for (int64_t kx = 0; kx < w.kernel[2]; ++kx)
              *to++ = (z | at | columns[kx]) < 0 ? -1 : static_cast<int32_t>(z + at + columns[kx]);
          }
  });
  return offsets;
}

namespace {

// Bit k of element o: the window of the outputs at place o along dimension d meets nothing at its
// place k.
std::vector<uint64_t> empty_places(const Window3& w, bool transposed, size_t d, int64_t size,
                                   int64_t outputs) {
  std::vector<uint64_t> masks(static_cast<size_t>(outputs));
  for (int64_t o = 0; o < outputs; ++o)
    for (int64_t k = 0; k < w.kernel[d]; ++k) {
      // Of a transposed convolution the edges are left alone: there are few such pixels.
      const bool empty = transposed ? (o + w.begin[d] - k * w.dilation[d]) % w.stride[d] != 0
                                    : input_place(w, false, d, o, k, size) < 0;
      if (empty) masks[static_cast<size_t>(o)] |= uint64_t{1} << k;
    }
  return masks;
}

}  // namespace

PixelGroups pixel_groups(const Window3& w, bool transposed, const Shape& x, const Shape& y) {
  PixelGroups result;
  if (y[2] != 1 || w.kernel[0] != 1 || w.taps() < 2 || w.taps() > 64) return result;
  const int64_t height = y[3], width = y[4];
  const std::vector<uint64_t> rows = empty_places(w, transposed, 1, x[3], height),
                              columns = empty_places(w, transposed, 2, x[4], width);
  const auto skipped = [&](uint64_t row, uint64_t column) {
    uint64_t taps = 0;
    for (int64_t i = 0; i < w.kernel[1]; ++i)
      for (int64_t j = 0; j < w.kernel[2]; ++j)
        if ((row >> i & 1) || (column >> j & 1)) taps |= uint64_t{1} << (i * w.kernel[2] + j);
    const uint64_t all = ~uint64_t{0} >> (64 - w.taps());
    return taps == all ? taps & ~uint64_t{1} : taps;
  };
  // The left and right edges count in small images alone; without them rows stay where they are.
  constexpr int64_t kNarrow = 64;
  if (!transposed && width > kNarrow) {
    for (int64_t oy = 0; oy < height; ++oy) {
      if (oy == 0 || rows[oy] != rows[oy - 1]) result.groups.push_back({0, skipped(rows[oy], 0)});
      result.groups.back().end = (oy + 1) * width;
    }
  } else {
    std::map<std::pair<uint64_t, uint64_t>, std::vector<int32_t>> pixels;
    for (int64_t oy = 0; oy < height; ++oy)
      for (int64_t ox = 0; ox < width; ++ox) {
        // The corners stay with their row: groups of one pixel are no gain.
        const uint64_t column = !transposed && rows[oy] != 0 ? 0 : columns[ox];
        pixels[{rows[oy], column}].push_back(static_cast<int32_t>(oy * width + ox));
      }
    for (const auto& [empty, group] : pixels) {
      result.pixels.insert(result.pixels.end(), group.begin(), group.end());
      result.groups.push_back({std::ssize(result.pixels), skipped(empty.first, empty.second)});
    }
  }
  if (std::all_of(result.groups.begin(), result.groups.end(),
                  [](const PixelGroups::Group& g) { return g.skipped == 0; }))
    return {};
  return result;
}

TapOffsets PixelGroups::in_order(TapOffsets offsets, int64_t taps) const {
  if (pixels.empty()) return offsets;
  TapOffsets ordered;
  ordered.reserve(offsets.size());
  for (const int32_t p : pixels) {
    const auto first = offsets.begin() + p * taps;
    ordered.insert(ordered.end(), first, first + taps);
  }
  return ordered;
}

Shape with_3_spatial(const Shape& shape) {
  Shape wide = shape;
  wide.insert(wide.begin() + 2, 5 - shape.size(), 1);
  return wide;
}

Window conv_window(const OpSpec& spec) {
  Shape weight = spec.inputs[1].shape();
  return window(spec, weight[2], weight[3]);
}

Window pool_window(const OpSpec& spec) {
  const auto& kernel = spec.attrs.get_ints("kernel");
  return window(spec, kernel[0], kernel[1]);
}

TapOffsets tap_offsets(const Window& w, int64_t h, int64_t width, int64_t channels, int64_t oh,
                       int64_t ow) {
  const Window3 wide{
      {1, w.kh, w.kw}, {1, w.sh, w.sw}, {0, w.ph, w.pw}, {0, w.ph_end, w.pw_end}, {1, w.dh, w.dw}};
  return tap_offsets(wide, false, {1, channels, 1, h, width}, {1, 0, 1, oh, ow});
}

MatmulGeometry::MatmulGeometry(const Shape& sa, const Shape& sb, const Shape& y)
    : m(y[y.size() - 2]),
      n(y.back()),
      k(sa.back()),
      a_matrices(numel({sa.begin(), sa.end() - 2})),
      b_matrices(numel({sb.begin(), sb.end() - 2})) {
  const int64_t products = numel({y.begin(), y.end() - 2});
  // The matrix of an operand that goes with a product: its index without the dimensions that the
  // operand has once.
  auto matrices = [&](const Shape& operand, std::vector<int64_t>& of) {
    const size_t missing = y.size() - operand.size();
    for (int64_t product = 0; product < products; ++product) {
      int64_t at = 0, stride = 1, rest = product;
      for (size_t d = y.size() - 2; d-- > 0; rest /= y[d]) {
        if (d < missing) continue;
        const int64_t size = operand[d - missing];
        if (size != 1) at += rest % y[d] * stride;
        stride *= size;
      }
      of.push_back(at);
    }
  };
  matrices(sa, a);
  matrices(sb, b);
}

}  // namespace octet::engine_detail
