// Between numbers and codes.
#include "octet/base/check_impl.h"
#include "octet/ops/op.h"

namespace octet::ops {

// q = clamp(rne(f(x * f(1/s))) + z): the result's qparams are the ones asked for.
OCTET_OP(quantize, "quantize(x) -> y", QRule::own,
         Doc{"float to codes of the wanted dtype, scale and zero point"}, infer([](const Types& t) {
           OCTET_CHECK(!t[0].is_quantized(), invalid_argument,
                       "quantize: the operand is {} already; use requantize", to_string(t[0]));
           OCTET_CHECK(is_floating(t[0].dtype), invalid_argument,
                       "quantize: the operand is {}; expected float", to_string(t[0]));
           OCTET_CHECK(t.want(), invalid_argument,
                       "quantize: no dtype, scale and zero point were given for the result");
           return t.result(t[0].dims);
         }),
         quantized([](const Call& c) {
           const TensorType& y = c.outputs()[0];
           if (!y.quantizer->is_per_channel() && y.dtype != DType::qint32 &&
               c[0].dtype() == DType::float32)
             if (auto r = try_engine(c)) return (*r)[0];
           return octet::quantize(c[0], y.quantizer, y.dtype);
         }))

// y = f(s * f(q - z))
OCTET_OP(dequantize, "dequantize(x) -> y", QRule::own, Doc{"codes to float32"},
         infer([](const Types& t) {
           OCTET_CHECK(t[0].is_quantized(), invalid_argument,
                       "dequantize: the operand is {}, not quantized", to_string(t[0]));
           OCTET_CHECK(!t.want(), invalid_argument,
                       "dequantize: the result is float32 and has no qparams");
           return TensorType(DType::float32, t[0].dims);
         }),
         quantized([](const Call& c) {
           if (auto r = try_engine(c)) return (*r)[0];
           return c[0].dequantize();
         }))

// Codes of other qparams: quantize(dequantize(x)).
OCTET_OP(requantize, "requantize(x) -> y", QRule::own, Doc{"codes to codes of other qparams"},
         infer([](const Types& t) {
           OCTET_CHECK(
               t[0].is_quantized() && t.want(), invalid_argument,
               "requantize: expected a quantized operand and a wanted scale and zero point, got {}",
               to_string(t[0]));
           return t.result(t[0].dims);
         }),
         quantized([](const Call& c) {
           if (auto r = try_engine(c)) return (*r)[0];
           return octet::quantize(c[0].dequantize(), c.outputs()[0].quantizer,
                                  c.outputs()[0].dtype);
         }))

// One of 256 codes for each code: y = table[q], q counted from the dtype's lowest (quint8: 0) as a
// byte: q & 255.
OCTET_OP(lookup, "lookup(x, *, table) -> y", QRule::own,
         Doc{"codes to codes by a table: table[q & 255]"}, infer([](const Types& t) {
           OCTET_CHECK(
               is_8_bit(t[0].dtype) && t.want() && is_8_bit(t.want()->dtype) &&
                   t.attrs().get_ints("table").size() == 256,
               invalid_argument,
               "lookup: expected 8-bit codes, a wanted 8-bit result and a table of 256, got {}",
               to_string(t[0]));
           for (int64_t code : t.attrs().get_ints("table"))
             OCTET_CHECK(code >= qmin(t.want()->dtype) && code <= qmax(t.want()->dtype),
                         invalid_argument, "lookup: {} is no code of {}", code,
                         to_string(t.want()->dtype));
           return t.result(t[0].dims);
         }),
         quantized([](const Call& c) {
           if (auto r = try_engine(c)) return (*r)[0];
           Tensor x = c[0].contiguous();
           Tensor y = Tensor::empty(x.shape(), c.outputs()[0].dtype, c.outputs()[0].quantizer);
           const std::vector<int64_t>& table = c.attrs().get_ints("table");
           const auto* from = static_cast<const uint8_t*>(x.raw_data());
           auto* to = static_cast<uint8_t*>(y.raw_data());
           for (int64_t i = 0; i < x.numel(); ++i) to[i] = static_cast<uint8_t>(table[from[i]]);
           return y;
         }))

}  // namespace octet::ops
