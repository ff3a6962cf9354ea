#include "octet/engine/engine.h"

#include <atomic>

#include "octet/base/check_impl.h"
#include "octet/base/text.h"
#include "octet/engine/engines_impl.h"
#include "octet/engine/native_impl.h"

namespace octet {
namespace {

class NativeEngine final : public Engine {
 public:
  std::string name() const override { return "native"; }
  std::unique_ptr<Kernel> make(const OpSpec& spec) const override {
    for (auto maker : {native::make_conv, native::make_linear, native::make_dynamic, native::make_pool, native::make_elementwise, native::make_cat})
      if (auto kernel = maker(spec)) return kernel;
    return nullptr;
  }
};

enum class Choice { native, reference };

Choice parse_engine(std::string_view name) {
  if (name == "native" || name == "fbgemm" || name == "x86") return Choice::native;
  if (name == "reference") return Choice::reference;
  OCTET_FAIL(invalid_argument, "unknown engine '{}': expected native (also called fbgemm, x86) or reference{}", name,
             did_you_mean(name, {"native", "reference"}));
}

std::atomic<Choice> g_engine{Choice::native};

}  // namespace

void set_engine(std::string_view name) { g_engine = parse_engine(name); }
std::string engine() { return g_engine == Choice::native ? "native" : "reference"; }

std::unique_ptr<Kernel> make_kernel(const OpSpec& spec, std::string_view engine) {
  static const NativeEngine native;
  Choice choice = engine.empty() ? g_engine.load() : parse_engine(engine);
  if (choice == Choice::native) {
    if (auto kernel = native.make(spec)) return kernel;
    if (auto kernel = onednn_engine().make(spec)) return kernel;
  }
  return reference_engine().make(spec);
}

std::vector<Tensor> run_kernel(const Kernel& kernel, const OpSpec& spec, const std::vector<Tensor>& inputs) {
  auto format = [](Layout layout, const Tensor& t) {
    return layout == Layout::channels_last && t.dim() == 4 ? MemoryFormat::channels_last : MemoryFormat::contiguous;
  };
  std::vector<Tensor> laid_out(inputs.size());
  std::vector<const void*> in(inputs.size(), nullptr);
  std::vector<Shape> in_shapes, out_shapes;
  for (size_t i = 0; i < inputs.size(); ++i) {
    in_shapes.push_back(inputs[i].defined() ? inputs[i].shape() : Shape{});
    if (!inputs[i].defined() || (spec.constants[i].defined() && kernel.packs(i))) continue;
    laid_out[i] = inputs[i].contiguous(format(kernel.input_layout(i), inputs[i]));
    in[i] = laid_out[i].raw_data();
  }
  std::vector<Tensor> results;
  std::vector<void*> out;
  for (size_t i = 0; i < spec.outputs.size(); ++i) {
    const TensorType& t = spec.outputs[i];
    Shape shape = t.shape();
    bool nhwc = kernel.output_layout(i) == Layout::channels_last && shape.size() == 4;
    results.push_back(Tensor::empty(shape, t.dtype, t.quantizer,
                                    nhwc ? MemoryFormat::channels_last : MemoryFormat::contiguous));
    out.push_back(results.back().raw_data());
    out_shapes.push_back(shape);
  }
  auto plan = kernel.plan(in_shapes, out_shapes);
  Buffer scratch = Buffer::allocate(plan->scratch_bytes());
  plan->run(in, out, scratch.data());
  return results;
}

}  // namespace octet
