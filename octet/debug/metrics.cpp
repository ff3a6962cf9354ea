#include "octet/debug/metrics.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <utility>
#include <vector>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/tensor/affine.h"

namespace octet::debug {

namespace {

bool has_numbers(const Tensor& x) {
  return x.defined() && (x.is_quantized() || is_floating(x.dtype()));
}

// Row-major, in float32 or float64.
Tensor numbers(const Tensor& x, const char* who) {
  OCTET_CHECK(has_numbers(x), invalid_argument,
              "{}: expected float or quantized tensors, got one that is {}", who,
              x.defined() ? to_string(x.type()) : "undefined");
  const Tensor f = x.is_quantized() ? x.dequantize() : x.detach();
  return (f.dtype() == DType::float32 ? f : f.to(DType::float64)).contiguous();
}

// fn(const float* or const double*)
template <typename Fn>
void visit_numbers(const Tensor& x, Fn&& fn) {
  if (x.dtype() == DType::float32)
    fn(static_cast<const float*>(x.raw_data()));
  else
    fn(static_cast<const double*>(x.raw_data()));
}

// The larger; NaN if either is.
double larger(double a, double b) { return std::isnan(a) || b <= a ? a : b; }

// Sums of every kLanes-th element, which do not wait for each other.
constexpr int64_t kLanes = 8;
struct Lanes {
  double xx[kLanes] = {}, yy[kLanes] = {}, xy[kLanes] = {}, dd[kLanes] = {}, max[kLanes] = {};

