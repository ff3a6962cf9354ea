// mean, amax and amin of codes, mean and sum of floats, over dimensions that lie together in
// memory: each result is made of `reduced` elements that lie `inner` apart.
#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/native/native_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/tensor/affine.h"

namespace octet::native {
namespace {

enum class Reduction { mean, sum, largest, smallest };

// Which dimensions are reduced, by dimension.
std::vector<bool> reduced_dims(const Attrs& attrs, int64_t rank) {
  const std::vector<int64_t>& dims = attrs.get_ints("dim");
  std::vector<bool> reduced(static_cast<size_t>(rank), dims.empty());
  for (int64_t d : dims) reduced[static_cast<size_t>(d < 0 ? d + rank : d)] = true;
  return reduced;
}

std::vector<size_t> memory_order(size_t rank, bool channels_last) {
  if (channels_last && rank == 4) return {0, 2, 3, 1};
  std::vector<size_t> order(rank);
  for (size_t d = 0; d < rank; ++d) order[d] = d;
  return order;
}

// Whether the reduced dimensions follow each other in memory.
bool together(const std::vector<bool>& reduced, bool channels_last) {
  int begins = 0;
  bool before = false;
  for (size_t d : memory_order(reduced.size(), channels_last)) {
    begins += reduced[d] && !before;
    before = reduced[d];
  }
  return begins == 1;
}

// Whether a channels_last operand's elements are met in row-major order too, within each result and
// from one result to the next. Where all dimensions are kept the result is channels_last itself.
bool in_row_major_order(const std::vector<bool>& reduced, bool keeps_dims) {
  const bool channels = reduced[1], place = reduced[2] || reduced[3],
             all_places = reduced[2] && reduced[3];
  return !(channels && place) && (keeps_dims || channels || all_places);
}

struct Sizes {
  int64_t outer = 1, reduced = 1, inner = 1;
  Sizes(const Shape& x, const std::vector<bool>& dims, bool channels_last) {
    bool behind = false;
    for (size_t d : memory_order(x.size(), channels_last)) {
      behind |= dims[d];
      (dims[d] ? reduced : behind ? inner : outer) *= x[d];
    }
  }
};

// What all reductions share: results are cut into blocks of one row of the operand.
class ReducePlan : public KernelPlan {
 public:
  explicit ReducePlan(const Sizes& s) : s_(s) {}
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) final {
    const int64_t blocks = (s_.inner + kBlock - 1) / kBlock,
                  work = s_.reduced * std::min(s_.inner, kBlock);
    parallel_ranges(s_.outer * blocks, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)),
                    [&](int64_t b0, int64_t b1) {
                      for (int64_t b = b0; b < b1; ++b) {
                        const int64_t row = b / blocks, c0 = b % blocks * kBlock;
                        block(inputs[0], row * s_.reduced * s_.inner + c0, outputs[0],
                              row * s_.inner + c0, std::min(kBlock, s_.inner - c0));
                      }
                    });
  }

 protected:
  static constexpr int64_t kBlock = 64, kGrain = 1 << 16;
  // `count` results from y on, made of x's elements from `from` on.
  virtual void block(const void* x, int64_t from, void* y, int64_t to, int64_t count) const = 0;
  Sizes s_;
};

class CodesMeanPlan final : public ReducePlan {
 public:
  CodesMeanPlan(const Sizes& s, const CodesOf& x, const CodesOf& y, bool same) : ReducePlan(s) {
    args_.taps = s.reduced;
    args_.is_signed = x.is_signed;
    args_.zx = x.zero_point;
    args_.zero_point = y.zero_point;
    args_.lo = y.lo;
    args_.hi = y.hi;
    multiplier_ = 1.0f / static_cast<float>(s.reduced);
    if (!same) multiplier_ = x.scale * multiplier_ / y.scale;
    // Sums of int32, and offsets of as many bits.
    if (s.inner > 1 && s.reduced <= (int64_t{1} << 31) / 256 &&
        s.reduced * s.inner < (int64_t{1} << 31))
      for (int64_t t = 0; t < s.reduced; ++t) offsets_.push_back(static_cast<int32_t>(t * s.inner));
  }

