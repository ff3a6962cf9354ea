// Element by element on codes: add, mul, unary operators by table, quantize, dequantize, requantize. They do not care how
// the tensor lies in memory as long as all operands lie alike.
#include <functional>
#include <map>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/native_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {
namespace {

constexpr int64_t kGrain = 1 << 16;  // elements a thread does in about the time it takes to wake it

// A kernel that is a function of (inputs, output, element range).
using RangeFn = std::function<void(std::span<const void* const> in, void* out, int64_t i0, int64_t i1)>;

class RangePlan final : public KernelPlan {
 public:
  RangePlan(const RangeFn& fn, int64_t n) : fn_(fn), n_(n) {}
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    parallel_ranges(n_, kGrain, [&](int64_t i0, int64_t i1) { fn_(inputs, outputs[0], i0, i1); });
  }

 private:
  const RangeFn& fn_;
  int64_t n_;
};

class RangeKernel final : public Kernel {
 public:
  RangeKernel(std::string name, RangeFn fn, bool in_place) : name_(std::move(name)), fn_(std::move(fn)), in_place_(in_place) {}
  std::string name() const override { return name_; }
  std::string engine() const override { return "native"; }
  Layout input_layout(size_t) const override { return Layout::any; }
  Layout output_layout(size_t) const override { return Layout::any; }
  bool in_place() const override { return in_place_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>&, const std::vector<Shape>& out) const override {
    return std::make_unique<RangePlan>(fn_, numel(out[0]));
  }

 private:
  std::string name_;
  RangeFn fn_;
  bool in_place_;
};

std::unique_ptr<Kernel> range_kernel(const OpSpec& spec, RangeFn fn, bool in_place) {
  return std::make_unique<RangeKernel>(fmt::format("{} {}", spec.op, to_string(kernels::table().isa)), std::move(fn), in_place);
}

template <typename T>
T* at(T* base, int64_t i, int64_t size) {
  if constexpr (std::is_const_v<T>) return static_cast<const char*>(base) + i * size;
  else return static_cast<char*>(base) + i * size;
}

std::unique_ptr<Kernel> make_binary(const OpSpec& spec) {
  const TensorType &a = spec.inputs[0], &b = spec.inputs[1], &y = spec.outputs[0];
  if (!eight_bit_per_tensor(a) || !eight_bit_per_tensor(b) || !eight_bit_per_tensor(y)) return nullptr;
  if (a.dtype != b.dtype || a.dtype != y.dtype || a.dims != b.dims) return nullptr;  // broadcasting: the general way
  const auto* table = &kernels::table();
  kernels::BinaryArgs args;
  const CodesOf of_a(a), of_b(b), out(y);
  args.qa = {of_a.scale, of_a.zero_point};
  args.qb = {of_b.scale, of_b.zero_point};
  args.inv_scale = out.inv_scale;
  args.multiplier = args.qa.scale * args.qb.scale * out.inv_scale;
  args.zero_point = out.zero_point;
  auto range = engine_detail::activation_range(spec.attrs.get_string("activation"), y);
  args.lo = range.lo;
  args.hi = range.hi;
  args.is_signed = of_a.is_signed;
  auto kernel = spec.op == "add" ? table->add : table->mul;
  return range_kernel(
      spec,
      [args, kernel](std::span<const void* const> in, void* y_data, int64_t i0, int64_t i1) {
        kernels::BinaryArgs call = args;
        call.a = in[0];
        call.b = in[1];
        call.y = y_data;
        kernel(call, i0, i1);
      },
      true);
}

// -- floats ----------------------------------------------------------------------------------------------

enum class Arithmetic { add, sub, mul, div };

template <typename Fn>
void with_arithmetic(Arithmetic op, Fn&& fn) {
  switch (op) {
    case Arithmetic::add: return fn([](float a, float b) { return a + b; });
    case Arithmetic::sub: return fn([](float a, float b) { return a - b; });
    case Arithmetic::mul: return fn([](float a, float b) { return a * b; });
    case Arithmetic::div: return fn([](float a, float b) { return a / b; });
  }
}

// y[i] = a[i] op b[i % period], or with the operands in the other order: equal shapes, one number, or a tensor of y's last
// dimensions (a bias). Single IEEE operations: the bits are those of every other way.
class FloatBinary final : public Kernel {
 public:
  FloatBinary(std::string name, Arithmetic op, bool second_repeats, bool row_major)
      : name_(std::move(name)), op_(op), second_repeats_(second_repeats), row_major_(row_major) {}
  std::string name() const override { return name_; }
  std::string engine() const override { return "native"; }
  Layout input_layout(size_t) const override { return row_major_ ? Layout::row_major : Layout::any; }
  Layout output_layout(size_t) const override { return row_major_ ? Layout::row_major : Layout::any; }
  bool in_place() const override { return second_repeats_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in, const std::vector<Shape>& out) const override;

 private:
  std::string name_;
  Arithmetic op_;
  bool second_repeats_, row_major_;
};

