// A layer of LSTM with dynamic weights over a whole sequence. x is projected for all steps at once.
// At every step a thread takes some units: it quantizes h, multiplies it with the four gates'
// weights of its units, and steps them, so that threads meet once a step and each reads its own
// part of the weights, which stays in its cache: forwards at one step, backwards at the next,
// because what was read last is still there.
#include <algorithm>
#include <cstring>

#include "octet/base/check_impl.h"
#include "octet/engine/native/dynamic_impl.h"

namespace octet::native {
namespace {

// Places among lstm's operands.
enum : size_t { kX, kH, kCell, kWeightX, kWeightH, kBiasX, kBiasH, kProjection, kLengths };

// The projection of x or h as a call of its own.
OpSpec projection(const OpSpec& spec, size_t weight, size_t bias) {
  const Shape w = spec.inputs[weight].shape();
  OpSpec r;
  r.op = "linear_dynamic";
  r.layer = "linear";
  r.form = WeightForm::dynamic;
  r.attrs = Attrs{{"activation", "none"},
                  {"reduce_range", spec.attrs.get_bool("reduce_range")},
                  {"rule", spec.attrs.get_string("rule")}};
  r.inputs = {TensorType(DType::float32, {Dim("rows"), Dim(w[1])}), spec.inputs[weight],
              spec.has(bias) ? spec.inputs[bias] : TensorType()};
  r.constants = {Tensor(), spec.constants[weight],
                 spec.has(bias) ? spec.constants[bias] : Tensor()};
  r.present = {true, true, spec.has(bias)};
  r.outputs = {TensorType(DType::float32, {Dim("rows"), Dim(w[0])})};
  r.label = spec.label;
  return r;
}

class LstmKernel final : public Kernel {
 public:
  LstmKernel(const OpSpec& spec, std::unique_ptr<Kernel> from_x, const OpSpec& from_h,
             const engine_detail::WeightCodes& codes, int64_t hidden)
      : from_x(std::move(from_x)),
        w(from_h, codes, WeightRows(codes.codes, hidden), {hidden, hidden, 1}, 4),
        reverse(spec.attrs.get_bool("reverse")) {}
  std::string name() const override {
    const kernels::KernelTable& t = *w.packed.table;
    return fmt::format("lstm gemm {}x{} {}", t.gemm_mr, t.gemm_nr, to_string(t.isa));
  }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i >= kWeightX; }
  size_t packed_bytes() const override { return from_x->packed_bytes() + w.packed.packed.bytes(); }
  KernelDescription description() const override {
    KernelDescription d = w.description();
    d.at_run_time =
        "x once for all steps, h at every step: float32 to quint8, one scale each, from "
        "their own range";
    d.epilogue = "to float32 by s*s_w, bias; gates and states in float32";
    return d;
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& inputs,
                                   const std::vector<Shape>& outputs) const override;

  std::unique_ptr<Kernel> from_x;
  DynamicWeights w;  // of h: a group for each gate
  bool reverse;
};

class LstmPlan final : public KernelPlan {
 public:
  LstmPlan(const LstmKernel& kernel, const Shape& x)
      : kernel_(kernel),
        table_(*kernel.w.packed.table),
        steps_(x[0]),
        batch_(x[1]),
        hidden_(kernel.w.packed.shape.n),
        from_x_(kernel.from_x->plan({{x[0] * x[1], x[2]}, {}, {}}, {{x[0] * x[1], 4 * hidden_}})),
        parts_(num_threads()) {
    const auto of_gates = static_cast<size_t>(4 * hidden_) * 4;
    gates_at_ = scratch_.take(static_cast<size_t>(steps_ * batch_) * of_gates);
    of_h_at_ = scratch_.take(static_cast<size_t>(batch_) * of_gates);
    codes_bytes_ = (static_cast<size_t>(batch_ * hidden_) + kBufferSlack + 63) / 64 * 64;
    part_bytes_ = codes_bytes_ + 2 * of_gates;
    parts_at_ = scratch_.take(static_cast<size_t>(parts_) * part_bytes_);
    from_x_at_ = scratch_.take(from_x_->scratch_bytes());
  }
  size_t scratch_bytes() const override { return scratch_.bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    base_ = static_cast<std::byte*>(scratch);
    auto* gates = reinterpret_cast<float*>(base_ + gates_at_);
    const void* x[3] = {inputs[kX], nullptr, nullptr};
    void* projected[] = {gates};
    from_x_->run(x, projected, base_ + from_x_at_);
    auto *y = static_cast<float*>(outputs[0]), *last = static_cast<float*>(outputs[1]);
    cell_ = static_cast<float*>(outputs[2]);
    const int64_t state = batch_ * hidden_;
    std::memcpy(cell_, inputs[kCell], static_cast<size_t>(state) * 4);
    h_ = static_cast<const float*>(inputs[kH]);
    const int64_t tiles = (hidden_ + table_.gemm_nr - 1) / table_.gemm_nr;
    const int64_t parts = std::clamp<int64_t>(worthwhile_tasks(batch_, 4 * hidden_ * hidden_), 1,
                                              std::min(parts_, tiles));
    for (int64_t i = 0; i < steps_; ++i) {
      const int64_t t = kernel_.reverse ? steps_ - 1 - i : i;
      gates_ = gates + t * batch_ * 4 * hidden_;
      next_ = y + t * state;
      backwards_ = i % 2 == 1;
      parallel_for(parts, [&](int64_t p) {
        step(p, tiles * p / parts * table_.gemm_nr,
             std::min(hidden_, tiles * (p + 1) / parts * table_.gemm_nr));
      });
      h_ = next_;
    }
    std::memcpy(last, h_, static_cast<size_t>(state) * 4);
  }

