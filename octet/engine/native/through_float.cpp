// Operators on codes that are defined as dequantize, float operator, quantize and that have a float
// kernel: the three steps as one kernel, planned once.
#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/engines_impl.h"
#include "octet/engine/native/native_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {
namespace {

constexpr int64_t kGrain = 1 << 16;

class ThroughFloat final : public Kernel {
 public:
  using Operands = std::vector<std::optional<CodesOf>>;  // null: passed on as it is
  ThroughFloat(const OpSpec& spec, std::unique_ptr<Kernel> inner)
      : ThroughFloat(spec.op, std::move(inner), {}, CodesOf(spec.outputs[0])) {
    for (size_t i = 0; i < spec.inputs.size(); ++i) {
      const bool packed = spec.constants[i].defined() && inner_->packs(i);
      operands_.push_back(spec.has(i) && spec.inputs[i].is_quantized() && !packed
                              ? std::optional<CodesOf>(spec.inputs[i])
                              : std::nullopt);
    }
  }
  ThroughFloat(std::string op, std::unique_ptr<Kernel> inner, Operands operands,
               const CodesOf& result)
      : op_(std::move(op)),
        inner_(std::move(inner)),
        operands_(std::move(operands)),
        result_(result) {}
  std::string name() const override { return fmt::format("{} in float: {}", op_, inner_->name()); }
  std::string engine() const override { return inner_->engine(); }
  Threads threads() const override { return inner_->threads(); }
  Layout input_layout(size_t i) const override { return inner_->input_layout(i); }
  Layout output_layout(size_t i) const override { return inner_->output_layout(i); }
  std::unique_ptr<Kernel> in_channels_last() const override {
    auto inner = inner_->in_channels_last();
    return inner ? std::make_unique<ThroughFloat>(op_, std::move(inner), operands_, result_)
                 : nullptr;
  }
  bool packs(size_t i) const override { return inner_->packs(i); }
  size_t packed_bytes() const override { return inner_->packed_bytes(); }
  KernelDescription description() const override {
    KernelDescription d = described(KernelDescription::Arithmetic::through_float, kOneToCodes);
    d.loop = inner_->name();
    d.at_run_time = "operands: codes to float32; result: float32 to codes";
    return d;
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override;

 private:
  std::string op_;
  std::unique_ptr<Kernel> inner_;
  Operands operands_;
  CodesOf result_;
};

class ThroughFloatPlan final : public KernelPlan {
 public:
  ThroughFloatPlan(std::unique_ptr<KernelPlan> inner,
                   const std::vector<std::optional<CodesOf>>& operands, const CodesOf& result,
                   const std::vector<Shape>& in, int64_t out)
      : inner_(std::move(inner)), operands_(operands), result_(result), out_(out) {
    auto part = [this](int64_t floats) {
      return parts_.take(static_cast<size_t>(floats) * 4 + kBufferSlack);
    };
    for (size_t i = 0; i < operands_.size(); ++i) {
      counts_.push_back(operands_[i] ? numel(in[i]) : 0);
      at_.push_back(operands_[i] ? part(counts_[i]) : 0);
    }
    result_at_ = part(out);
    pointers_.resize(operands_.size());
  }
  size_t scratch_bytes() const override { return parts_.bytes() + inner_->scratch_bytes(); }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    const kernels::KernelTable& table = kernels::table();
    auto* base = static_cast<std::byte*>(scratch);
    for (size_t i = 0; i < inputs.size(); ++i) {
      pointers_[i] = inputs[i];
      if (!operands_[i] || !inputs[i]) continue;
      auto* to = reinterpret_cast<float*>(base + at_[i]);
      const CodesOf& c = *operands_[i];
      parallel_ranges(counts_[i], kGrain, [&](int64_t i0, int64_t i1) {
        dequantize(table, c, c.at(inputs[i], i0), to + i0, i1 - i0);
      });
      pointers_[i] = to;
    }
    auto* y = reinterpret_cast<float*>(base + result_at_);
    void* results[] = {y};
    inner_->run({pointers_.data(), inputs.size()}, results, base + parts_.bytes());
    parallel_ranges(out_, kGrain, [&](int64_t i0, int64_t i1) {
      quantize(table, result_, y + i0, result_.at(outputs[0], i0), i1 - i0);
    });
  }

 private:
  std::unique_ptr<KernelPlan> inner_;
  std::vector<std::optional<CodesOf>> operands_;
  CodesOf result_;
  int64_t out_;
  std::vector<int64_t> counts_;
  std::vector<size_t> at_;
  ScratchParts parts_;  // the inner plan's scratch follows
  size_t result_at_ = 0;
  std::vector<const void*> pointers_;
};

std::unique_ptr<KernelPlan> ThroughFloat::plan(const std::vector<Shape>& in,
                                               const std::vector<Shape>& out) const {
  return std::make_unique<ThroughFloatPlan>(inner_->plan(in, out), operands_, result_, in,
                                            numel(out[0]));
}

}  // namespace

std::unique_ptr<Kernel> make_through_float(const OpSpec& spec) {
  // (Those that have an arithmetic of their own on codes.)
  for (const char* op : {"quantize", "dequantize", "requantize", "lookup", "mul", "mean"})
    if (spec.op == op) return nullptr;
  if (spec.outputs.size() != 1 || !codes_per_tensor(spec.outputs[0])) return nullptr;
  OpSpec form = spec;
  bool any = false;
  for (size_t i = 0; i < form.inputs.size(); ++i) {
    if (!spec.has(i) || !form.inputs[i].is_quantized()) continue;
    if (!codes_per_tensor(form.inputs[i])) return nullptr;
    any = true;
    form.inputs[i] = TensorType(DType::float32, form.inputs[i].dims);
    if (form.constants[i].defined()) form.constants[i] = form.constants[i].dequantize();
  }
  if (!any) return nullptr;
  form.outputs[0] = TensorType(DType::float32, form.outputs[0].dims);
  form.table.clear();
  auto inner = find_engine("native").make(form);
  return inner ? std::make_unique<ThroughFloat>(spec, std::move(inner)) : nullptr;
}

}  // namespace octet::native
