// Element by element on codes: add, mul, unary operators by table, quantize, dequantize,
// requantize. They do not care how the tensor lies in memory as long as all operands lie alike (but
// where one of them is broadcast).
#include <functional>

#include "octet/base/check_impl.h"
#include "octet/engine/integer_weights_impl.h"
#include "octet/engine/native/rows_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {
namespace {

// A kernel that is a function of (inputs, output, element range).
using RangeFn =
    std::function<void(std::span<const void* const> in, void* out, int64_t i0, int64_t i1)>;

class RangePlan final : public ElementsPlan {
 public:
  RangePlan(const RangeFn& fn, const Shape& y) : ElementsPlan(y), fn_(fn) {}

 private:
  void range(std::span<const void* const> inputs, void* y, int64_t i0, int64_t i1) const override {
    fn_(inputs, y, i0, i1);
  }
  const RangeFn& fn_;
};

class RangeKernel : public Kernel {
 public:
  RangeKernel(std::string name, KernelDescription::Arithmetic arithmetic, RangeFn fn, bool in_place)
      : name_(std::move(name)), arithmetic_(arithmetic), fn_(std::move(fn)), in_place_(in_place) {}
  std::string name() const override { return name_; }
  std::string engine() const override { return "native"; }
  Layout input_layout(size_t) const override { return Layout::any; }
  Layout output_layout(size_t) const override { return Layout::any; }
  bool by_rows() const override { return true; }
  bool in_place() const override { return in_place_; }
  KernelDescription description() const override { return described(arithmetic_); }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>&,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<RangePlan>(fn_, out[0]);
  }

 private:
  std::string name_;
  KernelDescription::Arithmetic arithmetic_;
  RangeFn fn_;
  bool in_place_;
};

std::unique_ptr<Kernel> range_kernel(const OpSpec& spec, KernelDescription::Arithmetic arithmetic,
                                     RangeFn fn, bool in_place) {
  return std::make_unique<RangeKernel>(
      fmt::format("{} {}", spec.op, to_string(kernels::table().isa)), arithmetic, std::move(fn),
      in_place);
}

template <typename T>
T* at(T* base, int64_t i, int64_t size) {
  if constexpr (std::is_const_v<T>)
    return static_cast<const char*>(base) + i * size;
  else
    return static_cast<char*>(base) + i * size;
}

// y = a op b. Where neither operand is repeated the elements may lie in any order.
class CodesBinary final : public Kernel {
 public:
  CodesBinary(const std::string& op, ElementOrder order, const kernels::BinaryArgs& args,
              int64_t bytes)
      : op_(op), order_(order), args_(args), bytes_(bytes) {}
  std::string name() const override {
    return fmt::format("{} {}", op_, to_string(kernels::table().isa));
  }
  std::string engine() const override { return "native"; }
  Layout input_layout(size_t) const override { return layout_of(order_); }
  Layout output_layout(size_t) const override { return layout_of(order_); }
  std::unique_ptr<Kernel> in_channels_last() const override {
    if (order_ != ElementOrder::either) return nullptr;
    return std::make_unique<CodesBinary>(op_, ElementOrder::channels_last, args_, bytes_);
  }
  bool by_rows() const override { return order_ != ElementOrder::channels_last; }
  bool in_place() const override { return true; }
  KernelDescription description() const override {
    return described(KernelDescription::Arithmetic::codes_in_float,
                     op_ == "mul" ? "f(f(product) * multiplier) to the nearest code, ties to even"
                                  : kOneToCodes);
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    const kernels::KernelTable& t = kernels::table();
    const bool mul = op_ == "mul";
    return std::make_unique<Plan>(
        bytes_ == 1 ? (mul ? t.mul : t.add) : (mul ? t.mul16 : t.add16), args_, bytes_,
        Broadcast(in[0], in[1], out[0], order_ == ElementOrder::channels_last), out[0]);
  }