class FloatBinaryPlan final : public KernelPlan {
 public:
  FloatBinaryPlan(Arithmetic op, bool second_repeats, int64_t n, int64_t period)
      : op_(op), second_repeats_(second_repeats), n_(n), period_(period) {}
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    const auto* whole = static_cast<const float*>(inputs[second_repeats_ ? 0 : 1]);
    const auto* repeated = static_cast<const float*>(inputs[second_repeats_ ? 1 : 0]);
    auto* y = static_cast<float*>(outputs[0]);
    with_arithmetic(op_, [&](auto of) {
      parallel_ranges(n_, kGrain, [&](int64_t i0, int64_t i1) {
        if (period_ == 1) {
          const float r = repeated[0];
          if (second_repeats_) for (int64_t i = i0; i < i1; ++i) y[i] = of(whole[i], r);
          else for (int64_t i = i0; i < i1; ++i) y[i] = of(r, whole[i]);
          return;
        }
        for (int64_t i = i0; i < i1;) {  // to the end of a period
          const int64_t at = i % period_, count = std::min(period_ - at, i1 - i);
          const float *w = whole + i, *r = repeated + at;
          float* to = y + i;
          if (second_repeats_) for (int64_t j = 0; j < count; ++j) to[j] = of(w[j], r[j]);
          else for (int64_t j = 0; j < count; ++j) to[j] = of(r[j], w[j]);
          i += count;
        }
      });
    });
  }

 private:
  Arithmetic op_;
  bool second_repeats_;
  int64_t n_, period_;
};

std::unique_ptr<KernelPlan> FloatBinary::plan(const std::vector<Shape>& in, const std::vector<Shape>& out) const {
  return std::make_unique<FloatBinaryPlan>(op_, second_repeats_, numel(out[0]), numel(in[second_repeats_ ? 1 : 0]));
}

// Whether `part` has y's last dimensions, all known, behind dimensions of 1; or is one number.
bool repeats_in(const TensorType& part, const TensorType& y) {
  if (!part.is_static()) return false;
  if (numel(part.shape()) == 1) return true;
  size_t first = 0;
  while (part.dims[first] == Dim(1)) ++first;
  const size_t tail = part.dims.size() - first;
  return tail <= y.dims.size() && std::equal(part.dims.begin() + static_cast<std::ptrdiff_t>(first), part.dims.end(), y.dims.end() - static_cast<std::ptrdiff_t>(tail));
}

std::unique_ptr<Kernel> make_float_binary(const OpSpec& spec) {
  static const std::map<std::string, Arithmetic> known{{"add", Arithmetic::add}, {"sub", Arithmetic::sub}, {"mul", Arithmetic::mul}, {"div", Arithmetic::div}};
  auto op = known.find(spec.op);
  const TensorType &a = spec.inputs[0], &b = spec.inputs[1], &y = spec.outputs[0];
  if (op == known.end() || a.dtype != DType::float32 || b.dtype != DType::float32 || y.dtype != DType::float32) return nullptr;
  if (spec.attrs.has("activation") && spec.attrs.get_string("activation") != "none") return nullptr;
  const bool same = a.dims == y.dims && b.dims == y.dims;
  const bool second = a.dims == y.dims && (same || repeats_in(b, y)), first = !second && b.dims == y.dims && repeats_in(a, y);
  if (!first && !second) return nullptr;
  const TensorType& part = second ? b : a;
  const bool one = !same && numel(part.shape()) == 1;
  return std::make_unique<FloatBinary>(spec.op + " floats", op->second, second, !same && !one);
}

std::unique_ptr<Kernel> make_unary(const OpSpec& spec) {
  auto codes = std::make_shared<std::vector<uint8_t>>(spec.table);
  auto lookup = kernels::table().lookup;
  return range_kernel(
      spec,
      [codes, lookup](std::span<const void* const> in, void* out, int64_t i0, int64_t i1) {
        lookup(static_cast<const uint8_t*>(in[0]) + i0, static_cast<uint8_t*>(out) + i0, i1 - i0, codes->data());
      },
      true);
}

std::unique_ptr<Kernel> make_quantize(const OpSpec& spec) {
  const TensorType &x = spec.inputs[0], &y = spec.outputs[0];
  if (x.dtype != DType::float32 || !eight_bit_per_tensor(y)) return nullptr;
  const CodesOf o(y);
  auto quantize = kernels::table().quantize;
  return range_kernel(
      spec,
      [o, quantize](std::span<const void* const> in, void* out, int64_t i0, int64_t i1) {
        quantize(static_cast<const float*>(in[0]) + i0, at(out, i0, 1), i1 - i0, o.inv_scale, o.zero_point, o.lo, o.hi);
      },
      false);
}

std::unique_ptr<Kernel> make_dequantize(const OpSpec& spec) {
  const TensorType& x = spec.inputs[0];
  if (!eight_bit_per_tensor(x) || spec.outputs[0].dtype != DType::float32) return nullptr;
  const CodesOf q(x);
  auto dequantize = kernels::table().dequantize;
  return range_kernel(
      spec,
      [q, dequantize](std::span<const void* const> in, void* out, int64_t i0, int64_t i1) {
        dequantize(at(in[0], i0, 1), static_cast<float*>(out) + i0, i1 - i0, q.scale, q.zero_point, q.is_signed);
      },
      false);
}

}  // namespace

std::unique_ptr<Kernel> make_elementwise(const OpSpec& spec) {
  if (auto kernel = spec.inputs.size() == 2 ? make_float_binary(spec) : nullptr) return kernel;
  if (spec.op == "add" || spec.op == "mul") return make_binary(spec);
  if (spec.op == "quantize") return make_quantize(spec);
  if (spec.op == "dequantize") return make_dequantize(spec);
  if (spec.table.size() == 256) return make_unary(spec);
  return nullptr;
}

}  // namespace octet::native
