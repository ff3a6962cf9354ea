// Linear layers of codes, dynamic ones too, and products of two matrices of codes.
#include <algorithm>
#include <cstring>
#include <limits>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/onednn/int8_impl.h"
#include "octet/engine/run_time_codes_impl.h"
#include "octet/engine/scratch_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::onednn {
namespace {

using engine_detail::ScratchParts;

constexpr int64_t kFinishGrain = 1 << 15;  // numbers

// The way out of `matrices` results of m rows, whose sums lie one after another; `arguments(i)` are
// those of matrix i.
template <typename Arguments>
void finish_matrices(const kernels::KernelTable& table, int64_t matrices, int64_t m, int64_t n,
                     const int32_t* sums, Arguments&& arguments) {
  parallel_ranges(matrices * m, kFinishGrain / (n + 1) + 1, [&](int64_t r0, int64_t r1) {
    while (r0 < r1) {
      const int64_t matrix = r0 / m, first = r0 % m, rows = std::min(r1 - r0, m - first);
      table.gemm_finish(arguments(matrix), sums + matrix * m * n, first, first + rows);
      r0 += rows;
    }
  });
}

void sums_of_rows(const kernels::KernelTable& table, const uint8_t* x, int64_t m, int64_t k,
                  int32_t* sums) {
  parallel_ranges(m, kFinishGrain / (k + 1) + 1, [&](int64_t m0, int64_t m1) {
    kernels::GemmArgs rows;
    rows.shape = {1, k, 1};
    rows.a = x;
    rows.lda = k;
    table.row_sums(rows, sums, m0, m1);
  });
}

// -- linear ---------------------------------------------------------------------------------------

// What linear layers' kernels and plans share. A dynamic one's terms of x are the plan's.
struct Int8Linear {
  explicit Int8Linear(engine_detail::WeightCodes codes, CodeSums code_sums, const Shape& weight)
      : w(std::move(codes)),
        sums(std::move(code_sums)),
        n(weight[0]),
        k(weight[1]),
        weights(w.owner, w.codes.data(), row_major(weight, memory::data_type::s8)) {}

  // The products of x (m, k).
  SumsPrimitive primitive(int64_t m) const {
    const dnnl::inner_product_forward::desc desc(
        dnnl::prop_kind::forward_inference, row_major({m, k}, memory::data_type::u8),
        any_layout({n, k}, memory::data_type::s8), row_major({m, n}, memory::data_type::s32));
    dnnl::inner_product_forward::primitive_desc pd(desc, attributes("none"), cpu());
    take_exact(pd, {.pairs_fit = sums.pairs_fit, .fits_float = sums.farthest <= kExactInFloat});
    return {pd, dnnl::inner_product_forward(pd), weights.get(pd.weights_desc())};
  }

