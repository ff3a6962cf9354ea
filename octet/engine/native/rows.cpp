// Floats row by row: arithmetic with an operand that may be repeated, square roots and the like,
// means and softmax of rows. What a normalization or an attention spelled out in small operators is
// made of; the runtime runs neighbours of them a few rows at a time (RowGroup in
// runtime/program_impl.h). Single IEEE operations, or the kernels' sums: the bits are those of
// every other way.
#include <cmath>
#include <map>

#include "octet/base/check_impl.h"
#include "octet/engine/native/float_impl.h"
#include "octet/engine/native/rows_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {
namespace {

class FloatRows : public Kernel {
 public:
  FloatRows(std::string name, bool any_layout, bool in_place)
      : name_(std::move(name)), any_layout_(any_layout), in_place_(in_place) {}
  std::string name() const override { return name_; }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    return described(KernelDescription::Arithmetic::floats);
  }
  Layout input_layout(size_t) const override {
    return any_layout_ ? Layout::any : Layout::row_major;
  }
  Layout output_layout(size_t) const override {
    return any_layout_ ? Layout::any : Layout::row_major;
  }
  bool by_rows() const override { return true; }
  bool in_place() const override { return in_place_; }

 private:
  std::string name_;
  bool any_layout_, in_place_;
};

// -- element by element ---------------------------------------------------------------------------

using kernels::Arithmetic;

class BinaryPlan final : public ElementsPlan {
 public:
  BinaryPlan(Arithmetic op, const FloatRange& range, Broadcast broadcast, const Shape& y)
      : ElementsPlan(y), op_(op), range_(range), broadcast_(std::move(broadcast)) {}

 private:
  void range(std::span<const void* const> inputs, void* out, int64_t i0,
             int64_t i1) const override {
    auto* y = static_cast<float*>(out);
    broadcast_.each(i0, i1, inputs[0], sizeof(float), inputs[1], sizeof(float),
                    [&](int64_t i, int64_t count, const void* a, int64_t a_step, const void* b,
                        int64_t b_step) {
                      kernels::table().arithmetic(op_, static_cast<const float*>(a), a_step,
                                                  static_cast<const float*>(b), b_step, y + i,
                                                  count);
                      if (range_.any())
                        kernels::table().float_clamp(y + i, y + i, count, range_.lo, range_.hi);
                    });
  }

  Arithmetic op_;
  FloatRange range_;
  Broadcast broadcast_;
};

class BinaryKernel final : public FloatRows {
 public:
  BinaryKernel(const std::string& op, Arithmetic arithmetic, const FloatRange& range,
               ElementOrder order)
      : FloatRows(op + " floats", order == ElementOrder::any, true),
        op_(op),
        arithmetic_(arithmetic),
        range_(range),
        order_(order) {}
  Layout input_layout(size_t) const override { return layout_of(order_); }
  Layout output_layout(size_t) const override { return layout_of(order_); }
  std::unique_ptr<Kernel> in_channels_last() const override {
    if (order_ != ElementOrder::either) return nullptr;
    return std::make_unique<BinaryKernel>(op_, arithmetic_, range_, ElementOrder::channels_last);
  }
  bool by_rows() const override { return order_ != ElementOrder::channels_last; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<BinaryPlan>(
        arithmetic_, range_, Broadcast(in[0], in[1], out[0], order_ == ElementOrder::channels_last),
        out[0]);
  }

 private:
  std::string op_;
  Arithmetic arithmetic_;
  FloatRange range_;
  ElementOrder order_;
};

}  // namespace

std::unique_ptr<Kernel> make_float_binary(const OpSpec& spec) {
  if (!is_float(spec)) return nullptr;
  static const std::map<std::string, Arithmetic> known{{"add", Arithmetic::add},
                                                       {"sub", Arithmetic::sub},
                                                       {"mul", Arithmetic::mul},
                                                       {"div", Arithmetic::div}};
  const FloatRange range(spec.attrs.has("activation") ? spec.attrs.get_string("activation")
                                                      : "none");
  return std::make_unique<BinaryKernel>(spec.op, known.at(spec.op), range, element_order(spec));
}

namespace {

class UnaryPlan final : public ElementsPlan {
 public:
  UnaryPlan(FloatFunction fn, const Shape& y) : ElementsPlan(y), fn_(std::move(fn)) {}

 private:
  void range(std::span<const void* const> inputs, void* y, int64_t i0, int64_t i1) const override {
    fn_(static_cast<const float*>(inputs[0]) + i0, static_cast<float*>(y) + i0, i1 - i0);
  }
  FloatFunction fn_;
};

class UnaryKernel final : public FloatRows {
 public:
  UnaryKernel(const std::string& op, FloatFunction fn)
      : FloatRows(op + " floats", true, true), fn_(fn) {}
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>&,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<UnaryPlan>(fn_, out[0]);
  }

 private:
  FloatFunction fn_;
};

// relu, relu6, clamp.
class ClampPlan final : public ElementsPlan {
 public:
  ClampPlan(float lo, float hi, const Shape& y) : ElementsPlan(y), lo_(lo), hi_(hi) {}

 private:
  void range(std::span<const void* const> inputs, void* y, int64_t i0, int64_t i1) const override {
    kernels::table().float_clamp(static_cast<const float*>(inputs[0]) + i0,
                                 static_cast<float*>(y) + i0, i1 - i0, lo_, hi_);
  }
  float lo_, hi_;
};