  // Where x is not finite, nothing counts.
  void add(int64_t lane, double x, double y) {
    const bool counts = std::abs(x) <= std::numeric_limits<double>::max();
    const double u = counts ? x : 0, v = counts ? y : 0, d = u - v;
    xx[lane] += u * u;
    yy[lane] += v * v;
    xy[lane] += u * v;
    dd[lane] += d * d;
    max[lane] = larger(max[lane], std::abs(d));
  }
};

double squared_distance(const Tensor& x, const Tensor& y) {
  ErrorStatistics e;
  e.add(x, y);
  return e.noise();
}

}  // namespace

double decibels(double signal, double noise) { return 10 * std::log10(signal / noise); }

// -- metrics --------------------------------------------------------------------------------------

void ErrorStatistics::add(const Tensor& x, const Tensor& y) {
  // Images that lie alike are taken in the order in which they lie.
  const auto lies_by_channels = [](const Tensor& t) {
    return t.defined() && t.dtype() == DType::float32 && t.dim() == 4 &&
           t.is_contiguous(MemoryFormat::channels_last);
  };
  const bool alike = lies_by_channels(x) && lies_by_channels(y) && x.shape() == y.shape();
  const Tensor a = alike ? x : numbers(x, "ErrorStatistics"),
               b = alike ? y : numbers(y, "ErrorStatistics");
  OCTET_CHECK(a.numel() == b.numel(), invalid_argument,
              "ErrorStatistics: {} and {} have different numbers of elements", to_string(x.type()),
              to_string(y.type()));
  visit_numbers(a, [&](const auto* p) {
    visit_numbers(b, [&](const auto* q) {
      Lanes sums;
      int64_t i = 0;
      const int64_t n = a.numel();
      for (; i + kLanes <= n; i += kLanes)
        for (int64_t l = 0; l < kLanes; ++l) sums.add(l, p[i + l], q[i + l]);
      for (; i < n; ++i) sums.add(i % kLanes, p[i], q[i]);
      for (size_t l = 0; l < kLanes; ++l) {
        xx_ += sums.xx[l];
        yy_ += sums.yy[l];
        xy_ += sums.xy[l];
        dd_ += sums.dd[l];
        max_ = larger(max_, sums.max[l]);
      }
    });
  });
  count_ += a.numel();
}

void ErrorStatistics::merge(const ErrorStatistics& other) {
  count_ += other.count_;
  xx_ += other.xx_;
  yy_ += other.yy_;
  xy_ += other.xy_;
  dd_ += other.dd_;
  max_ = larger(max_, other.max_);
}

double ErrorStatistics::sqnr() const { return decibels(xx_, dd_); }
double ErrorStatistics::normalized_l2_error() const { return std::sqrt(dd_ / xx_); }
double ErrorStatistics::cosine_similarity() const {
  const double norms = std::sqrt(xx_) * std::sqrt(yy_);
  return norms == 0 ? 0 : xy_ / norms;
}

void KlDivergence::add(const Tensor& x, const Tensor& y) {
  for (auto [tensor, histogram] : {std::pair(&x, &x_), std::pair(&y, &y_)}) {
    OCTET_CHECK(has_numbers(*tensor), invalid_argument,
                "KlDivergence: expected float or quantized tensors, got one that is {}",
                tensor->defined() ? to_string(tensor->type()) : "undefined");
    const std::vector<float> v = tensor->detach().dequantize().to_vector<float>();
    OCTET_CHECK(histogram->add(v.data(), static_cast<int64_t>(v.size())), invalid_argument,
                "KlDivergence: an element is NaN or infinite");
  }
}

void KlDivergence::merge(const KlDivergence& other) {
  x_.merge(other.x_);
  y_.merge(other.y_);
}

double KlDivergence::value() const {
  if (x_.empty() || y_.empty()) return NAN;
  // A constant has no width of its own.
  int exponent = INT32_MIN;
  for (const quant::Histogram* h : {&x_, &y_})
    if (!h->constant()) exponent = std::max(exponent, h->exponent());
  if (exponent == INT32_MIN) {
    if (x_.min() == y_.min()) return 0;
    exponent = std::ilogb(std::max(std::abs(x_.min()), std::abs(y_.min())));  // two bins differ
    while (std::floor(std::ldexp(x_.min(), -exponent)) ==
           std::floor(std::ldexp(y_.min(), -exponent)))
      --exponent;
  }
  std::map<int64_t, std::pair<double, double>> bins;  // by number in the common grid
  auto put = [&](const quant::Histogram& h, double std::pair<double, double>::*side) {
    if (h.constant()) {
      const auto bin =
          static_cast<int64_t>(std::floor(std::ldexp(static_cast<double>(h.min()), -exponent)));
      bins[bin].*side += static_cast<double>(h.total());
      return;
    }
    for (int64_t i = 0; i < h.size(); ++i)  // whole bins fall into one: widths are powers of two
      bins[static_cast<int64_t>(std::floor(std::ldexp(h.edge(i), -exponent)))].*side +=
          static_cast<double>(h.count(i));
  };
  put(x_, &std::pair<double, double>::first);
  put(y_, &std::pair<double, double>::second);
  const double n = static_cast<double>(bins.rbegin()->first - bins.begin()->first + 1);
  const double p_total = static_cast<double>(x_.total()) + n / 2,
               q_total = static_cast<double>(y_.total()) + n / 2;
  double sum = 0;
  for (const auto& [bin, count] : bins) {
    const double p = (count.first + 0.5) / p_total, q = (count.second + 0.5) / q_total;
    sum += p * std::log(p / q);
  }
  // Bins between that neither has.
  const double absent = n - static_cast<double>(bins.size());
  sum += absent * (0.5 / p_total) * std::log(q_total / p_total);
  return std::max(sum, 0.0);
}

namespace {
double of_pair(const Tensor& x, const Tensor& y, double (ErrorStatistics::*metric)() const) {
  if (!has_numbers(x) || !has_numbers(y)) return NAN;
  ErrorStatistics e;
  e.add(x, y);
  return (e.*metric)();
}
}  // namespace

double compute_sqnr(const Tensor& x, const Tensor& y) {
  return of_pair(x, y, &ErrorStatistics::sqnr);
}
double compute_normalized_l2_error(const Tensor& x, const Tensor& y) {
  return of_pair(x, y, &ErrorStatistics::normalized_l2_error);
}
double compute_cosine_similarity(const Tensor& x, const Tensor& y) {
  return of_pair(x, y, &ErrorStatistics::cosine_similarity);
}
double compute_max_abs_error(const Tensor& x, const Tensor& y) {
  return of_pair(x, y, &ErrorStatistics::max_abs_error);
}
double compute_kl_divergence(const Tensor& x, const Tensor& y, int64_t bins) {
  if (!has_numbers(x) || !has_numbers(y)) return NAN;
  KlDivergence kl(bins);
  kl.add(x, y);
  return kl.value();
}

// -- decisions ------------------------------------------------------------------------------------

double Share::value() const {
  return count ? static_cast<double>(hits) / static_cast<double>(count) : NAN;
}
Share& Share::operator+=(const Share& other) {
  hits += other.hits;
  count += other.count;
  return *this;
}

namespace {
// The class with the largest of each row of scores.
std::vector<int64_t> best_classes(const Tensor& scores, const char* who) {
  OCTET_CHECK(scores.defined() && scores.dtype() == DType::float32 && scores.dim() >= 1 &&
                  scores.size(scores.dim() - 1) >= 1,
              invalid_argument, "{}: expected float32 scores of one or more classes, got {}", who,
              scores.defined() ? to_string(scores.type()) : "none");
  const Tensor dense = scores.detach().contiguous();
  const int64_t classes = dense.size(dense.dim() - 1);
  std::vector<int64_t> best;
  for (int64_t i = 0; i < dense.numel(); i += classes) {
    const float* row = dense.data<float>() + i;
    best.push_back(std::max_element(row, row + classes) - row);
  }
  return best;
}

void expect_same_shape(const Tensor& x, const Tensor& y, const char* who) {
  OCTET_CHECK(x.defined() && y.defined() && x.shape() == y.shape(), invalid_argument,
              "{}: {} and {}; expected equal shapes", who,
              x.defined() ? to_string(x.type()) : "none",
              y.defined() ? to_string(y.type()) : "none");
}

std::vector<int64_t> best_path(const int64_t* classes, int64_t steps, int64_t blank) {
  std::vector<int64_t> path;
  for (int64_t i = 0; i < steps; ++i)
    if (classes[i] != blank && (i == 0 || classes[i] != classes[i - 1])) path.push_back(classes[i]);
  return path;
}
}  // namespace

Share argmax_agreement(const Tensor& x, const Tensor& y) {
  expect_same_shape(x, y, "argmax_agreement");
  const auto a = best_classes(x, "argmax_agreement"), b = best_classes(y, "argmax_agreement");
  Share share{.hits = 0, .count = std::ssize(a)};
  for (size_t i = 0; i < a.size(); ++i) share.hits += a[i] == b[i];
  return share;
}

namespace {
// The readings of both for each of the N samples.
template <typename Visit>
void for_each_reading(const Tensor& x, const Tensor& y, int64_t blank, const char* who,
                      Visit&& visit) {
  expect_same_shape(x, y, who);
  OCTET_CHECK(x.dim() == 3, invalid_argument, "{}: expected scores (N, steps, classes), got {}",
              who, to_string(x.type()));
  const auto a = best_classes(x, who), b = best_classes(y, who);
  const int64_t steps = x.size(1);
  for (int64_t n = 0; n < x.size(0); ++n)
    visit(best_path(a.data() + n * steps, steps, blank),
          best_path(b.data() + n * steps, steps, blank));
}

// Levenshtein's distance.
template <typename T>
int64_t edit_distance(const std::vector<T>& a, const std::vector<T>& b) {
  std::vector<int64_t> row(b.size() + 1);  // from the first i of a to the first j of b
  std::iota(row.begin(), row.end(), int64_t{0});
  for (size_t i = 1; i <= a.size(); ++i) {
    int64_t diagonal = row[0];
    row[0] = static_cast<int64_t>(i);
    for (size_t j = 1; j <= b.size(); ++j) {
      const int64_t changed = diagonal + (a[i - 1] != b[j - 1]);
      diagonal = row[j];
      row[j] = std::min({changed, row[j] + 1, row[j - 1] + 1});
    }
  }
  return row.back();
}

using Word = std::vector<int64_t>;
std::vector<Word> words_of(const std::vector<int64_t>& reading, int64_t space) {
  std::vector<Word> words(1);
  for (const int64_t c : reading)
    if (c != space)
      words.back().push_back(c);
    else if (!words.back().empty())
      words.emplace_back();
  if (words.back().empty()) words.pop_back();
  return words;
}
}  // namespace

Share sequence_agreement(const Tensor& x, const Tensor& y, int64_t blank) {
  Share share;
  for_each_reading(x, y, blank, "sequence_agreement",
                   [&](const auto& a, const auto& b) { share += {.hits = a == b, .count = 1}; });
  return share;
}

Share character_agreement(const Tensor& x, const Tensor& y, int64_t blank) {
  Share share;
  for_each_reading(x, y, blank, "character_agreement", [&](const auto& a, const auto& b) {
    share += {.hits = std::ssize(a) - edit_distance(a, b), .count = std::ssize(a)};
  });
  return share;
}

Share word_agreement(const Tensor& x, const Tensor& y, int64_t space, int64_t blank) {
  expect_same_shape(x, y, "word_agreement");
  OCTET_CHECK(x.dim() == 3 && space >= 0 && space < x.size(2) && space != blank, invalid_argument,
              "word_agreement: class {} separates words of scores {}; expected (N, steps, classes) "
              "and one of these classes other than {}",
              space, to_string(x.type()), blank);
  Share share;
  for_each_reading(x, y, blank, "word_agreement", [&](const auto& a, const auto& b) {
    const std::vector<Word> expected = words_of(a, space), got = words_of(b, space);
    share += {.hits = std::ssize(expected) - edit_distance(expected, got),
              .count = std::ssize(expected)};
  });
  return share;
}

Share mask_overlap(const Tensor& x, const Tensor& y, float threshold) {
  expect_same_shape(x, y, "mask_overlap");
  OCTET_CHECK(x.dtype() == DType::float32 && y.dtype() == DType::float32, invalid_argument,
              "mask_overlap: {} and {}; expected float32", to_string(x.type()),
              to_string(y.type()));
  const Tensor a = x.detach().contiguous(), b = y.detach().contiguous();
  Share share;
  for (int64_t i = 0; i < a.numel(); ++i) {
    const bool in_a = a.data<float>()[i] >= threshold, in_b = b.data<float>()[i] >= threshold;
    share.hits += in_a && in_b;
    share.count += in_a || in_b;
  }
  return share;
}

Share top_k(const Tensor& scores, const Tensor& labels, int64_t k) {
  OCTET_CHECK(k >= 1, invalid_argument, "top_k: k is {}; expected 1 or more", k);
  OCTET_CHECK(
      scores.defined() && scores.dtype() == DType::float32 && scores.dim() == 2 &&
          labels.defined() && labels.dtype() == DType::int64 && labels.numel() == scores.size(0),
      invalid_argument, "top_k: expected float32 scores (N, classes) and N labels of int64");
  const Tensor dense = scores.detach().contiguous();
  const std::vector<int64_t> wanted = labels.to_vector<int64_t>();
  Share share{.hits = 0, .count = dense.size(0)};
  const int64_t classes = dense.size(1);
  for (int64_t n = 0; n < share.count; ++n) {
    const float* row = dense.data<float>() + n * classes;
    const int64_t label = wanted[static_cast<size_t>(n)];
    OCTET_CHECK(label >= 0 && label < classes, invalid_argument,
                "top_k: label {} of sample {}; expected 0 to {}", label, n, classes - 1);
    int64_t before = 0;
    for (int64_t c = 0; c < classes; ++c)
      before += row[c] > row[label] || (row[c] == row[label] && c < label);
    share.hits += before < k;
  }
  return share;
}

// -- what an error is made of ---------------------------------------------------------------------

QuantizationError& QuantizationError::operator+=(const QuantizationError& other) {
  clipping += other.clipping;
  rounding += other.rounding;
  clipped += other.clipped;
  count += other.count;
  return *this;
}

QuantizationError split_quantization_error(const Tensor& x, const QuantizerPtr& quantizer,
                                           DType dtype, std::optional<int64_t> quant_min,
                                           std::optional<int64_t> quant_max) {
  OCTET_CHECK(x.defined() && x.dtype() == DType::float32, invalid_argument,
              "split_quantization_error: expected a float32 tensor, got {}",
              x.defined() ? to_string(x.type()) : "none");
  OCTET_CHECK(quantizer && !quantizer->has_float_zero_points(), invalid_argument,
              "split_quantization_error: expected a quantizer with whole zero points");
  const int64_t lo = quant_min.value_or(qmin(dtype)), hi = quant_max.value_or(qmax(dtype));
  OCTET_CHECK(qmin(dtype) <= lo && lo < hi && hi <= qmax(dtype), invalid_argument,
              "split_quantization_error: codes {}..{} are not within {}'s", lo, hi,
              to_string(dtype));
  int64_t channels = 1, inner = x.numel();
  if (quantizer->is_per_channel()) {
    OCTET_CHECK(
        quantizer->axis() < x.dim() && x.size(quantizer->axis()) == std::ssize(quantizer->scales()),
        invalid_argument, "split_quantization_error: {} does not fit {}", to_string(*quantizer),
        to_string(x.type()));
    channels = x.size(quantizer->axis());
    inner = 1;
    for (int64_t d = quantizer->axis() + 1; d < x.dim(); ++d) inner *= x.size(d);
  }
  const std::vector<float> values = x.detach().to_vector<float>();
  QuantizationError e{.count = x.numel()};
  for (int64_t i = 0; i < x.numel(); ++i) {
    const int64_t c = quantizer->is_per_channel() ? i / inner % channels : 0;
    const auto scale = static_cast<float>(quantizer->scale(c));
    const auto z = static_cast<int32_t>(quantizer->zero_point(c));
    const float v = values[static_cast<size_t>(i)];
    const int32_t q =
        affine::quantize(v, scale, z, static_cast<int32_t>(lo), static_cast<int32_t>(hi));
    const double d = static_cast<double>(v) - affine::dequantize(q, scale, z);
    const bool beyond = (q == lo && d < 0) || (q == hi && d > 0);
    e.clipped += beyond;
    (beyond ? e.clipping : e.rounding) += d * d;
  }
  return e;
}

OperandError& OperandError::operator+=(const OperandError& other) {
  signal += other.signal;
  weights += other.weights;
  activations += other.activations;
  total += other.total;
  return *this;
}

OperandError split_operand_error(
    const std::function<Tensor(const Tensor& x, const Tensor& w)>& layer, const Tensor& x,
    const Tensor& x_q, const Tensor& w, const Tensor& w_q) {
  autograd::NoGrad no_grad;
  const Tensor xq = x_q.dequantize(), wq = w_q.dequantize(), y = layer(x, w);
  ErrorStatistics all;
  all.add(y, layer(xq, wq));
  return {.signal = all.signal(),
          .weights = squared_distance(y, layer(x, wq)),
          .activations = squared_distance(y, layer(xq, w)),
          .total = all.noise()};
}

double LayerError::own_sqnr() const { return decibels(signal, own); }
double LayerError::total_sqnr() const { return decibels(signal, total); }

LayerError& LayerError::operator+=(const LayerError& other) {
  signal += other.signal;
  own += other.own;
  total += other.total;
  return *this;
}

LayerError split_layer_error(const Tensor& expected, const Tensor& alone, const Tensor& within) {
  ErrorStatistics own, total;
  own.add(expected, alone);
  total.add(expected, within);
  return {.signal = own.signal(), .own = own.noise(), .total = total.noise()};
}

}  // namespace octet::debug
