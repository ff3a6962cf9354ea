// Matrix products.
#include "octet/base/check_impl.h"
#include "octet/ops/conv_impl.h"
#include "octet/ops/gradient_impl.h"

namespace octet::ops {
namespace {

std::vector<Tensor> linear_gradients(const Grad& g) {
  Tensor dy = plain_dy(g);
  std::vector<Tensor> d(g.size());
  if (g.needs(0)) d[0] = call("linear_backward_data", {dy, g[1]});
  if (g.needs(1) || g.needs(2)) {
    std::vector<Tensor> weights =
        call_all("linear_backward_weight", {g[0], dy}, {{"bias", g.needs(2)}});
    d[1] = weights[0];
    if (g.needs(2)) d[2] = weights[1];
  }
  return d;
}

std::vector<Tensor> matmul_gradients(const Grad& g) {
  Tensor a = g[0], b = g[1], dy = g.dy();
  if (a.dim() == 1) a = a.unsqueeze(0), dy = dy.unsqueeze(b.dim() == 1 ? 0 : -2);
  if (b.dim() == 1) b = b.unsqueeze(1), dy = dy.unsqueeze(-1);
  auto back = [](const Tensor& d, const Tensor& operand, const Tensor& wide) {
    return sum_to(d, wide.shape()).reshape(operand.shape());
  };
  return {g.needs(0) ? back(call("matmul", {dy, b.transpose(-1, -2)}), g[0], a) : Tensor(),
          g.needs(1) ? back(call("matmul", {a.transpose(-1, -2), dy}), g[1], b) : Tensor()};
}

}  // namespace

// The gradient of linear by its input: dx = dy * weight.
OCTET_OP(linear_backward_data, "linear_backward_data(dy, weight) -> dx", QRule::float_only,
         Doc{"gradient of linear by its input: dy * weight"}, infer([](const Types& t) {
           need_float32(t);
           OCTET_CHECK(
               t[1].dim() == 2 && t[0].dim() >= 1 && t[0].dims.back() == t[1].dims[0],
               invalid_argument,
               "linear_backward_data: dy {} and weight {}; expected (..., out) and (out, in)",
               to_string(t[0]), to_string(t[1]));
           auto dims = t[0].dims;
           dims.back() = t[1].dims[1];
           return t.result(dims);
         }))

// The gradients of linear by weight and bias: dweight = dy^T * x, dbias = the sum of dy (empty
// unless `bias`).
OCTET_OP(linear_backward_weight, "linear_backward_weight(x, dy, *, bias=false) -> dweight, dbias",
         QRule::float_only,
         Doc{"gradients of linear by its weight, dy^T * x, and by its bias (empty unless bias)"},
         infer_many([](const Types& t) {
           need_float32(t);
           const TensorType &x = t[0], &dy = t[1];
           OCTET_CHECK(x.dim() >= 1 && x.dim() == dy.dim() &&
                           std::equal(x.dims.begin(), x.dims.end() - 1, dy.dims.begin()),
                       invalid_argument,
                       "linear_backward_weight: x {} and dy {}; expected (..., in) and (..., out)",
                       to_string(x), to_string(dy));
           return std::vector<TensorType>{
               t.result({dy.dims.back(), x.dims.back()}),
               t.result({t.attrs().get_bool("bias") ? dy.dims.back() : Dim(0)})};
         }))

// y = x * weight^T + bias; x (..., K), weight (N, K). Quantized as conv2d is.
OCTET_OP(
    linear, "linear(x, weight, bias?, *, activation=\"none\") -> y", QRule::own,
    Doc{"y = x * weight^T + bias with fused activation (none, relu, relu6); weight is (out, in)"},
    infer([](const Types& t) { return infer_linear(t, WeightRule::as_input); }),
    gradients(linear_gradients))

// Batched matrix product with broadcasting batch dimensions, as torch.matmul. Quantized:
// dequantize, multiply, quantize.
OCTET_OP(
    matmul, "matmul(a, b) -> y", QRule::own, Traits{.onnx = "MatMul"},
    Doc{"batched matrix product (..., M, K) x (..., K, N), as torch.matmul"},
    infer([](const Types& t) {
      const TensorType &a = t[0], &b = t[1];
      OCTET_CHECK(a.dim() >= 1 && b.dim() >= 1, invalid_argument, "matmul: operands {} and {}",
                  to_string(a), to_string(b));
      auto da = a.dims, db = b.dims;
      bool a_vector = da.size() == 1, b_vector = db.size() == 1;
      if (a_vector) da.insert(da.begin(), Dim(1));
      if (b_vector) db.push_back(Dim(1));
      const Dim &k = da.back(), &l = db[db.size() - 2];
      OCTET_CHECK(k == l || !k.known() || !l.known(), invalid_argument,
                  "matmul: {} x {}: inner sizes {} and {} differ", to_string(a), to_string(b),
                  to_string(k), to_string(l));
      auto dims = broadcast({da.begin(), da.end() - 2}, {db.begin(), db.end() - 2}, "matmul");
      if (!a_vector) dims.push_back(da[da.size() - 2]);
      if (!b_vector) dims.push_back(db.back());
      return t.result(dims, a.is_quantized() ? DType::float32 : a.dtype);
    }),
    eval([](const Call& c) {
      Tensor a = c[0].contiguous(), b = c[1].contiguous();
      bool a_vector = a.dim() == 1, b_vector = b.dim() == 1;
      if (a_vector) a = a.unsqueeze(0);
      if (b_vector) b = b.unsqueeze(1);
      DType dtype = c.outputs()[0].dtype;
      TensorType ta = a.type(), tb = b.type();
      auto dims = broadcast({ta.dims.begin(), ta.dims.end() - 2},
                            {tb.dims.begin(), tb.dims.end() - 2}, "matmul");
      dims.push_back(a.size(-2));
      dims.push_back(b.size(-1));
      OpSpec spec = make_spec(c.op(), c.attrs(), {ta, tb}, {}, {TensorType(dtype, dims)}, "matmul");
      Shape shape = spec.outputs[0].shape();
      Shape final = c.outputs()[0].shape();
      if (numel(shape) > 0 && dtype == DType::float32)
        if (auto kernel = make_kernel(spec))
          return run_kernel(*kernel, spec, {a, b})[0].reshape(final);
      // Any dtype, in double (exact for integers up to 2^53).
      Tensor x = a.to(DType::float64), y = b.to(DType::float64),
             out = Tensor::zeros(shape, DType::float64);
      int64_t m = shape[shape.size() - 2], n = shape.back(), k = a.size(-1);
      Shape sa(shape.begin(), shape.end() - 2), sb = sa;
      sa.insert(sa.end(), {m, k});
      sb.insert(sb.end(), {k, n});
      x = x.expand(sa).contiguous();
      y = y.expand(sb).contiguous();
      double* z = out.data<double>();
      int64_t batches = m > 0 && n > 0 ? numel(shape) / (m * n) : 0;
      for (int64_t s = 0; s < batches; ++s)
        for (int64_t i = 0; i < m; ++i)
          for (int64_t p = 0; p < k; ++p)
            for (int64_t j = 0; j < n; ++j)
              z[(s * m + i) * n + j] +=
                  x.data<double>()[(s * m + i) * k + p] * y.data<double>()[(s * k + p) * n + j];
      return out.to(dtype).reshape(final);
    }),
    gradients(matmul_gradients))

}  // namespace octet::ops