  engine_detail::WeightCodes w;
  CodeSums sums;
  int64_t n, k;
  mutable WeightCache weights;
  std::vector<int32_t> bias;  // with the terms of zero points, wrapping; of static layers
  std::vector<float> multiplier;
  bool flip_x = false;
  int32_t zero_point = 0, lo = 0, hi = 255;
  // of dynamic ones
  bool dynamic = false;
  engine_detail::RunTimeRule rule;
  std::vector<int32_t> weight_sums;  // of q_w - z_w, wrapping
  std::vector<float> float_bias;     // empty if there is none
  std::string activation, label;
};

class Int8LinearPlan final : public KernelPlan {
 public:
  Int8LinearPlan(const Int8Linear& l, int64_t m) : l_(l), table_(kernels::table()), m_(m) {
    if (m == 0) return;
    threads_ = threads_for(static_cast<double>(m) * static_cast<double>(l.n * l.k) / 4);
    use_threads(threads_);
    primitive_ = l.primitive(m);
    args_.shape.n = args_.ldc = l.n;
    args_.bias = l.bias.data();
    args_.multiplier = l.multiplier.data();
    args_.zero_point = l.zero_point;
    args_.lo = l.lo;
    args_.hi = l.hi;
    const auto rows = static_cast<size_t>(m), columns = static_cast<size_t>(l.n);
    if (l.dynamic) {
      args_.epilogue = kernels::Epilogue::dynamic;
      args_.float_bias = l.float_bias.empty() ? nullptr : l.float_bias.data();
      args_.relu = l.activation != "none";
      bias_at_ = scratch_.take(columns * 4);
      multiplier_at_ = scratch_.take(columns * 4);
    }
    if (l.dynamic || l.flip_x)
      x_at_ = scratch_.take(rows * static_cast<size_t>(l.k) + kBufferSlack);
    if (l.w.any_zero_point) rows_at_ = scratch_.take(rows * 4);
    sums_at_ = scratch_.take(primitive_.sums_bytes());
    primitive_at_ = scratch_.take(primitive_.scratch_bytes());
  }
  size_t scratch_bytes() const override { return scratch_.bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    if (m_ == 0) return;
    use_threads(threads_);
    auto* base = static_cast<std::byte*>(scratch);
    auto* codes = reinterpret_cast<uint8_t*>(base + x_at_);
    const auto* x = static_cast<const uint8_t*>(inputs[0]);
    if (l_.dynamic) {
      const affine::RunTimeQParams q = engine_detail::quantize_at_run_time(
          table_, static_cast<const float*>(inputs[0]), m_ * l_.k, l_.rule, l_.label, codes);
      auto* bias = reinterpret_cast<int32_t*>(base + bias_at_);
      auto* multiplier = reinterpret_cast<float*>(base + multiplier_at_);
      table_.dynamic_terms(q.zero_point, static_cast<float>(q.scale), l_.weight_sums.data(),
                           l_.w.scales.data(), bias, multiplier, l_.n);
      args_.bias = bias;
      args_.multiplier = multiplier;
      x = codes;
    } else if (l_.flip_x) {
      engine_detail::flip_signs(x, codes, m_ * l_.k);
      x = codes;
    }
    if (l_.w.any_zero_point) {
      auto* rows = reinterpret_cast<int32_t*>(base + rows_at_);
      sums_of_rows(table_, x, m_, l_.k, rows);
      args_.row_sums = rows;
      args_.b_zero_points = l_.w.zero_points.data();
    }
    auto* sums = reinterpret_cast<int32_t*>(base + sums_at_);
    primitive_.run(x, sums, base + primitive_at_);
    args_.c = outputs[0];
    finish_matrices(table_, 1, m_, l_.n, sums, [&](int64_t) { return args_; });
    if (l_.dynamic && l_.activation == "relu6") {
      auto* y = static_cast<float*>(outputs[0]);
      parallel_ranges(m_ * l_.n, kFinishGrain, [&](int64_t i0, int64_t i1) {
        for (int64_t i = i0; i < i1; ++i) y[i] = std::min(y[i], 6.0f);
      });
    }
  }