 private:
  using Kernels = void (*)(const kernels::BinaryArgs&, int64_t, int64_t);
  class Plan final : public ElementsPlan {
   public:
    Plan(Kernels kernel, const kernels::BinaryArgs& args, int64_t bytes, Broadcast broadcast,
         const Shape& y)
        : ElementsPlan(y),
          kernel_(kernel),
          args_(args),
          bytes_(bytes),
          broadcast_(std::move(broadcast)) {}

   private:
    void range(std::span<const void* const> inputs, void* y, int64_t i0,
               int64_t i1) const override {
      broadcast_.each(i0, i1, inputs[0], bytes_, inputs[1], bytes_,
                      [&](int64_t i, int64_t count, const void* a, int64_t a_step, const void* b,
                          int64_t b_step) {
                        kernels::BinaryArgs call = args_;
                        call.a = a;
                        call.b = b;
                        call.b_step = b_step;
                        if (a_step == 0) {  // both operators commute, to the bit
                          std::swap(call.a, call.b);
                          std::swap(call.qa, call.qb);
                          call.b_step = 0;
                        }
                        call.y = at(y, i, bytes_);
                        kernel_(call, 0, count);
                      });
    }
    Kernels kernel_;
    kernels::BinaryArgs args_;
    int64_t bytes_;  // of a code
    Broadcast broadcast_;
  };

  std::string op_;
  ElementOrder order_;
  kernels::BinaryArgs args_;
  int64_t bytes_;
};

}  // namespace

std::unique_ptr<Kernel> make_binary(const OpSpec& spec) {
  const TensorType &a = spec.inputs[0], &b = spec.inputs[1], &y = spec.outputs[0];
  if (!codes_per_tensor(a) || !codes_per_tensor(b) || !codes_per_tensor(y)) return nullptr;
  if (a.dtype != b.dtype || a.dtype != y.dtype) return nullptr;
  kernels::BinaryArgs args;
  const CodesOf of_a(a), of_b(b), out(y);
  args.qa = {of_a.scale, of_a.zero_point};
  // a - b = a + (-b): products and sums of floats are rounded alike on both sides of zero.
  args.qb = {spec.op == "sub" ? -of_b.scale : of_b.scale, of_b.zero_point};
  args.inv_scale = out.inv_scale;
  args.multiplier = args.qa.scale * args.qb.scale * out.inv_scale;
  args.zero_point = out.zero_point;
  auto range = engine_detail::activation_range(
      spec.attrs.has("activation") ? spec.attrs.get_string("activation") : "none", y);
  args.lo = range.lo;
  args.hi = range.hi;
  args.is_signed = of_a.is_signed;
  if (of_a.bytes == 2) {
    // (What is not finite here, the operator's own evaluation takes one by one.)
    const float most = 0x1p17f * std::max(of_a.scale, of_b.scale);
    if (!std::isfinite(most * args.inv_scale) || !std::isfinite(args.multiplier * 0x1p32f))
      return nullptr;
  }
  return std::make_unique<CodesBinary>(spec.op, element_order(spec), args, of_a.bytes);
}

namespace {

// Codes and floats, added to codes: what would be dequantize, add and quantize, in one pass.
class AddFloats final : public Kernel {
 public:
  AddFloats(ElementOrder order, const kernels::AddFloatsArgs& args, size_t codes)
      : order_(order), args_(args), codes_(codes) {}
  std::string name() const override {
    return fmt::format("add floats to codes {}", to_string(kernels::table().isa));
  }
  std::string engine() const override { return "native"; }
  Layout input_layout(size_t) const override { return layout_of(order_); }
  Layout output_layout(size_t) const override { return layout_of(order_); }
  std::unique_ptr<Kernel> in_channels_last() const override {
    if (order_ != ElementOrder::either) return nullptr;
    return std::make_unique<AddFloats>(ElementOrder::channels_last, args_, codes_);
  }
  bool by_rows() const override { return order_ != ElementOrder::channels_last; }
  KernelDescription description() const override {
    return described(KernelDescription::Arithmetic::codes_in_float, kOneToCodes);
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<Plan>(
        args_, codes_,
        Broadcast(in[codes_], in[1 - codes_], out[0], order_ == ElementOrder::channels_last),
        out[0]);
  }