class ClampKernel final : public FloatRows {
 public:
  ClampKernel(const std::string& op, float lo, float hi)
      : FloatRows(fmt::format("{} floats {}", op, to_string(kernels::table().isa)), true, true),
        lo_(lo),
        hi_(hi) {}
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>&,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<ClampPlan>(lo_, hi_, out[0]);
  }

 private:
  float lo_, hi_;
};

}  // namespace

std::unique_ptr<Kernel> make_float_clamp(const OpSpec& spec) {
  if (!is_float(spec)) return nullptr;
  if (spec.op == "relu" || spec.op == "relu6") {
    const FloatRange range(spec.op);
    return std::make_unique<ClampKernel>(spec.op, range.lo, range.hi);
  }
  if (spec.inputs.size() != 1) return nullptr;
  return std::make_unique<ClampKernel>(spec.op, static_cast<float>(spec.attrs.get_double("min")),
                                       static_cast<float>(spec.attrs.get_double("max")));
}

namespace {

bool is_square(const OpSpec& spec) {
  const Tensor& exponent = spec.constants.size() == 2 ? spec.constants[1] : Tensor();
  return spec.op == "pow" && exponent.defined() && exponent.dtype() == DType::float32 &&
         exponent.numel() == 1 && exponent.to_vector<float>()[0] == 2 &&
         spec.inputs[0].dims == spec.outputs[0].dims;
}
void square(const float* x, float* y, int64_t n) {
  kernels::table().arithmetic(Arithmetic::mul, x, 1, x, 1, y, n);
}

}  // namespace

std::unique_ptr<Kernel> make_float_unary(const OpSpec& spec) {
  if (!is_float(spec)) return nullptr;
  if (is_square(spec)) return std::make_unique<UnaryKernel>(spec.op, square);
  return spec.function ? std::make_unique<UnaryKernel>(spec.op, spec.function) : nullptr;
}

// -- whole rows -----------------------------------------------------------------------------------

namespace {

// y = row(x, y): n elements to n, or to one.
using RowFn = void (*)(const float* x, float* y, int64_t n);

class RowPlan final : public RowsPlan {
 public:
  RowPlan(RowFn fn, const Shape& x, const Shape& y) : RowsPlan(x), fn_(fn), result_(y.back()) {}
  void run_rows(std::span<const void* const> inputs, std::span<void* const> outputs, int64_t r0,
                int64_t r1) override {
    const auto* x = static_cast<const float*>(inputs[0]);
    auto* y = static_cast<float*>(outputs[0]);
    for (int64_t r = r0; r < r1; ++r) fn_(x + r * width_, y + r * result_, width_);
  }

 private:
  RowFn fn_;
  int64_t result_;
};

class RowKernel final : public FloatRows {
 public:
  RowKernel(const std::string& op, RowFn fn, bool in_place)
      : FloatRows(fmt::format("{} {}", op, to_string(kernels::table().isa)), false, in_place),
        fn_(fn) {}
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<RowPlan>(fn_, in[0], out[0]);
  }

 private:
  RowFn fn_;
};

class LayerNormPlan final : public RowsPlan {
 public:
  LayerNormPlan(double eps, const Shape& x) : RowsPlan(x), eps_(eps) {}
  void run_rows(std::span<const void* const> inputs, std::span<void* const> outputs, int64_t r0,
                int64_t r1) override {
    auto floats = [&](size_t i) {
      return i < inputs.size() ? static_cast<const float*>(inputs[i]) : nullptr;
    };
    for (int64_t r = r0; r < r1; ++r)
      kernels::table().layer_norm(floats(0) + r * width_, floats(1), floats(2), eps_,
                                  static_cast<float*>(outputs[0]) + r * width_, width_);
  }

 private:
  double eps_;
};

class LayerNorm final : public FloatRows {
 public:
  explicit LayerNorm(double eps)
      : FloatRows(fmt::format("layer_norm {}", to_string(kernels::table().isa)), false, true),
        eps_(eps) {}
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    return std::make_unique<LayerNormPlan>(eps_, in[0]);
  }

 private:
  double eps_;
};

}  // namespace

std::unique_ptr<Kernel> make_float_rows(const OpSpec& spec) {
  if (!is_float(spec)) return nullptr;
  const int64_t rank = spec.inputs[0].dim(), last = rank - 1;
  if (rank == 0 || spec.inputs[0].dims.back() == Dim(0)) return nullptr;
  if (spec.op == "layer_norm") {
    const int64_t axis = spec.attrs.get_int("axis");
    if (axis != -1 && axis != last) return nullptr;
    return std::make_unique<LayerNorm>(spec.attrs.get_double("eps"));
  }
  if (spec.op == "softmax") {
    const int64_t dim = spec.attrs.get_int("dim");
    if (dim != -1 && dim != last) return nullptr;
    return std::make_unique<RowKernel>("softmax", kernels::table().softmax, true);
  }
  if (spec.op == "mean" && spec.attrs.get_bool("keepdim")) {
    const auto& dims = spec.attrs.get_ints("dim");
    if (dims.size() != 1 || (dims[0] != -1 && dims[0] != last)) return nullptr;
    return std::make_unique<RowKernel>(
        "mean",
        [](const float* x, float* y, int64_t n) {
          *y = static_cast<float>(kernels::table().sum(x, n) / static_cast<double>(n));
        },
        false);
  }
  return nullptr;
}

}  // namespace octet::native