 private:
  const Int8Linear& l_;
  const kernels::KernelTable& table_;
  int64_t m_;
  int threads_ = 1;
  SumsPrimitive primitive_;
  kernels::GemmArgs args_;
  ScratchParts scratch_;
  size_t x_at_ = 0, bias_at_ = 0, multiplier_at_ = 0, rows_at_ = 0, sums_at_ = 0, primitive_at_ = 0;
};

// Null: oneDNN's sums are not exact, or leave int32. `wide` are the channels whose own sums do.
std::shared_ptr<Int8Linear> linear_of(engine_detail::WeightCodes codes,
                                      const std::vector<int64_t>& wide, const OpSpec& spec) {
  if (codes.codes.empty() || !wide.empty()) return nullptr;
  CodeSums sums(codes, spec);
  if (sums.farthest > kExactInProducts || !(sums.pairs_fit || sums_in_32_bits())) return nullptr;
  return std::make_shared<Int8Linear>(std::move(codes), std::move(sums), spec.inputs[1].shape());
}

std::shared_ptr<Int8Linear> static_linear(const OpSpec& spec) {
  if (!engine_detail::is_8_bit_call(spec)) return nullptr;
  engine_detail::IntegerWeights w = engine_detail::integer_weights(spec);
  auto l = linear_of(w, w.wide, spec);
  if (!l) return nullptr;
  l->flip_x = w.x_signed;
  const int64_t zx = w.x_zero_point + (w.x_signed ? 128 : 0);
  for (int64_t n = 0; n < l->n; ++n)  // wrapping, as the sums do that they are added to
    l->bias.push_back(
        static_cast<int32_t>(w.bias[n] - zx * l->sums.taps[n] + l->k * zx * w.zero_points[n]));
  l->multiplier = w.multiplier;
  l->zero_point = w.y_zero_point;
  l->lo = w.lo;
  l->hi = w.hi;
  return l;
}

std::shared_ptr<Int8Linear> dynamic_linear(const OpSpec& spec) {
  if (!engine_detail::is_dynamic_call(spec) || spec.inputs[0].is_quantized()) return nullptr;
  engine_detail::WeightCodes w = engine_detail::weight_codes(spec);
  const auto wide = engine_detail::wide_channels(w, spec, 0, 255, {});
  auto l = linear_of(std::move(w), wide, spec);
  if (!l) return nullptr;
  l->dynamic = true;
  for (int64_t n = 0; n < l->n; ++n)
    l->weight_sums.push_back(
        static_cast<int32_t>(l->sums.taps[n] - l->k * int64_t{l->w.zero_points[n]}));
  if (spec.has(2)) l->float_bias = spec.constants[2].to_vector<float>();
  l->rule = engine_detail::RunTimeRule(spec.attrs);
  l->activation = spec.attrs.get_string("activation");
  l->label = spec.label;
  return l;
}

// -- matmul ---------------------------------------------------------------------------------------

// Both operands are activations: a as unsigned codes, b as signed ones.
struct Int8Matmul {
  explicit Int8Matmul(const OpSpec& spec)
      : flip_a(spec.inputs[0].dtype == DType::qint8),
        flip_b(spec.inputs[1].dtype == DType::quint8),
        za(zero_point_of(spec.inputs[0]) + (flip_a ? 128 : 0)),
        zb(zero_point_of(spec.inputs[1]) - (flip_b ? 128 : 0)),
        zy(zero_point_of(spec.outputs[0])),
        lo(static_cast<int32_t>(qmin(spec.outputs[0].dtype))),
        hi(static_cast<int32_t>(qmax(spec.outputs[0].dtype))),
        multiplier(engine_detail::matmul_multiplier(spec)) {}
  static int32_t zero_point_of(const TensorType& t) {
    return static_cast<int32_t>(t.quantizer->zero_point());
  }
  bool flip_a, flip_b;
  int32_t za, zb, zy, lo, hi;
  float multiplier;
};

class Int8MatmulPlan final : public KernelPlan {
 public:
  Int8MatmulPlan(const Int8Matmul& c, const Shape& a, const Shape& b)
      : c_(c),
        table_(kernels::table()),
        matrices_(numel({a.begin(), a.end() - 2})),
        m_(a[a.size() - 2]),
        k_(a.back()),
        n_(b.back()),
        multipliers_(static_cast<size_t>(n_), c.multiplier),
        zero_points_(static_cast<size_t>(n_), c.zb) {
    if (matrices_ * m_ * n_ == 0) return;
    threads_ = threads_for(static_cast<double>(matrices_ * m_) * static_cast<double>(k_ * n_) / 4);
    use_threads(threads_);
    const dnnl::matmul::desc desc(row_major({matrices_, m_, k_}, memory::data_type::u8),
                                  row_major({matrices_, k_, n_}, memory::data_type::s8),
                                  row_major({matrices_, m_, n_}, memory::data_type::s32));
    dnnl::matmul::primitive_desc pd(desc, attributes("none"), cpu());
    take_exact(pd, {.fits_float = k_ * 255 * 128 <= kExactInFloat});
    primitive_ = SumsPrimitive(pd, dnnl::matmul(pd), memory(pd.weights_desc(), cpu(), nullptr));
    const auto copy = [&](bool flips, int64_t bytes) {
      return scratch_.take(flips ? static_cast<size_t>(bytes) + kBufferSlack : 0);
    };
    a_at_ = copy(c.flip_a, matrices_ * m_ * k_);
    b_at_ = copy(c.flip_b, matrices_ * k_ * n_);
    rows_at_ = scratch_.take(c.zb ? static_cast<size_t>(matrices_ * m_) * 4 : 0);
    bias_at_ = scratch_.take(static_cast<size_t>(matrices_ * n_) * 4);
    sums_at_ = scratch_.take(primitive_.sums_bytes());
    primitive_at_ = scratch_.take(primitive_.scratch_bytes());
  }
  size_t scratch_bytes() const override { return scratch_.bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    if (matrices_ * m_ * n_ == 0) return;
    use_threads(threads_);
    auto* base = static_cast<std::byte*>(scratch);
    const uint8_t* a = codes(inputs[0], c_.flip_a, matrices_ * m_ * k_, base + a_at_);
    const uint8_t* b = codes(inputs[1], c_.flip_b, matrices_ * k_ * n_, base + b_at_);
    auto* rows = reinterpret_cast<int32_t*>(base + rows_at_);
    if (c_.zb) sums_of_rows(table_, a, matrices_ * m_, k_, rows);
    auto* bias = reinterpret_cast<int32_t*>(base + bias_at_);
    parallel_ranges(matrices_, kFinishGrain / (k_ * n_ + 1) + 1, [&](int64_t i0, int64_t i1) {
      for (int64_t i = i0; i < i1; ++i)
        terms(reinterpret_cast<const int8_t*>(b) + i * k_ * n_, bias + i * n_);
    });
    auto* sums = reinterpret_cast<int32_t*>(base + sums_at_);
    primitive_.point_weights(b);
    primitive_.run(a, sums, base + primitive_at_);
    finish_matrices(table_, matrices_, m_, n_, sums, [&](int64_t i) {
      kernels::GemmArgs g;
      g.shape.n = g.ldc = n_;
      g.c = static_cast<uint8_t*>(outputs[0]) + i * m_ * n_;
      g.bias = bias + i * n_;
      g.multiplier = multipliers_.data();
      g.zero_point = c_.zy;
      g.lo = c_.lo;
      g.hi = c_.hi;
      if (c_.zb) {
        g.row_sums = rows + i * m_;
        g.b_zero_points = zero_points_.data();
      }
      return g;
    });
  }

