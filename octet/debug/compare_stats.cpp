#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/debug/compare_impl.h"

namespace octet::debug::detail {
namespace {

constexpr int64_t kLanes = 16, kFlushRows = 128, kWide = 256;

// Sums of `width` columns: in float over few rows, then in double.
struct Columns {
  explicit Columns(int64_t width)
      : width(static_cast<size_t>(width)),
        part(3 * this->width),
        xx(this->width),
        yy(this->width),
        dd(this->width),
        x_min(this->width, INFINITY),
        x_max(this->width, -INFINITY),
        y_min(this->width, INFINITY),
        y_max(this->width, -INFINITY),
        most(this->width) {}
  size_t width;
  std::vector<float> part;
  std::vector<double> xx, yy, dd;
  std::vector<float> x_min, x_max, y_min, y_max, most;

  void clear() {
    for (auto* sums : {&xx, &yy, &dd}) std::fill(sums->begin(), sums->end(), 0.0);
    for (auto* least : {&x_min, &y_min}) std::fill(least->begin(), least->end(), INFINITY);
    for (auto* most_of : {&x_max, &y_max}) std::fill(most_of->begin(), most_of->end(), -INFINITY);
    std::fill(most.begin(), most.end(), 0.0F);
  }
  bool only_noise = false;
  template <typename Y>
  void add(const float* x, const Y& y, int64_t rows) {
    for (int64_t r = 0; r < rows; r += kFlushRows) {
      std::fill(part.begin(), part.end(), 0.0F);
      const int64_t end = std::min(rows, r + kFlushRows), w = static_cast<int64_t>(width);
      int64_t i = r;
      for (; i + 4 <= end; i += 4) add_rows<4>(x + i * w, y + i * w);
      for (; i < end; ++i) add_rows<1>(x + i * w, y + i * w);
      for (size_t j = 0; j < width; ++j) {
        xx[j] += part[j];
        yy[j] += part[width + j];
        dd[j] += part[2 * width + j];
      }
    }
  }