 private:
  class Plan final : public ElementsPlan {
   public:
    Plan(const kernels::AddFloatsArgs& args, size_t codes, Broadcast broadcast, const Shape& y)
        : ElementsPlan(y), args_(args), codes_(codes), broadcast_(std::move(broadcast)) {}

   private:
    void range(std::span<const void* const> inputs, void* y, int64_t i0,
               int64_t i1) const override {
      broadcast_.each(
          i0, i1, inputs[codes_], 1, inputs[1 - codes_], sizeof(float),
          [&](int64_t i, int64_t count, const void* x, int64_t, const void* b, int64_t b_step) {
            kernels::AddFloatsArgs call = args_;
            call.x = x;
            call.b = static_cast<const float*>(b);
            call.b_step = b_step;
            call.y = at(y, i, 1);
            kernels::table().add_floats(call, count);
          });
    }
    kernels::AddFloatsArgs args_;
    size_t codes_;
    Broadcast broadcast_;
  };

  ElementOrder order_;
  kernels::AddFloatsArgs args_;
  size_t codes_;  // which operand they are
};

}  // namespace

std::unique_ptr<Kernel> make_add_floats(const OpSpec& spec) {
  const size_t codes = spec.inputs[0].is_quantized() ? 0 : 1;
  const TensorType &x = spec.inputs[codes], &b = spec.inputs[1 - codes], &y = spec.outputs[0];
  // (Codes that are broadcast over floats have no kernel here: they go through floats.)
  if (!codes_per_tensor(x) || b.dtype != DType::float32 || !codes_per_tensor(y) ||
      x.dtype != y.dtype || x.dims != y.dims)
    return nullptr;
  const CodesOf of_x(x), out(y);
  if (of_x.bytes != 1) return nullptr;
  const auto range = engine_detail::activation_range(
      spec.attrs.has("activation") ? spec.attrs.get_string("activation") : "none", y);
  kernels::AddFloatsArgs args;
  args.q = {of_x.scale, of_x.zero_point};
  args.inv_scale = out.inv_scale;
  args.zero_point = out.zero_point;
  args.lo = range.lo;
  args.hi = range.hi;
  args.is_signed = of_x.is_signed;
  return std::make_unique<AddFloats>(element_order(spec), args, codes);
}

std::unique_ptr<Kernel> make_lookup(const OpSpec& spec) {
  if (spec.table.size() != 256) return nullptr;
  auto codes = std::make_shared<std::vector<uint8_t>>(spec.table);
  auto lookup = kernels::table().lookup;
  return range_kernel(
      spec, KernelDescription::Arithmetic::table,
      [codes, lookup](std::span<const void* const> in, void* out, int64_t i0, int64_t i1) {
        lookup(static_cast<const uint8_t*>(in[0]) + i0, static_cast<uint8_t*>(out) + i0, i1 - i0,
               codes->data());
      },
      true);
}

namespace {

// From planes to pixels.
class QuantizePlanes final : public Kernel {
 public:
  explicit QuantizePlanes(const CodesOf& codes) : codes_(codes) {}
  std::string name() const override {
    return fmt::format("quantize to NHWC {}", to_string(kernels::table().isa));
  }
  std::string engine() const override { return "native"; }
  Layout output_layout(size_t) const override { return Layout::channels_last; }
  KernelDescription description() const override {
    return described(KernelDescription::Arithmetic::converts, kOneToCodes);
  }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    return std::make_unique<Plan>(codes_, in[0]);
  }