 private:
  static const uint8_t* codes(const void* x, bool flip, int64_t n, std::byte* to) {
    if (!flip) return static_cast<const uint8_t*>(x);
    engine_detail::flip_signs(x, reinterpret_cast<uint8_t*>(to), n);
    return reinterpret_cast<const uint8_t*>(to);
  }
  // -z_a * sum(q_b) + K * z_a * z_b of the columns of a matrix. K is small enough for no part to
  // leave int32.
  void terms(const int8_t* b, int32_t* bias) const {
    std::fill_n(bias, n_, 0);
    for (int64_t k = 0; k < k_; ++k, b += n_)
      for (int64_t n = 0; n < n_; ++n) bias[n] += b[n];
    const auto of_zero_points = static_cast<int32_t>(k_ * c_.zb);
    for (int64_t n = 0; n < n_; ++n) bias[n] = c_.za * (of_zero_points - bias[n]);
  }

  const Int8Matmul& c_;
  const kernels::KernelTable& table_;
  int64_t matrices_, m_, k_, n_;
  std::vector<float> multipliers_;
  std::vector<int32_t> zero_points_;
  int threads_ = 1;
  SumsPrimitive primitive_;
  ScratchParts scratch_;
  size_t a_at_ = 0, b_at_ = 0, rows_at_ = 0, bias_at_ = 0, sums_at_ = 0, primitive_at_ = 0;
};

}  // namespace

std::unique_ptr<Kernel> make_int8_linear(const OpSpec& spec) {
  const auto l = spec.form == WeightForm::dynamic ? dynamic_linear(spec) : static_linear(spec);
  if (!l) return nullptr;
  KernelDescription description = describe_sums("bias, requantize");
  if (spec.form == WeightForm::dynamic) {
    description.at_run_time = fmt::format(
        "x: float32 to {}, one scale for the tensor, from its own range", l->rule.describe());
    description.epilogue = "to float32 by s_x*s_w, bias in float32";
    description.rounding.clear();
  }
  return std::make_unique<OneDnnKernel>(
      OneDnnKernel::Traits{.name = spec.op + " int8",
                           .packs = OneDnnKernel::Packs::all_but_first,
                           .packed_bytes = l->w.codes.size(),
                           .description = std::move(description)},
      [l](const std::vector<Shape>& in, const std::vector<Shape>&) {
        return std::make_unique<Int8LinearPlan>(*l, numel(in[0]) / l->k);
      });
}

// The same number of matrices on both sides; so few products that no sum leaves int32.
std::unique_ptr<Kernel> make_int8_matmul(const OpSpec& spec) {
  if (!engine_detail::is_8_bit_matmul(spec) || !sums_in_32_bits()) return nullptr;
  const std::vector<Dim>&a = spec.inputs[0].dims, &b = spec.inputs[1].dims;
  if (a.size() != b.size() || !std::equal(a.begin(), a.end() - 2, b.begin())) return nullptr;
  constexpr int64_t kMost = std::numeric_limits<int32_t>::max() / (255 * 255);
  if (!a.back().known() || a.back().size() == 0 || a.back().size() > kMost) return nullptr;
  const auto c = std::make_shared<const Int8Matmul>(spec);
  return std::make_unique<OneDnnKernel>(
      OneDnnKernel::Traits{.name = spec.op + " int8",
                           .description = describe_sums("requantize", false)},
      [c](const std::vector<Shape>& in, const std::vector<Shape>&) {
        return std::make_unique<Int8MatmulPlan>(*c, in[0], in[1]);
      });
}

}  // namespace octet::onednn
