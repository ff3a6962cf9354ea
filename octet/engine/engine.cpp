#include "octet/engine/engine.h"

#include <atomic>
#include <mutex>

#include "octet/base/check_impl.h"
#include "octet/engine/engines_impl.h"
#include "octet/engine/integer_weights_impl.h"

namespace octet {

void KernelPlan::run_rows(std::span<const void* const>, std::span<void* const>, int64_t, int64_t) {
  OCTET_FAIL(internal, "run_rows: this kernel does not go by rows");
}

const char* to_string(KernelDescription::Arithmetic arithmetic) {
  using A = KernelDescription::Arithmetic;
  switch (arithmetic) {
    case A::unsaid:
      return "unsaid";
    case A::integers:
      return "integers";
    case A::table:
      return "table";
    case A::moves:
      return "moves";
    case A::codes_in_float:
      return "codes in float";
    case A::fixed_point:
      return "fixed point";
    case A::converts:
      return "converts";
    case A::through_float:
      return "through float";
    case A::floats:
      return "floats";
  }
  return "unsaid";
}

namespace {
thread_local KernelWatch* t_watch = nullptr;

void tell_watch(const Kernel& kernel) {
  if (t_watch) t_watch->ran(kernel);
}
}  // namespace

KernelWatch::KernelWatch() : outer_(t_watch) { t_watch = this; }
KernelWatch::~KernelWatch() { t_watch = outer_; }

namespace {

std::atomic<const Engine*>& current() {
  static std::atomic<const Engine*> engine{&find_engine("native")};
  return engine;
}

}  // namespace

void set_engine(std::string_view name) { current() = &find_engine(name); }
std::string engine() { return current().load()->name(); }

namespace {
// A weight-only operator with a constant weight that no engine has as it is, is the float operator
// on the weight dequantized once. Null: it is not such.
std::unique_ptr<OpSpec> float_form(const OpSpec& spec) {
  if (spec.form != WeightForm::weight_only || !spec.constants[1].defined() ||
      engine_detail::is_weight_only_call(spec))
    return nullptr;
  // convolutions of one dimension run as 2-d ones, which have kernels
  if (spec.inputs[1].dim() == 3) return nullptr;
  auto form = std::make_unique<OpSpec>(spec);
  form->op = spec.layer;
  form->layer.clear();
  form->form = WeightForm::in_float;
  form->constants[1] = spec.constants[1].dequantize();
  form->inputs[1] = form->constants[1].type();
  return form;
}
}  // namespace

std::unique_ptr<Kernel> make_kernel(const OpSpec& spec, std::string_view engine) {
  if (auto form = float_form(spec)) return make_kernel(*form, engine);
  const Engine& chosen = engine.empty() ? *current().load() : find_engine(engine);
  if (auto kernel = chosen.make(spec)) return kernel;
  if (!chosen.falls_back()) return nullptr;
  static const Engine& native = find_engine("native");
  static const Engine training = onednn::make_training_engine();
  static const Engine& reference = find_engine("reference");
  for (const Engine* next : {&native, &training, &reference})
    if (next != &chosen)
      if (auto kernel = next->make(spec)) return kernel;
  return native::make_through_float(spec);
}

namespace {

// Operands in the layouts a kernel wants, and the results' buffers.
struct Operands {
  Operands(const Kernel& kernel, const std::vector<bool>& constant,
           const std::vector<Tensor>& inputs, const std::vector<TensorType>& outputs)
      : laid_out(inputs.size()), in(inputs.size(), nullptr) {
    auto format = [](Layout layout, size_t dims) {
      return layout == Layout::channels_last && dims == 4 ? MemoryFormat::channels_last
                                                          : MemoryFormat::contiguous;
    };
    for (size_t i = 0; i < inputs.size(); ++i) {
      in_shapes.push_back(inputs[i].defined() ? inputs[i].shape() : Shape{});
      if (!inputs[i].defined() || (constant[i] && kernel.packs(i))) continue;
      laid_out[i] = inputs[i].contiguous(format(kernel.input_layout(i), inputs[i].shape().size()));
      in[i] = laid_out[i].raw_data();
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      out_shapes.push_back(outputs[i].shape());
      results.push_back(Tensor::empty(out_shapes[i], outputs[i].dtype, outputs[i].quantizer,
                                      format(kernel.output_layout(i), out_shapes[i].size())));
      out.push_back(results.back().raw_data());
    }
  }
  void run(KernelPlan& plan) {
    Buffer scratch = Buffer::allocate(plan.scratch_bytes());
    plan.run(in, out, scratch.data());
  }

  std::vector<Tensor> laid_out, results;
  std::vector<const void*> in;
  std::vector<void*> out;
  std::vector<Shape> in_shapes, out_shapes;
};

std::vector<bool> constant_operands(const OpSpec& spec) {
  std::vector<bool> constant;
  for (const Tensor& t : spec.constants) constant.push_back(t.defined());
  return constant;
}

}  // namespace

std::vector<Tensor> run_kernel(const Kernel& kernel, const OpSpec& spec,
                               const std::vector<Tensor>& inputs) {
  const bool lies_so = !inputs.empty() && kernel.input_layout(0) == Layout::row_major &&
                       inputs[0].defined() && inputs[0].dim() == 4 && !inputs[0].is_contiguous() &&
                       inputs[0].is_contiguous(MemoryFormat::channels_last);
  if (auto other = lies_so ? kernel.in_channels_last() : nullptr)
    return run_kernel(*other, spec, inputs);
  tell_watch(kernel);
  Operands operands(kernel, constant_operands(spec), inputs, spec.outputs);
  operands.run(*kernel.plan(operands.in_shapes, operands.out_shapes));
  return std::move(operands.results);
}

struct CachedKernel::Plan {
  std::mutex mutex;
  std::vector<Shape> in_shapes, out_shapes;
  std::unique_ptr<KernelPlan> plan;
};

CachedKernel::CachedKernel(const OpSpec& spec)
    : kernel_(make_kernel(spec)),
      constant_(constant_operands(spec)),
      plan_(std::make_unique<Plan>()) {}
CachedKernel::~CachedKernel() = default;

std::vector<Tensor> CachedKernel::run(const std::vector<Tensor>& inputs,
                                      const std::vector<TensorType>& outputs) const {
  tell_watch(*kernel_);
  Operands operands(*kernel_, constant_, inputs, outputs);
  std::unique_lock lock(plan_->mutex, std::try_to_lock);
  if (!lock) {  // another thread runs it: a plan of our own
    operands.run(*kernel_->plan(operands.in_shapes, operands.out_shapes));
  } else {
    if (!plan_->plan || plan_->in_shapes != operands.in_shapes ||
        plan_->out_shapes != operands.out_shapes) {
      plan_->plan = kernel_->plan(operands.in_shapes, operands.out_shapes);
      plan_->in_shapes = operands.in_shapes;
      plan_->out_shapes = operands.out_shapes;
    }
    operands.run(*plan_->plan);
  }
  return std::move(operands.results);
}

}  // namespace octet