 private:
  void block(const void* x, int64_t from, void* y, int64_t to, int64_t count) const override {
    const uint8_t* in = static_cast<const uint8_t*>(x) + from;
    uint8_t* out = static_cast<uint8_t*>(y) + to;
    if (!offsets_.empty()) {
      kernels::PoolArgs call = args_;
      call.channels = count;
      call.a = in;
      call.y = out;
      call.offsets = offsets_.data();
      call.multiplier = &multiplier_;
      return kernels::table().average_pool(call, 0, 1);
    }
    for (int64_t c = 0; c < count; ++c) {
      const int64_t sum =
          args_.is_signed ? total(reinterpret_cast<const int8_t*>(in) + c) : total(in + c);
      out[c] = static_cast<uint8_t>(affine::requantize(sum - args_.zx * s_.reduced, multiplier_,
                                                       args_.zero_point, args_.lo, args_.hi));
    }
  }
  template <typename T>
  int64_t total(const T* x) const {
    constexpr int64_t kFit = 1 << 22;  // sums of so many codes fit into int32
    int64_t sum = 0;
    for (int64_t t = 0; t < s_.reduced;) {
      const int64_t end = std::min(s_.reduced, t + kFit);
      int32_t part = 0;
      if (s_.inner == 1)
        for (; t < end; ++t) part += x[t];
      else
        for (; t < end; ++t) part += x[t * s_.inner];
      sum += part;
    }
    return sum;
  }

  kernels::PoolArgs args_;
  float multiplier_ = 1;
  std::vector<int32_t> offsets_;  // empty: sums of any size, one by one
};

template <typename T, bool largest>
class ExtremePlan final : public ReducePlan {
 public:
  using ReducePlan::ReducePlan;

 private:
  static T better(T a, T b) { return largest ? std::max(a, b) : std::min(a, b); }
  void block(const void* x, int64_t from, void* y, int64_t to, int64_t count) const override {
    const T* in = static_cast<const T*>(x) + from;
    T* out = static_cast<T*>(y) + to;
    if (s_.inner == 1) {
      T best = in[0];
      for (int64_t t = 1; t < s_.reduced; ++t) best = better(best, in[t]);
      *out = best;
      return;
    }
    T best[kBlock];
    std::copy_n(in, count, best);
    for (int64_t t = 1; t < s_.reduced; ++t) {
      const T* row = in + t * s_.inner;
      for (int64_t c = 0; c < count; ++c) best[c] = better(best[c], row[c]);
    }
    std::copy_n(best, count, out);
  }
};

// In double, in the order of KernelTable::sum.
class FloatSumPlan final : public ReducePlan {
 public:
  FloatSumPlan(const Sizes& s, bool mean) : ReducePlan(s), mean_(mean) {}

 private:
  float result(double sum) const {
    return static_cast<float>(mean_ ? sum / static_cast<double>(s_.reduced) : sum);
  }
  void block(const void* x, int64_t from, void* y, int64_t to, int64_t count) const override {
    const float* in = static_cast<const float*>(x) + from;
    float* out = static_cast<float*>(y) + to;
    if (s_.inner == 1) {
      *out = result(kernels::table().sum(in, s_.reduced));
      return;
    }
    double sums[16][kBlock] = {};
    for (int64_t t = 0; t < s_.reduced; ++t) {
      const float* row = in + t * s_.inner;
      double* own = sums[t % 16];
      for (int64_t c = 0; c < count; ++c) own[c] += static_cast<double>(row[c]);
    }
    for (int half = 8; half > 0; half /= 2)
      for (int j = 0; j < half; ++j)
        for (int64_t c = 0; c < count; ++c) sums[j][c] += sums[j + half][c];
    for (int64_t c = 0; c < count; ++c) out[c] = result(sums[0][c]);
  }
  bool mean_;
};