 private:
  class Plan final : public KernelPlan {
   public:
    Plan(const CodesOf& codes, const Shape& x)
        : codes_(codes), images_(x[0]), channels_(x[1]), pixels_(x[2] * x[3]) {}
    void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
      const int64_t size = channels_ * pixels_,
                    grain = std::max<int64_t>(64, kGrain / std::max<int64_t>(1, channels_));
      for (int64_t i = 0; i < images_; ++i)
        parallel_ranges(pixels_, grain, [&](int64_t p0, int64_t p1) {
          kernels::table().quantize_nchw_to_nhwc(static_cast<const float*>(inputs[0]) + i * size,
                                                 at(outputs[0], i * size, 1), channels_, pixels_,
                                                 codes_.inv_scale, codes_.zero_point, codes_.lo,
                                                 codes_.hi, p0, p1);
        });
    }

   private:
    CodesOf codes_;
    int64_t images_, channels_, pixels_;
  };
  CodesOf codes_;
};

class QuantizeKernel final : public RangeKernel {
 public:
  QuantizeKernel(std::string name, const CodesOf& codes, RangeFn fn)
      : RangeKernel(std::move(name), KernelDescription::Arithmetic::converts, std::move(fn), false),
        codes_(codes) {}
  KernelDescription description() const override {
    return described(KernelDescription::Arithmetic::converts, kOneToCodes);
  }
  std::unique_ptr<Kernel> to_channels_last() const override {
    return std::make_unique<QuantizePlanes>(codes_);
  }

 private:
  CodesOf codes_;
};

}  // namespace

std::unique_ptr<Kernel> make_quantize(const OpSpec& spec) {
  const TensorType &x = spec.inputs[0], &y = spec.outputs[0];
  if (x.dtype != DType::float32 || !codes_per_tensor(y)) return nullptr;
  const CodesOf o(y);
  if (o.bytes == 2)
    return range_kernel(
        spec, KernelDescription::Arithmetic::converts,
        [o](std::span<const void* const> in, void* out, int64_t i0, int64_t i1) {
          native::quantize(kernels::table(), o, static_cast<const float*>(in[0]) + i0,
                           o.at(out, i0), i1 - i0);
        },
        false);
  auto quantize = kernels::table().quantize;
  return std::make_unique<QuantizeKernel>(
      fmt::format("quantize {}", to_string(kernels::table().isa)), o,
      [o, quantize](std::span<const void* const> in, void* out, int64_t i0, int64_t i1) {
        quantize(static_cast<const float*>(in[0]) + i0, at(out, i0, 1), i1 - i0, o.inv_scale,
                 o.zero_point, o.lo, o.hi);
      });
}

std::unique_ptr<Kernel> make_dequantize(const OpSpec& spec) {
  const TensorType& x = spec.inputs[0];
  if (!codes_per_tensor(x) || spec.outputs[0].dtype != DType::float32) return nullptr;
  const CodesOf q(x);
  return range_kernel(
      spec, KernelDescription::Arithmetic::converts,
      [q](std::span<const void* const> in, void* out, int64_t i0, int64_t i1) {
        native::dequantize(kernels::table(), q, q.at(in[0], i0), static_cast<float*>(out) + i0,
                           i1 - i0);
      },
      false);
}

// Where either side has 16 bits, a few at a time through floats; of 8 bits it is a table.
std::unique_ptr<Kernel> make_requantize(const OpSpec& spec) {
  const TensorType &x = spec.inputs[0], &y = spec.outputs[0];
  if (!codes_per_tensor(x) || !codes_per_tensor(y)) return nullptr;
  const CodesOf from(x), to(y);
  if (from.bytes == 1 && to.bytes == 1) return nullptr;
  return range_kernel(
      spec, KernelDescription::Arithmetic::codes_in_float,
      [from, to](std::span<const void* const> in, void* out, int64_t i0, int64_t i1) {
        constexpr int64_t kAtOnce = 1024;
        float values[kAtOnce];
        for (int64_t i = i0; i < i1; i += kAtOnce) {
          const int64_t n = std::min(kAtOnce, i1 - i);
          native::dequantize(kernels::table(), from, from.at(in[0], i), values, n);
          native::quantize(kernels::table(), to, values, to.at(out, i), n);
        }
      },
      false);
}

}  // namespace octet::native