 private:
  // Units j0..j1.
  void step(int64_t part, int64_t j0, int64_t j1) const {
    const DynamicWeights& w = kernel_.w;
    std::byte* mine = base_ + parts_at_ + static_cast<size_t>(part) * part_bytes_;
    auto* codes = reinterpret_cast<uint8_t*>(mine);
    auto* bias = reinterpret_cast<int32_t*>(mine + codes_bytes_);
    auto* multiplier = reinterpret_cast<float*>(bias + 4 * hidden_);
    auto* of_h = reinterpret_cast<float*>(base_ + of_h_at_);
    float min = 0, max = 0;
    int64_t not_finite = 0;
    table_.min_max(h_, batch_ * hidden_, &min, &max, &not_finite);
    const affine::RunTimeQParams q =
        w.rule.qparams(std::min(min, 0.0f), std::max(max, 0.0f), not_finite, w.label);
    const float scale = static_cast<float>(q.scale);
    w.rule.codes(table_, h_, codes, batch_ * hidden_, q);
    for (int64_t i = 0; i < 4; ++i) {
      const int64_t gate = backwards_ ? 3 - i : i, first = gate * hidden_;
      table_.dynamic_terms(q.zero_point, scale, w.sums.data() + first + j0,
                           w.packed.multiplier.data() + first + j0, bias + first + j0,
                           multiplier + first + j0, j1 - j0);
      kernels::GemmArgs a = w.packed.arguments(gate);
      a.epilogue = kernels::Epilogue::dynamic;
      a.a = codes;
      a.lda = hidden_;
      a.c = of_h + first;
      a.ldc = 4 * hidden_;
      a.bias = bias + first;
      a.multiplier = multiplier + first;
      a.float_bias = w.bias.empty() ? nullptr : w.bias.data() + first;
      w.packed.gemm(a, 0, batch_, j0, j1);
    }
    for (int64_t n = 0; n < batch_; ++n)
      table_.lstm_gates(gates_ + n * 4 * hidden_ + j0, of_h + n * 4 * hidden_ + j0, hidden_,
                        cell_ + n * hidden_ + j0, next_ + n * hidden_ + j0, j1 - j0);
  }

  const LstmKernel& kernel_;
  const kernels::KernelTable& table_;
  int64_t steps_, batch_, hidden_;
  std::unique_ptr<KernelPlan> from_x_;
  int64_t parts_;
  ScratchParts scratch_;
  size_t gates_at_, of_h_at_, codes_bytes_, part_bytes_, parts_at_, from_x_at_;
  // Of the step that is run.
  std::byte* base_ = nullptr;
  float *gates_ = nullptr, *cell_ = nullptr, *next_ = nullptr;
  const float* h_ = nullptr;
  bool backwards_ = false;
};

std::unique_ptr<KernelPlan> LstmKernel::plan(const std::vector<Shape>& inputs,
                                             const std::vector<Shape>&) const {
  return std::make_unique<LstmPlan>(*this, inputs[kX]);
}

}  // namespace

std::unique_ptr<Kernel> make_lstm(const OpSpec& spec) {
  if (spec.has(kProjection) || spec.has(kLengths)) return nullptr;
  for (size_t i : {kWeightX, kWeightH})
    if (!spec.constants[i].defined() || !spec.inputs[i].is_quantized()) return nullptr;
  const OpSpec from_h = projection(spec, kWeightH, kBiasH);
  auto from_x = make_dynamic(projection(spec, kWeightX, kBiasX));
  if (!from_x || !engine_detail::is_dynamic_call(from_h)) return nullptr;
  const engine_detail::WeightCodes codes = engine_detail::weight_codes(from_h);
  // the operator's own evaluation
  if (codes.codes.empty() || codes.any_zero_point || codes.four_bit) return nullptr;
  if (!engine_detail::wide_channels(codes, from_h, 0, 255, {}).empty()) return nullptr;  // likewise
  return std::make_unique<LstmKernel>(spec, std::move(from_x), from_h, codes,
                                      spec.inputs[kWeightH].shape()[1]);
}

}  // namespace octet::native