class ReduceKernel final : public Kernel {
 public:
  ReduceKernel(const OpSpec& spec, Reduction reduction, bool channels_last)
      : spec_(spec), reduction_(reduction), channels_last_(channels_last) {}
  std::string name() const override { return spec_.op + (is_codes() ? "" : " floats"); }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    using A = KernelDescription::Arithmetic;
    const bool extreme = reduction_ == Reduction::largest || reduction_ == Reduction::smallest;
    if (extreme || !is_codes()) return described(extreme ? A::moves : A::floats);
    KernelDescription d = described(A::integers, kToCodes);
    d.accumulator = "int32, or int64 where so many codes need it";
    d.epilogue = "f(1/count), requantize";
    return d;
  }
  Layout input_layout(size_t) const override { return layout(); }
  Layout output_layout(size_t) const override { return layout(); }
  std::unique_ptr<Kernel> in_channels_last() const override {
    if (spec_.inputs[0].dim() != 4) return nullptr;
    const std::vector<bool> reduced = reduced_dims(spec_.attrs, 4);
    const bool keeps = spec_.outputs[0].dim() == 4;
    // Sums of floats depend on the order of their terms, the places of results on theirs.
    const bool order = in_row_major_order(reduced, keeps),
               places = keeps || reduced[1] || (reduced[2] && reduced[3]);
    if (!together(reduced, true) || !(is_codes() ? places : order)) return nullptr;
    return std::make_unique<ReduceKernel>(spec_, reduction_, true);
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    const TensorType &x = spec_.inputs[0], &y = spec_.outputs[0];
    const Sizes s(in[0], reduced_dims(spec_.attrs, x.dim()), channels_last_);
    if (reduction_ == Reduction::largest) return extreme_plan<true>(s);
    if (reduction_ == Reduction::smallest) return extreme_plan<false>(s);
    if (!is_codes()) return std::make_unique<FloatSumPlan>(s, reduction_ == Reduction::mean);
    return std::make_unique<CodesMeanPlan>(s, CodesOf(x), CodesOf(y), *x.quantizer == *y.quantizer);
  }

 private:
  template <bool largest>
  std::unique_ptr<KernelPlan> extreme_plan(const Sizes& s) const {
    OCTET_CHECK(s.reduced > 0, invalid_argument, "{}: no elements to reduce in {}", spec_.op,
                spec_.label);
    if (spec_.inputs[0].dtype == DType::qint8)
      return std::make_unique<ExtremePlan<int8_t, largest>>(s);
    return std::make_unique<ExtremePlan<uint8_t, largest>>(s);
  }
  bool is_codes() const { return spec_.inputs[0].is_quantized(); }
  Layout layout() const { return channels_last_ ? Layout::channels_last : Layout::row_major; }
  OpSpec spec_;
  Reduction reduction_;
  bool channels_last_;
};

}  // namespace

std::unique_ptr<Kernel> make_reduce(const OpSpec& spec) {
  const Reduction reduction = spec.op == "mean"   ? Reduction::mean
                              : spec.op == "sum"  ? Reduction::sum
                              : spec.op == "amax" ? Reduction::largest
                                                  : Reduction::smallest;
  const bool extreme = reduction == Reduction::largest || reduction == Reduction::smallest;
  const TensorType &x = spec.inputs[0], &y = spec.outputs[0];
  if (x.is_quantized()) {
    if (!eight_bit_per_tensor(x) || !y.is_quantized() || !eight_bit_per_tensor(y) ||
        x.dtype != y.dtype || reduction == Reduction::sum ||
        (extreme && *x.quantizer != *y.quantizer))
      return nullptr;
  } else if (extreme || x.dtype != DType::float32 || y.dtype != DType::float32) {
    return nullptr;
  }
  const std::vector<bool> reduced = reduced_dims(spec.attrs, x.dim());
  if (!together(reduced, false)) return nullptr;
  return std::make_unique<ReduceKernel>(spec, reduction, false);
}

}  // namespace octet::native
