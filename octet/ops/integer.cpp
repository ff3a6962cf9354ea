// Plain integers: codes of quantized tensors as such, and arithmetic on codes whose scales the
// operators do not know, as ONNX has it. Sums are int32 and wrap.
#include <algorithm>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/run_time_codes_impl.h"
#include "octet/ops/define_impl.h"
#include "octet/ops/window_impl.h"

namespace octet::ops {
namespace {

void check_bytes(const Types& t, size_t i) {
  OCTET_CHECK(t[i].dtype == DType::uint8 || t[i].dtype == DType::int8, invalid_argument,
              "{}: {} is {}; expected uint8 or int8", t.op().name(), t.op().params()[i].name,
              to_string(t[i]));
}

// A zero point has the type of its codes.
void check_zero_point(const Types& t, size_t zero, size_t of) {
  if (!t.has(zero)) return;
  OCTET_CHECK(t[zero].dtype == t[of].dtype, invalid_argument,
              "{}: {} is {}; expected the type of {}, {}", t.op().name(),
              t.op().params()[zero].name, to_string(t[zero]), t.op().params()[of].name,
              to_string(t[of].dtype));
}

// x - zero in int32. A vector of more than one zero point is reshaped to `vector`, so that it
// broadcasts.
Tensor centered(const Call& c, size_t x, size_t zero, const Shape& vector) {
  Tensor values = c[x].to(DType::int32).contiguous();
  if (!c.has(zero)) return values;
  Tensor z = c[zero].to(DType::int32);
  if (z.numel() == 1)
    z = z.reshape({});
  else if (z.dim() == 1)
    z = z.reshape(vector);
  return call("sub", {values, z}).contiguous();
}

// y[i] += x[i * step] * w, wrapping.
void add_products(int32_t* y, const int32_t* x, int64_t step, int32_t w, int64_t n) {
  auto* sum = reinterpret_cast<uint32_t*>(y);
  const auto* from = reinterpret_cast<const uint32_t*>(x);
  const auto by = static_cast<uint32_t>(w);
  if (step == 1)
    for (int64_t i = 0; i < n; ++i) sum[i] += from[i] * by;
  else
    for (int64_t i = 0; i < n; ++i) sum[i] += from[i * step] * by;
}

TensorType infer_conv_integer(const Types& t) {
  const std::string& who = t.op().name();
  const TensorType &x = t[0], &w = t[1];
  const int64_t spatial = x.dim() - 2, groups = t.attrs().get_int("groups");
  OCTET_CHECK(spatial >= 1 && spatial <= 3 && w.dim() == x.dim() && w.is_static(), invalid_argument,
              "{}: expected x (N, C, spatial...) of 1 to 3 spatial dimensions and a weight of as "
              "many, got {} and {}",
              who, to_string(x), to_string(w));
  check_bytes(t, 0);
  check_bytes(t, 1);
  check_zero_point(t, 2, 0);
  check_zero_point(t, 3, 1);
  check_list(t.attrs(), "stride", spatial, who);
  check_list(t.attrs(), "dilation", spatial, who);
  check_list(t.attrs(), "padding", 2 * spatial, who);
  const int64_t out = w.dims[0].size();
  OCTET_CHECK(groups >= 1 && out % groups == 0 && x.dims[1] == Dim(w.dims[1].size() * groups),
              invalid_argument, "{}: input {} and weight {} with groups={} do not fit", who,
              to_string(x), to_string(w), groups);
  if (t.has(2))
    OCTET_CHECK(t[2].is_static() && numel(t[2].shape()) == 1, invalid_argument,
                "{}: x_zero_point is {}; expected one number", who, to_string(t[2]));
  if (t.has(3))
    OCTET_CHECK(t[3].is_static() && t[3].dim() <= 1 &&
                    (numel(t[3].shape()) == 1 || numel(t[3].shape()) == out),
                invalid_argument, "{}: weight_zero_point is {}; expected 1 or {} numbers", who,
                to_string(t[3]), out);
  const auto &s = t.attrs().get_ints("stride"), &p = t.attrs().get_ints("padding"),
             &d = t.attrs().get_ints("dilation");
  std::vector<Dim> dims{x.dims[0], Dim(out)};
  for (int64_t i = 0; i < spatial; ++i)
    dims.push_back(window_size(x.dims[i + 2], w.dims[i + 2].size(), s[i], p[i], p[i + spatial],
                               d[i], false, who));
  return TensorType(DType::int32, dims);
}

// A result channel is the sum of rows of x times single weights.
Tensor eval_conv_integer(const Call& c) {
  const Tensor x = centered(c, 0, 2, {}), w = centered(c, 1, 3, [&] {
                                            Shape per_output(static_cast<size_t>(c[1].dim()), 1);
                                            per_output[0] = c[1].size(0);
                                            return per_output;
                                          }());
  Tensor y = Tensor::zeros(c.outputs()[0].shape(), DType::int32);
  const Shape in = engine_detail::with_3_spatial(x.shape()),
              out = engine_detail::with_3_spatial(y.shape()),
              kernel = engine_detail::with_3_spatial(w.shape());
  const auto list = [&](const char* name, size_t half) {
    const std::vector<int64_t>& given = c.attrs().get_ints(name);
    const size_t spatial = c.attrs().get_ints("stride").size();
    std::array<int64_t, 3> all{half == 2 ? 0 : 1, half == 2 ? 0 : 1, half == 2 ? 0 : 1};
    for (size_t i = 0; i < spatial; ++i) all[3 - spatial + i] = given[i];
    return all;
  };
  const auto stride = list("stride", 1), dilation = list("dilation", 1), begin = list("padding", 2);
  const int64_t groups = c.attrs().get_int("groups"), per_group = out[1] / groups;
  parallel_for(out[0] * out[1], [&](int64_t task) {
    const int64_t image = task / out[1], channel = task % out[1], group = channel / per_group;
    int32_t* to = y.data<int32_t>() + task * out[2] * out[3] * out[4];
    const int32_t* weight = w.data<int32_t>() + channel * numel(kernel) / kernel[0];
    for (int64_t i = 0; i < kernel[1]; ++i) {
      const int32_t* plane =
          x.data<int32_t>() + (image * in[1] + group * kernel[1] + i) * in[2] * in[3] * in[4];
      for (int64_t k = 0; k < kernel[2] * kernel[3] * kernel[4]; ++k) {
        const int32_t by = *weight++;
        if (by == 0) continue;
        const std::array<int64_t, 3> tap{k / kernel[4] / kernel[3], k / kernel[4] % kernel[3],
                                         k % kernel[4]};
        // Columns of y whose tap lies inside the image.
        const int64_t shift = tap[2] * dilation[2] - begin[2];
        const int64_t first =
                          std::min(out[4], shift < 0 ? (-shift + stride[2] - 1) / stride[2] : 0),
                      last = shift >= in[4]
                                 ? first
                                 : std::clamp((in[4] - 1 - shift) / stride[2] + 1, first, out[4]);
        for (int64_t row = 0; row < out[2] * out[3]; ++row) {
          const int64_t z = row / out[3] * stride[0] + tap[0] * dilation[0] - begin[0],
                        v = row % out[3] * stride[1] + tap[1] * dilation[1] - begin[1];
          if (z < 0 || z >= in[2] || v < 0 || v >= in[3] || first == last) continue;
          add_products(to + row * out[4] + first,
                       plane + (z * in[3] + v) * in[4] + first * stride[2] + shift, stride[2], by,
                       last - first);
        }
      }
    }
  });
  return y;
}

TensorType infer_matmul_integer(const Types& t) {
  const std::string& who = t.op().name();
  check_bytes(t, 0);
  check_bytes(t, 1);
  check_zero_point(t, 2, 0);
  check_zero_point(t, 3, 1);
  const std::vector<std::optional<TensorType>> floats{TensorType(DType::float32, t[0].dims),
                                                      TensorType(DType::float32, t[1].dims)};
  std::vector<Dim> dims = get("matmul").infer(floats, {}, std::nullopt, who)[0].dims;
  return TensorType(DType::int32, dims);
}

Tensor eval_matmul_integer(const Call& c) {
  Tensor a = centered(c, 0, 2, {-1, 1}), b = centered(c, 1, 3, {-1});
  if (a.dim() == 1) a = a.unsqueeze(0);
  if (b.dim() == 1) b = b.unsqueeze(1);
  const int64_t m = a.size(-2), k = a.size(-1), n = b.size(-1);
  const TensorType ta = a.type(), tb = b.type();
  std::vector<Dim> dims = broadcast({ta.dims.begin(), ta.dims.end() - 2},
                                    {tb.dims.begin(), tb.dims.end() - 2}, "matmul_integer");
  Shape batch;
  for (const Dim& d : dims) batch.push_back(d.size());
  Shape of_a = batch, of_b = batch, of_y = batch;
  of_a.insert(of_a.end(), {m, k});
  of_b.insert(of_b.end(), {k, n});
  of_y.insert(of_y.end(), {m, n});
  a = a.expand(of_a).contiguous();
  b = b.expand(of_b).contiguous();
  Tensor y = Tensor::zeros(of_y, DType::int32);
  parallel_for(numel(batch) * m, [&](int64_t row) {
    for (int64_t p = 0; p < k; ++p)
      add_products(y.data<int32_t>() + row * n, b.data<int32_t>() + (row / m * k + p) * n, 1,
                   a.data<int32_t>()[row * k + p], n);
  });
  return y.reshape(c.outputs()[0].shape());
}

}  // namespace

OCTET_OP(int_repr, "int_repr(x) -> codes", QRule::own,
         Doc{"the codes of a quantized tensor as plain integers"}, infer([](const Types& t) {
           OCTET_CHECK(t[0].is_quantized() && !t.want() && !is_packed(t[0].dtype), invalid_argument,
                       "int_repr: expected codes of 8, 16 or 32 bits, got {}", to_string(t[0]));
           return TensorType(code_dtype(t[0].dtype), t[0].dims);
         }),
         quantized([](const Call& c) { return c[0].int_repr(); }))

OCTET_OP(make_quantized, "make_quantized(codes) -> x", QRule::own,
         Doc{"plain integers as the codes of a quantized tensor of the wanted qparams"},
         infer([](const Types& t) {
           OCTET_CHECK(
               t.want() && !t[0].is_quantized() && t[0].dtype == code_dtype(t.want()->dtype),
               invalid_argument,
               "make_quantized: expected plain integers and a wanted type of such codes, got "
               "{}",
               to_string(t[0]));
           return t.result(t[0].dims);
         }),
         quantized([](const Call& c) {
           const TensorType& y = c.outputs()[0];
           return octet::make_quantized(c[0].contiguous(), y.quantizer, y.dtype);
         }))

OCTET_OP(quantize_dynamic, "quantize_dynamic(x) -> codes, scale, zero_point", QRule::float_only,
         Doc{"float32 to uint8 codes by the tensor's own range, as ONNX's DynamicQuantizeLinear"},
         infer_many([](const Types& t) {
           OCTET_CHECK(t[0].dtype == DType::float32, invalid_argument,
                       "quantize_dynamic: the operand is {}; expected float32", to_string(t[0]));
           return std::vector<TensorType>{TensorType(DType::uint8, t[0].dims),
                                          TensorType(DType::float32, Shape{}),
                                          TensorType(DType::uint8, Shape{})};
         }),
         eval_many([](const Call& c) {
           const Tensor x = c[0].contiguous();
           Tensor codes = Tensor::empty(x.shape(), DType::uint8);
           engine_detail::RunTimeRule rule;
           rule.onnx = true;
           const affine::RunTimeQParams q =
               engine_detail::quantize_at_run_time(kernels::table(), x.data<float>(), x.numel(),
                                                   rule, "quantize_dynamic", codes.data<uint8_t>());
           return std::vector<Tensor>{codes, Tensor::scalar(q.scale),
                                      Tensor::scalar(q.zero_point, DType::uint8)};
         }))

OCTET_OP(conv_integer,
         "conv_integer(x, weight, x_zero_point?, weight_zero_point?, *, stride, padding, dilation, "
         "groups=1) -> y",
         QRule::float_only,
         Doc{"convolution of uint8 or int8 numbers less their zero points, in int32 (1 to 3 "
             "spatial dimensions)"},
         infer(infer_conv_integer), eval(eval_conv_integer))

OCTET_OP(matmul_integer, "matmul_integer(a, b, a_zero_point?, b_zero_point?) -> y",
         QRule::float_only,
         Doc{"matrix product of uint8 or int8 numbers less their zero points (one, or one for each "
             "row of a or column of b), in int32"},
         infer(infer_matmul_integer), eval(eval_matmul_integer))

}  // namespace octet::ops