 private:
  // A few rows at a time, so that the sums are loaded and stored once for all of them. Pointers are
  // parameters, so that the compiler knows that they are apart, and vectorizes.
  template <int64_t kRows, typename Y>
  void add_rows(const float* x, const Y& y) {
    float *sums = part.data(), *noise = sums + 2 * width;
    if (only_noise)
      add_noise<kRows>(x, y, width, noise, y_min.data(), y_max.data());
    else
      add_all<kRows>(x, y, width, sums, sums + width, noise, x_min.data(), x_max.data(),
                     most.data());
  }
  template <int64_t kRows, typename Y>
  static void add_noise(const float* __restrict x, const Y y, size_t n, float* __restrict pdd,
                        float* __restrict least, float* __restrict greatest) {
    for (size_t j = 0; j < n; ++j) {
      float dd = pdd[j], c = least[j], d = greatest[j];
      for (size_t r = 0; r < kRows; ++r) {
        const float v = y[r * n + j], e = x[r * n + j] - v;
        dd += e * e;
        c = v < c ? v : c;
        d = v > d ? v : d;
      }
      pdd[j] = dd, least[j] = c, greatest[j] = d;
    }
  }
  template <int64_t kRows, typename Y>
  static void add_all(const float* __restrict x, const Y y, size_t n, float* __restrict pxx,
                      float* __restrict pyy, float* __restrict pdd, float* __restrict least,
                      float* __restrict greatest, float* __restrict most) {
    for (size_t j = 0; j < n; ++j) {
      float xx = pxx[j], yy = pyy[j], dd = pdd[j], a = least[j], b = greatest[j], m = most[j];
      for (size_t r = 0; r < kRows; ++r) {
        const float u = x[r * n + j], v = y[r * n + j], e = u - v, abs = std::fabs(e);
        xx += u * u;
        yy += v * v;
        dd += e * e;
        a = u < a ? u : a;
        b = u > b ? u : b;
        m = abs > m ? abs : m;
      }
      pxx[j] = xx, pyy[j] = yy, pdd[j] = dd, least[j] = a, greatest[j] = b, most[j] = m;
    }
  }
};

// Floats; or codes as the floats that they stand for.
struct Floats {
  const float* at;
  Floats operator+(int64_t n) const { return {at + n}; }
  float operator[](size_t j) const { return at[j]; }
};
template <typename T>
struct Codes {
  const T* at;
  float scale;
  int32_t zero_point;
  Codes operator+(int64_t n) const { return {at + n, scale, zero_point}; }
  float operator[](size_t j) const {
    return scale * static_cast<float>(static_cast<int32_t>(at[j]) - zero_point);
  }
};

void put(PairSums& sums, size_t channel, const Columns& columns, size_t from, size_t to) {
  for (size_t j = from; j < to; ++j) {
    sums.xx[channel] += columns.xx[j];
    sums.yy[channel] += columns.yy[j];
    sums.dd[channel] += columns.dd[j];
    sums.x_min[channel] = std::min(sums.x_min[channel], columns.x_min[j]);
    sums.x_max[channel] = std::max(sums.x_max[channel], columns.x_max[j]);
    sums.y_min[channel] = std::min(sums.y_min[channel], columns.y_min[j]);
    sums.y_max[channel] = std::max(sums.y_max[channel], columns.y_max[j]);
    sums.max_error = std::max<double>(sums.max_error, columns.most[j]);
  }
}

void resize(PairSums& sums, int64_t channels) {
  const auto n = static_cast<size_t>(channels);
  sums.xx.resize(n), sums.yy.resize(n), sums.dd.resize(n);
  sums.x_min.resize(n, INFINITY), sums.x_max.resize(n, -INFINITY);
  sums.y_min.resize(n, INFINITY), sums.y_max.resize(n, -INFINITY);
}

// Of `outer` times `channels` times `inner` elements.
template <typename Y>
void add_block(PairSums& sums, const float* x, const Y& y, int64_t outer, int64_t channels,
               int64_t inner) {
  if (inner == 1) {
    // Several rows are one, so that short ones are no slower.
    const int64_t together = std::clamp<int64_t>(kWide / channels, 1, std::max<int64_t>(1, outer)),
                  rows = outer / together, width = together * channels;
    Columns columns(width);
    columns.only_noise = sums.only_noise;
    columns.add(x, y, rows);
    for (size_t j = 0; j < columns.width; ++j)
      put(sums, j % static_cast<size_t>(channels), columns, j, j + 1);
    if (const int64_t rest = outer - rows * together; rest > 0)
      add_block(sums, x + rows * width, y + rows * width, rest, channels, 1);
    return;
  }
  Columns columns(kLanes), single(1);
  columns.only_noise = single.only_noise = sums.only_noise;
  for (int64_t o = 0; o < outer; ++o)
    for (int64_t c = 0; c < channels; ++c) {
      const int64_t at = (o * channels + c) * inner, rows = inner / kLanes, rest = inner % kLanes;
      columns.clear();
      columns.add(x + at, y + at, rows);
      put(sums, static_cast<size_t>(c), columns, 0, kLanes);
      if (rest == 0) continue;
      single.clear();
      single.add(x + at + rows * kLanes, y + at + rows * kLanes, rest);
      put(sums, static_cast<size_t>(c), single, 0, 1);
    }
}

// The same, one by one, without the elements of x that are not finite.
template <typename Y>
void add_finite(PairSums& sums, const float* x, const Y& y, int64_t outer, int64_t channels,
                int64_t inner) {
  for (int64_t i = 0; i < outer * channels * inner; ++i) {
    if (!std::isfinite(x[i])) continue;
    const auto c = static_cast<size_t>(i / inner % channels);
    const double u = x[i], v = y[static_cast<size_t>(i)], e = u - v;
    sums.xx[c] += u * u;
    sums.yy[c] += v * v;
    sums.dd[c] += e * e;
    sums.x_min[c] = std::min(sums.x_min[c], x[i]);
    sums.x_max[c] = std::max(sums.x_max[c], x[i]);
    sums.y_min[c] = std::min(sums.y_min[c], static_cast<float>(v));
    sums.y_max[c] = std::max(sums.y_max[c], static_cast<float>(v));
    sums.max_error = std::max(sums.max_error, std::abs(e));
  }
}

double sum(const std::vector<double>& parts) {
  double all = 0;
  for (double p : parts) all += p;
  return all;
}

// The elements of a dense tensor, in the order in which they lie.
bool lies_channels_last(const Tensor& x) {
  return x.dim() >= 3 && x.dim() <= 5 && !x.is_contiguous() &&
         x.is_contiguous(MemoryFormat::channels_last);
}

}  // namespace

void PairSums::merge(const PairSums& other) {
  resize(*this, static_cast<int64_t>(std::max(xx.size(), other.xx.size())));
  for (size_t c = 0; c < other.xx.size(); ++c) {
    xx[c] += other.xx[c];
    yy[c] += other.yy[c];
    dd[c] += other.dd[c];
    x_min[c] = std::min(x_min[c], other.x_min[c]);
    x_max[c] = std::max(x_max[c], other.x_max[c]);
    y_min[c] = std::min(y_min[c], other.y_min[c]);
    y_max[c] = std::max(y_max[c], other.y_max[c]);
  }
  max_error = std::max(max_error, other.max_error);
  count += other.count;
}

double PairSums::signal() const { return sum(xx); }
double PairSums::noise() const { return sum(dd); }
double PairSums::sqnr() const { return decibels(signal(), noise()); }

double PairSums::cosine() const {
  const double x = sum(xx), y = sum(yy);
  if (!(x > 0 && y > 0)) return 0;
  return std::clamp((x + y - sum(dd)) / 2 / std::sqrt(x * y), -1.0, 1.0);
}

std::vector<SampleRange> add_pair(PairSums& sums, const Tensor& given_x, const Tensor& given_y,
                                  int64_t axis, int64_t batch) {
  OCTET_CHECK(given_x.shape() == given_y.shape(), invalid_argument, "compare: shapes {} and {}",
              octet::to_string(given_x.shape()), octet::to_string(given_y.shape()));
  Tensor x = given_x, y = given_y;
  const bool codes = is_8_bit(y.dtype()) && !y.quantizer()->is_per_channel();
  if (!codes) y = y.is_quantized() ? y.dequantize() : y.to(DType::float32);
  const bool last = lies_channels_last(y) && (axis == 1 || axis < 0);
  const MemoryFormat format = last ? MemoryFormat::channels_last : MemoryFormat::contiguous;
  x = x.to(DType::float32).contiguous(format);
  y = y.contiguous(format);
  const Shape& shape = x.shape();
  int64_t outer = 1, channels = 1, inner = 1;
  for (int64_t d = 0; d < x.dim(); ++d)
    (d == axis && axis >= 0 ? channels : d < axis ? outer : inner) *= shape[static_cast<size_t>(d)];
  if (last) {
    outer *= inner, inner = 1;
    if (axis < 0) channels = 1;
  }
  if (axis < 0) outer = 1, inner = x.numel(), channels = 1;
  resize(sums, channels);
  if (x.numel() == 0) return {};
  sums.count += x.numel();
  const bool by_sample =
      x.dim() > 0 && shape[0] == batch && axis != 0 && (axis < 0 || outer % batch == 0);
  const int64_t blocks = by_sample ? batch : 1, n = x.numel() / blocks;
  if (axis < 0)
    inner = n;
  else
    outer /= blocks;
  std::vector<PairSums> parts(static_cast<size_t>(blocks));
  const float* px = x.data<float>();
  const auto add_all = [&](const auto& py) {
    parallel_for(blocks, [&](int64_t b) {
      PairSums& part = parts[static_cast<size_t>(b)];
      part.only_noise = sums.only_noise;
      resize(part, channels);
      add_block(part, px + b * n, py + b * n, outer, channels, inner);
      if (std::isfinite(part.signal()) && std::isfinite(part.noise())) return;
      part = PairSums();
      resize(part, channels);
      add_finite(part, px + b * n, py + b * n, outer, channels, inner);
    });
  };
  const float scale = codes ? static_cast<float>(y.quantizer()->scale()) : 0;
  const int32_t zero_point = codes ? static_cast<int32_t>(y.quantizer()->zero_point()) : 0;
  if (y.dtype() == DType::quint8)
    add_all(Codes<uint8_t>{y.data<uint8_t>(), scale, zero_point});
  else if (y.dtype() == DType::qint8)
    add_all(Codes<int8_t>{y.data<int8_t>(), scale, zero_point});
  else
    add_all(Floats{y.data<float>()});
  std::vector<SampleRange> ranges;
  for (const PairSums& part : parts) {
    sums.merge(part);
    ranges.push_back({*std::min_element(part.x_min.begin(), part.x_min.end()),
                      *std::max_element(part.x_max.begin(), part.x_max.end())});
  }
  return ranges;
}

namespace {

struct GridPart {
  std::array<std::array<uint32_t, 512>, 4> counts{};
  double error = 0, clipping = 0;
};

struct GridScale {
  float scale, inverse, least, most, first, last;  // of codes less the zero point
};

void count_grid(GridPart& part, const float* x, int64_t n, const GridScale& g) {
  constexpr int64_t kChunk = 256;
  constexpr float kRound = 12582912.0F;  // 1.5 * 2^23: what is added to it is rounded to even
  std::array<int32_t, kChunk> bins;
  for (int64_t at = 0; at < n; at += kChunk) {
    const int64_t m = std::min(kChunk, n - at);
    std::array<float, kLanes> error{}, clipping{};
    const auto step = [&](int64_t i, size_t lane) {
      // What is no number goes into the first bin.
      const float v = x[at + i] * g.inverse, low = v > g.first ? v : g.first,
                  t = low > g.last ? g.last : low, r = (t + kRound) - kRound,
                  above = r < g.least ? g.least : r, q = above > g.most ? g.most : above,
                  e = x[at + i] - q * g.scale, e2 = e * e;
      bins[static_cast<size_t>(i)] = static_cast<int32_t>(r - g.first);
      error[lane] += e2;
      clipping[lane] += r == q ? 0.0F : e2;
    };
    int64_t i = 0;
    for (; i + kLanes <= m; i += kLanes)
      for (size_t lane = 0; lane < kLanes; ++lane) step(i + static_cast<int64_t>(lane), lane);
    for (; i < m; ++i) step(i, 0);
    const int32_t* bin = bins.data();
    for (i = 0; i + 4 <= m; i += 4)
      for (size_t k = 0; k < 4; ++k) ++part.counts[k][static_cast<size_t>(bin[i + k])];
    for (; i < m; ++i) ++part.counts[0][static_cast<size_t>(bin[i])];
    for (size_t lane = 0; lane < kLanes; ++lane)
      part.error += error[lane], part.clipping += clipping[lane];
  }
}

}  // namespace

void add_grid(GridSums& sums, const Tensor& given, double scale, int64_t zero_point,
              int64_t quant_min, int64_t quant_max, int64_t batch) {
  if (given.numel() == 0) return;
  const Tensor x = lies_channels_last(given) ? given : given.contiguous();
  const auto z = static_cast<float>(zero_point), lo = static_cast<float>(quant_min),
             hi = static_cast<float>(quant_max), s = static_cast<float>(scale);
  const GridScale g{s, 1 / s, lo - z, hi - z, lo - 128 - z, lo + 383 - z};
  const int64_t blocks = x.numel() % batch == 0 ? batch : 1, n = x.numel() / blocks;
  std::vector<GridPart> parts(static_cast<size_t>(blocks));
  const float* px = x.data<float>();
  parallel_for(blocks,
               [&](int64_t b) { count_grid(parts[static_cast<size_t>(b)], px + b * n, n, g); });
  for (const GridPart& part : parts) {
    for (const auto& counts : part.counts)
      for (size_t i = 0; i < counts.size(); ++i) sums.counts[i] += counts[i];
    sums.error += part.error;
    sums.clipping += part.clipping;
  }
}

// -- samples that are shared ----------------------------------------------------------------------

void GridSums::merge(const GridSums& other) {
  for (size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
  error += other.error;
  clipping += other.clipping;
}

void SeenRanges::add(int64_t sample, int64_t seen, const SampleRange& r) {
  Bucket& b = buckets[static_cast<size_t>(std::bit_width(static_cast<uint64_t>(seen - 1)))];
  b.range =
      b.last == 0 ? r : SampleRange{std::min(b.range.min, r.min), std::max(b.range.max, r.max)};
  b.last = std::max(b.last, seen);
  keep_largest(std::max(-r.min, r.max), sample);
}

// Of equal magnitudes the first sample comes first.
void SeenRanges::keep_largest(float magnitude, int64_t sample) {
  const std::pair<float, int64_t> one{magnitude, sample};
  const auto at = std::upper_bound(largest.begin(), largest.end(), one, [](auto& a, auto& b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  });
  if (at - largest.begin() >= static_cast<int64_t>(kKept)) return;
  largest.insert(at, one);
  if (largest.size() > kKept) largest.pop_back();
}

void SeenRanges::merge(const SeenRanges& other) {
  for (size_t k = 0; k < buckets.size(); ++k) {
    const Bucket& theirs = other.buckets[k];
    if (theirs.last == 0) continue;
    Bucket& b = buckets[k];
    b.range = b.last == 0 ? theirs.range
                          : SampleRange{std::min(b.range.min, theirs.range.min),
                                        std::max(b.range.max, theirs.range.max)};
    b.last = std::max(b.last, theirs.last);
  }
  for (const auto& [magnitude, sample] : other.largest) keep_largest(magnitude, sample);
}

std::vector<RangeAfter> SeenRanges::after() const {
  std::vector<RangeAfter> all;
  for (const Bucket& b : buckets) {
    if (b.last == 0) continue;
    RangeAfter r{b.last, b.range.min, b.range.max};
    if (!all.empty()) {
      r.min = std::min(r.min, all.back().min);
      r.max = std::max(r.max, all.back().max);
      if (!std::has_single_bit(static_cast<uint64_t>(all.back().samples))) all.pop_back();
    }
    all.push_back(r);
  }
  return all;
}

template <typename T>
Packer& Packer::put_list(const std::vector<T>& list) {
  put(list.size());
  bytes_.append(reinterpret_cast<const char*>(list.data()), list.size() * sizeof(T));
  return *this;
}

Packer& Packer::put(const PairSums& s) {
  put_list(s.xx).put_list(s.yy).put_list(s.dd);
  put_list(s.x_min).put_list(s.x_max).put_list(s.y_min).put_list(s.y_max);
  return put(s.max_error).put(s.count);
}
Packer& Packer::put(const GridSums& s) { return put_list(s.counts).put(s.error).put(s.clipping); }
Packer& Packer::put(const SeenRanges& r) { return put(r.buckets).put_list(r.largest); }

void Unpacker::copy(void* to, size_t bytes) {
  OCTET_CHECK(rest_.size() >= bytes, internal,
              "compare: another process has {} bytes where {} were expected: it compares other "
              "networks",
              rest_.size(), bytes);
  if (bytes) std::memcpy(to, rest_.data(), bytes);
  rest_.remove_prefix(bytes);
}

template <typename T>
std::vector<T> Unpacker::take_list() {
  const auto n = take<size_t>();
  OCTET_CHECK(n <= rest_.size() / sizeof(T), internal,
              "compare: another process has a list of {} where {} bytes are left", n, rest_.size());
  std::vector<T> list(n);
  copy(list.data(), n * sizeof(T));
  return list;
}

PairSums Unpacker::take_sums() {
  PairSums s;
  for (auto* list : {&s.xx, &s.yy, &s.dd}) *list = take_list<double>();
  for (auto* list : {&s.x_min, &s.x_max, &s.y_min, &s.y_max}) *list = take_list<float>();
  s.max_error = take<double>();
  s.count = take<int64_t>();
  return s;
}

GridSums Unpacker::take_grid() {
  GridSums s;
  s.counts = take_list<uint64_t>();
  s.error = take<double>();
  s.clipping = take<double>();
  return s;
}

SeenRanges Unpacker::take_ranges() {
  SeenRanges r;
  r.buckets = take<decltype(r.buckets)>();
  r.largest = take_list<std::pair<float, int64_t>>();
  return r;
}

}  // namespace octet::debug::detail
