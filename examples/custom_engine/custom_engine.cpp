// An engine of a user's own, in a program of its own: octet is not changed or built anew. The
// engine "mine" has one kernel, `add` on codes; the other steps of the network run on octet's
// kernels, and the results are those of the reference engine to the bit.
#include <octet/octet.h>

#include <algorithm>
#include <iostream>

using namespace octet;

// What `add` on codes is (docs/numerics.md): dequantize, add, quantize.
struct AddArguments {
  float a_scale, b_scale, y_scale;
  int32_t a_zero, b_zero, y_zero;
  int32_t lo, hi;  // the codes of the result; a fused relu cuts those below zero off
};

// What runs for operands of known shapes. It allocates nothing.
class AddPlan final : public KernelPlan {
 public:
  AddPlan(const AddArguments& args, int64_t elements) : args_(args), elements_(elements) {}
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    const auto *a = static_cast<const uint8_t*>(inputs[0]),
               *b = static_cast<const uint8_t*>(inputs[1]);
    auto* y = static_cast<uint8_t*>(outputs[0]);
    parallel_ranges(elements_, 1 << 16, [&](int64_t i0, int64_t i1) {
      for (int64_t i = i0; i < i1; ++i) {
        const float sum = affine::dequantize(a[i], args_.a_scale, args_.a_zero) +
                          affine::dequantize(b[i], args_.b_scale, args_.b_zero);
        y[i] = static_cast<uint8_t>(
            affine::quantize(sum, args_.y_scale, args_.y_zero, args_.lo, args_.hi));
      }
    });
  }

 private:
  AddArguments args_;
  int64_t elements_;
};

// Made once for a node of a graph; its plans are made for each set of shapes.
class AddKernel final : public Kernel {
 public:
  explicit AddKernel(const AddArguments& args) : args_(args) {}
  std::string name() const override { return "add, element by element"; }
  std::string engine() const override { return "mine"; }
  // Elements meet the same elements in either layout, so nothing has to be reordered.
  Layout input_layout(size_t) const override { return Layout::any; }
  Layout output_layout(size_t) const override { return Layout::any; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>&,
                                   const std::vector<Shape>& outputs) const override {
    return std::make_unique<AddPlan>(args_, numel(outputs[0]));
  }

 private:
  AddArguments args_;
};

// Null where the call is another than the kernel computes: octet's engines are asked then.
std::unique_ptr<Kernel> make_add(const OpSpec& spec) {
  const TensorType &a = spec.inputs[0], &b = spec.inputs[1], &y = spec.outputs[0];
  for (const TensorType* t : {&a, &b, &y})
    if (t->dtype != DType::quint8 || t->dims != y.dims) return nullptr;
  const std::string& activation = spec.attrs.get_string("activation");
  if (activation != "none" && activation != "relu") return nullptr;
  auto scale = [](const TensorType& t) { return static_cast<float>(t.quantizer->scale()); };
  auto zero = [](const TensorType& t) { return static_cast<int32_t>(t.quantizer->zero_point()); };
  const int32_t lo = activation == "relu" ? zero(y) : 0;
  return std::make_unique<AddKernel>(
      AddArguments{scale(a), scale(b), scale(y), zero(a), zero(b), zero(y), lo, 255});
}

// A residual block and a classifier.
struct Net : nn::Module {
  nn::Slot conv1 = slot("conv1", nn::Conv2d(3, 8, 3, {.padding = 1}));
  nn::Slot conv2 = slot("conv2", nn::Conv2d(8, 8, 3, {.padding = 1}));
  nn::Slot linear = slot("linear", nn::Linear(8, 5));
  Tensor forward(Tensor x) override {
    x = functional::relu(conv1(x));
    x = functional::relu(x + conv2(x));
    return linear(functional::adaptive_avg_pool2d(x, 1).flatten(1));
  }
};

int main() {
  Engine mine("mine", {}, "an add of a user's own");
  mine.add({"add"}, make_add);
  register_engine(std::move(mine));

  auto net = nn::make<Net>();
  net->eval();
  const Tensor x = Tensor::randn({2, 3, 8, 8}, 0);
  auto prepared = quant::prepare_fx(net, quant::get_default_qconfig_mapping("native"), {x});
  for (uint64_t i = 1; i < 4; ++i) prepared->forward(Tensor::randn({2, 3, 8, 8}, i));
  const graph::Graph graph = quant::convert_fx(prepared)->to_graph();

  set_engine("mine");
  const runtime::Program program = runtime::compile(graph);
  int64_t ran = 0;
  for (const runtime::StepInfo& step : program.steps()) {
    ran += step.engine == "mine";
    std::cout << step.engine << ": " << step.kernel
              << (step.note.empty() ? "" : "   (" + step.note + ")") << "\n";
  }
  for (const std::string& line : program.fallbacks()) std::cout << line << "\n";

  const auto reference = runtime::compile(graph, {.engine = "reference"});
  const bool same = equal(program.run({x})[0], reference.run({x})[0]);
  std::cout << "mine ran " << ran << " of " << program.steps().size() << " steps; the results are "
            << (same ? "the reference engine's" : "NOT the reference engine's") << "\n";
  return ran == 1 && same ? 0 : 1;
}
