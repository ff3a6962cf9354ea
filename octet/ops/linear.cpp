// Matrix products.
#include "octet/base/check_impl.h"
#include "octet/ops/conv_impl.h"

namespace octet::ops {

// y = x * weight^T + bias; x (..., K), weight (N, K). Quantized as conv2d is.
OCTET_OP(linear, "linear(x, weight, bias?, *, activation=\"none\") -> y", QRule::own,
         Doc{"y = x * weight^T + bias with fused activation (none, relu, relu6); weight is (out, in)"},
         infer([](const Types& t) { return infer_linear(t, WeightRule::as_input); }))

// Batched matrix product with broadcasting batch dimensions, as torch.matmul. Quantized: dequantize, multiply, quantize.
OCTET_OP(matmul, "matmul(a, b) -> y", QRule::own, Doc{"batched matrix product (..., M, K) x (..., K, N), as torch.matmul"},
         infer([](const Types& t) {
           const TensorType &a = t[0], &b = t[1];
           OCTET_CHECK(a.dim() >= 1 && b.dim() >= 1, invalid_argument, "matmul: operands {} and {}", to_string(a), to_string(b));
           auto da = a.dims, db = b.dims;
           bool a_vector = da.size() == 1, b_vector = db.size() == 1;
           if (a_vector) da.insert(da.begin(), Dim(1));
           if (b_vector) db.push_back(Dim(1));
           const Dim &k = da.back(), &l = db[db.size() - 2];
           OCTET_CHECK(k == l || !k.known() || !l.known(), invalid_argument, "matmul: {} x {}: inner sizes {} and {} differ",
                       to_string(a), to_string(b), to_string(k), to_string(l));
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
           auto dims = broadcast({ta.dims.begin(), ta.dims.end() - 2}, {tb.dims.begin(), tb.dims.end() - 2}, "matmul");
           dims.push_back(a.size(-2));
           dims.push_back(b.size(-1));
           OpSpec spec = make_spec(c.op(), c.attrs(), {ta, tb}, {}, {TensorType(dtype, dims)}, "matmul");
           Shape shape = spec.outputs[0].shape();
           Shape final = c.outputs()[0].shape();
           if (numel(shape) > 0 && dtype == DType::float32 && octet::engine() != "reference")
             if (auto kernel = make_kernel(spec)) return run_kernel(*kernel, spec, {a, b})[0].reshape(final);
           // Any dtype, in double (exact for integers up to 2^53).
           Tensor x = a.to(DType::float64), y = b.to(DType::float64), out = Tensor::zeros(shape, DType::float64);
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
                   z[(s * m + i) * n + j] += x.data<double>()[(s * m + i) * k + p] * y.data<double>()[(s * k + p) * n + j];
           return out.to(dtype).reshape(final);
         }))

}  // namespace octet::ops
