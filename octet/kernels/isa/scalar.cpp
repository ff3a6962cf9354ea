// The definition of every kernel, one plain loop each. The other tables are faster and give the
// same bits.

#include <cmath>
#include <cstring>
#include <limits>

#include "octet/kernels/codes16_impl.h"
#include "octet/kernels/float_scalar_impl.h"
#include "octet/kernels/isa/tables_impl.h"
#include "octet/kernels/math_impl.h"
#include "octet/kernels/weight_only_impl.h"

namespace octet::kernels {
namespace {

// int32 that wraps: overflow of an accumulator is defined, and the same for every order of
// summation.
int32_t wrap_add(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) + static_cast<uint32_t>(b));
}
int32_t wrap_mul(int32_t a, int32_t b) {
  return static_cast<int32_t>(static_cast<uint32_t>(a) * static_cast<uint32_t>(b));
}

// clamp(rne(v) + zero_point, lo, hi). The bounds are whole numbers, so clamping before rounding
// gives the same code as after it, and the conversion cannot overflow. NaN gives lo.
int32_t to_code(float v, int32_t zero_point, int32_t lo, int32_t hi) {
  if (!(v > static_cast<float>(lo - zero_point))) return lo;
  if (v >= static_cast<float>(hi - zero_point)) return hi;
  return static_cast<int32_t>(std::lrint(v)) + zero_point;
}

int32_t quantize_one(float x, float inv_scale, int32_t zp, int32_t lo, int32_t hi) {
  float v = x * inv_scale;
  return to_code(std::isnan(v) ? 0.0f : v, zp, lo, hi);
}

int32_t code_at(const void* x, int64_t i, bool is_signed) {
  return is_signed ? static_cast<const int8_t*>(x)[i] : static_cast<const uint8_t*>(x)[i];
}

// The low byte, which is the code whether y holds uint8 or int8.
void store_code(void* y, int64_t i, int32_t code) {
  static_cast<uint8_t*>(y)[i] = static_cast<uint8_t>(code);
}

// -- matrix products and convolutions -------------------------------------------------------------

const uint8_t* row_of(const GemmArgs& g, int64_t m, int64_t tap) {
  if (!g.offsets) return g.a + m * g.lda;
  int32_t offset = g.offsets[m * g.shape.taps + tap];
  return offset < 0 ? g.pad : g.a + offset;
}

size_t gemm_packed_bytes(const GemmShape& s) { return static_cast<size_t>(s.n * s.taps * s.k); }

void gemm_pack(const GemmShape& s, int64_t n0, int64_t n1, const int8_t* w, void* packed) {
  std::memcpy(static_cast<char*>(packed) + n0 * s.taps * s.k, w,
              static_cast<size_t>((n1 - n0) * s.taps * s.k));
}

void gemm_pack_columns(const GemmShape& s, const uint8_t* b, uint8_t flip, void* packed,
                       int32_t* sums) {
  auto* to = static_cast<int8_t*>(packed);
  for (int64_t n = 0; n < s.n; ++n) {
    sums[n] = 0;
    for (int64_t k = 0; k < s.k; ++k) {
      to[n * s.k + k] = static_cast<int8_t>(b[k * s.n + n] ^ flip);
      sums[n] += to[n * s.k + k];
    }
  }
}

// The way out of C[m][n], whose products' sum is acc.
void finish(const GemmArgs& g, const int32_t* bias, int64_t m, int64_t n, int32_t acc) {
  if (g.row_sums) acc = wrap_add(acc, wrap_mul(wrap_mul(g.row_sums[m], g.b_zero_points[n]), -1));
  acc = wrap_add(acc, bias[n]);
  const int64_t at = g.row_of_c(m) + n;
  switch (g.epilogue) {
    case Epilogue::requantize:
      store_code(g.c, at,
                 to_code(static_cast<float>(acc) * g.multiplier[n], g.zero_point, g.lo, g.hi));
      break;
    case Epilogue::int32:
      static_cast<int32_t*>(g.c)[at] = acc;
      break;
    case Epilogue::dynamic: {
      float y = static_cast<float>(acc) * g.multiplier[n];
      if (g.float_bias) y = y + g.float_bias[n];
      if (g.relu) y = y > 0 ? y : 0;
      static_cast<float*>(g.c)[at] = y;
      break;
    }
  }
}

void gemm(const GemmArgs& g, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
  const int64_t k = g.shape.k, taps = g.shape.taps;
  const GemmCut* cut = g.cuts;
  for (int64_t m = m0; m < m1; ++m) {
    while (cut && cut->end <= m) ++cut;
    const uint64_t skipped = cut ? cut->skipped : g.skipped;
    const int32_t* bias = cut ? cut->bias : g.bias;
    for (int64_t n = n0; n < n1; ++n) {
      const int8_t* w = static_cast<const int8_t*>(g.b) + n * taps * k;
      int32_t acc = 0;
      for (int64_t t = 0; t < taps; ++t, w += k) {
        if (skipped != 0 && (skipped >> t & 1)) continue;
        const uint8_t* x = row_of(g, m, t);
        int32_t sum = 0;
        for (int64_t i = 0; i < k; ++i) sum = wrap_add(sum, x[i] * w[i]);
        acc = wrap_add(acc, sum);
      }
      finish(g, bias, m, n, acc);
    }
  }
}

void gemm_finish(const GemmArgs& g, const int32_t* sums, int64_t m0, int64_t m1) {
  for (int64_t m = m0; m < m1; ++m)
    for (int64_t n = 0; n < g.shape.n; ++n) finish(g, g.bias, m, n, sums[m * g.shape.n + n]);
}

void row_sums(const GemmArgs& g, int32_t* sums, int64_t m0, int64_t m1) {
  for (int64_t m = m0; m < m1; ++m) {
    int32_t sum = 0;
    for (int64_t t = 0; t < g.shape.taps; ++t) {
      const uint8_t* x = row_of(g, m, t);
      for (int64_t i = 0; i < g.shape.k; ++i) sum = wrap_add(sum, x[i]);
    }
    sums[m] = sum;
  }
}

size_t depthwise_packed_bytes(int64_t channels, int64_t taps) {
  return static_cast<size_t>(channels * taps);
}

void depthwise_pack(int64_t channels, int64_t taps, const int8_t* w, void* packed) {
  std::memcpy(packed, w, depthwise_packed_bytes(channels, taps));
}

// Where tap t of pixel p lies.
const uint8_t* tap_of(const DepthwiseArgs& d, int64_t p, int64_t t) {
  if (d.slide == 0) {
    const int32_t offset = d.offsets[p * d.taps + t];
    return offset < 0 ? d.pad : d.a + offset;
  }
  const int64_t y = p / d.width * d.slide_rows - d.top + t / 3,
                x = p % d.width * d.slide - d.left + t % 3;
  const bool inside = y >= 0 && y < d.h && x >= 0 && x < d.w;
  return inside ? d.a + (y * d.w + x) * d.channels : d.pad;
}

void depthwise(const DepthwiseArgs& d, int64_t p0, int64_t p1) {
  for (int64_t p = p0; p < p1; ++p) {
    for (int64_t c = 0; c < d.channels; ++c) {
      int32_t acc = d.bias[c];
      for (int64_t t = 0; t < d.taps; ++t) {
        const uint8_t* x = tap_of(d, p, t);
        acc = wrap_add(acc, x[c] * static_cast<const int8_t*>(d.weights)[t * d.channels + c]);
      }
      store_code(d.c, p * d.ldc + c,
                 to_code(static_cast<float>(acc) * d.multiplier[c], d.zero_point, d.lo, d.hi));
    }
  }
}

// -- pools ----------------------------------------------------------------------------------------

void max_pool(const PoolArgs& a, int64_t p0, int64_t p1) {
  for (int64_t p = p0; p < p1; ++p) {
    for (int64_t c = 0; c < a.channels; ++c) {
      int32_t best = std::numeric_limits<int32_t>::min();
      for (int64_t t = 0; t < a.taps; ++t) {
        const int32_t offset = a.offsets[p * a.taps + t];
        if (offset < 0) continue;
        const int32_t code = code_at(a.a, offset + c, a.is_signed);
        if (code > best) best = code;
      }
      store_code(a.y, p * a.ldy + c, best);
    }
  }
}

void average_pool(const PoolArgs& a, int64_t p0, int64_t p1) {
  for (int64_t p = p0; p < p1; ++p) {
    for (int64_t c = 0; c < a.channels; ++c) {
      int32_t sum = 0;
      for (int64_t t = 0; t < a.taps; ++t) {
        const int32_t offset = a.offsets[p * a.taps + t];
        if (offset >= 0) sum = wrap_add(sum, code_at(a.a, offset + c, a.is_signed) - a.zx);
      }
      store_code(a.y, p * a.ldy + c,
                 to_code(static_cast<float>(sum) * a.multiplier[p], a.zero_point, a.lo, a.hi));
    }
  }
}

// -- element by element ---------------------------------------------------------------------------

void add(const BinaryArgs& g, int64_t i0, int64_t i1) {
  for (int64_t i = i0; i < i1; ++i) {
    const float a = g.qa.scale * static_cast<float>(code_at(g.a, i, g.is_signed) - g.qa.zero_point);
    const float b =
        g.qb.scale * static_cast<float>(code_at(g.b, i * g.b_step, g.is_signed) - g.qb.zero_point);
    store_code(g.y, i, to_code((a + b) * g.inv_scale, g.zero_point, g.lo, g.hi));
  }
}

void mul(const BinaryArgs& g, int64_t i0, int64_t i1) {
  for (int64_t i = i0; i < i1; ++i) {
    const int32_t a = code_at(g.a, i, g.is_signed) - g.qa.zero_point;
    const int32_t b = code_at(g.b, i * g.b_step, g.is_signed) - g.qb.zero_point;
    store_code(g.y, i, to_code(static_cast<float>(a * b) * g.multiplier, g.zero_point, g.lo, g.hi));
  }
}

void add_floats(const AddFloatsArgs& g, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float x = g.q.scale * static_cast<float>(code_at(g.x, i, g.is_signed) - g.q.zero_point);
    store_code(g.y, i, quantize_one(x + g.b[i * g.b_step], g.inv_scale, g.zero_point, g.lo, g.hi));
  }
}

void lookup(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t table[256]) {
  for (int64_t i = 0; i < n; ++i) y[i] = table[x[i]];
}

void quantize(const float* x, void* y, int64_t n, float inv_scale, int32_t zp, int32_t lo,
              int32_t hi) {
  for (int64_t i = 0; i < n; ++i) store_code(y, i, quantize_one(x[i], inv_scale, zp, lo, hi));
}

void quantize_divided(const float* x, void* y, int64_t n, float scale, int32_t zp, int32_t lo,
                      int32_t hi) {
  for (int64_t i = 0; i < n; ++i) {
    const float v = x[i] / scale;
    store_code(y, i, to_code(std::isnan(v) ? 0.0f : v, zp, lo, hi));
  }
}

void dequantize(const void* x, float* y, int64_t n, float scale, int32_t zp, bool is_signed) {
  for (int64_t i = 0; i < n; ++i) y[i] = scale * static_cast<float>(code_at(x, i, is_signed) - zp);
}

void requantize(const void* x, void* y, int64_t n, QParams from, float inv_scale, int32_t zp,
                int32_t lo, int32_t hi, bool is_signed) {
  for (int64_t i = 0; i < n; ++i) {
    const float value = from.scale * static_cast<float>(code_at(x, i, is_signed) - from.zero_point);
    store_code(y, i, quantize_one(value, inv_scale, zp, lo, hi));
  }
}

// tap(t): the element of tap t.
template <typename Tap>
float blend(const float* w, int64_t taps, Tap tap) {
  float sum = w[0] * tap(0);
  if (taps != 1 && taps != 2 && taps != 4) sum = 0.0f + sum;
  for (int64_t t = 1; t < taps; ++t) sum = sum + w[t] * tap(t);
  return sum;
}

void blend_rows(const float* const* x, const float* w, int64_t taps, float* y, int64_t n) {
  for (int64_t i = 0; i < n; ++i) y[i] = blend(w, taps, [&](int64_t t) { return x[t][i]; });
}

void blend_rows_quantize(const float* const* x, const float* w, int64_t taps, void* y, int64_t n,
                         float inv_scale, int32_t zp, int32_t lo, int32_t hi) {
  for (int64_t i = 0; i < n; ++i)
    store_code(
        y, i,
        quantize_one(blend(w, taps, [&](int64_t t) { return x[t][i]; }), inv_scale, zp, lo, hi));
}

void blend_columns(const float* x, int64_t channels, const int32_t* index, const float* w,
                   int64_t taps, float* y, int64_t columns) {
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t c = 0; c < channels; ++c)
      y[j * channels + c] = blend(w + j * taps, taps,
                                  [&](int64_t t) { return x[index[j * taps + t] * channels + c]; });
}

void transpose_bytes(const uint8_t* x, int64_t ldx, uint8_t* y, int64_t ldy, int64_t rows,
                     int64_t columns) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c) y[c * ldy + r] = x[r * ldx + c];
}

void quantize_nchw_to_nhwc(const float* x, void* y, int64_t channels, int64_t pixels,
                           float inv_scale, int32_t zp, int32_t lo, int32_t hi, int64_t p0,
                           int64_t p1) {
  for (int64_t p = p0; p < p1; ++p)
    for (int64_t c = 0; c < channels; ++c)
      store_code(y, p * channels + c, quantize_one(x[c * pixels + p], inv_scale, zp, lo, hi));
}

void min_max(const float* x, int64_t n, float* mn, float* mx, int64_t* not_finite) {
  float low = std::numeric_limits<float>::infinity(), high = -low;
  int64_t bad = 0;
  for (int64_t i = 0; i < n; ++i) {
    bad += !std::isfinite(x[i]);
    if (x[i] < low) low = x[i];
    if (x[i] > high) high = x[i];
  }
  // -0 + 0 = +0: which of the two zeros was met first must not show.
  *mn = low + 0.0f;
  *mx = high + 0.0f;
  *not_finite = bad;
}

bool histogram(const HistogramArgs& h, const float* x, int64_t n) {
  // In double, in which the quotients are exact.
  for (int64_t i = 0; i < n; ++i) {
    if (!(x[i] >= h.lo && x[i] <= h.hi)) return false;
    const double k = std::floor(static_cast<double>(x[i]) * static_cast<double>(h.inverse));
    ++h.counts[static_cast<int64_t>(k) - h.first];
  }
  return true;
}

}  // namespace

constinit const KernelTable scalar_table = {
    .isa = Isa::scalar,
    .gemm_mr = 1,
    .gemm_nr = 1,
    .gemm_packed_bytes = gemm_packed_bytes,
    .gemm_pack = gemm_pack,
    .gemm_pack_columns = gemm_pack_columns,
    .gemm = gemm,
    .gemm_finish = gemm_finish,
    .row_sums = row_sums,
    .gemm4_packed_bytes = gemm_packed_bytes,
    .gemm4_pack = gemm_pack,
    .gemm4 = gemm,
    .split_planes = split_planes,
    .join_planes = join_planes,
    .join_block = join_block,
    .split_codes = split_codes,
    .join_codes = join_codes,
    .depthwise_codes = depthwise_codes,
    .add16 = add16,
    .mul16 = mul16,
    .max_pool16 = max_pool16,
    .average_pool16 = average_pool16,
    .quantize16 = quantize16,
    .dequantize16 = dequantize16,
    .depthwise_packed_bytes = depthwise_packed_bytes,
    .depthwise_pack = depthwise_pack,
    .depthwise = depthwise,
    .float_gemm_mr = 1,
    .float_gemm_nr = 1,
    .float_gemm_packed_bytes = float_gemm_packed_bytes,
    .float_gemm_pack = float_gemm_pack,
    .float_gemm = float_gemm,
    .float_winograd_packed_bytes = FloatWinograd<OneFloat, OneFloatGemm>::packed_bytes,
    .float_winograd_pack = FloatWinograd<OneFloat, OneFloatGemm>::pack,
    .float_winograd_scratch_bytes = FloatWinograd<OneFloat, OneFloatGemm>::scratch_bytes,
    .float_winograd = FloatWinograd<OneFloat, OneFloatGemm>::run,
    .float_depthwise = float_depthwise,
    .float_max_pool = float_max_pool,
    .float_average_pool = float_average_pool,
    .float_clamp = float_clamp,
    .max_pool = max_pool,
    .average_pool = average_pool,
    .add = add,
    .mul = mul,
    .add_floats = add_floats,
    .lookup = lookup,
    .quantize = quantize,
    .quantize_divided = quantize_divided,
    .dequantize = dequantize,
    .requantize = requantize,
    .quantize_nchw_to_nhwc = quantize_nchw_to_nhwc,
    .blend_rows = blend_rows,
    .blend_rows_quantize = blend_rows_quantize,
    .blend_columns = blend_columns,
    .transpose = transpose_bytes,
    .exp_sum = exp_sum,
    .arithmetic = arithmetic,
    .sum = sum,
    .softmax = softmax,
    .function = function,
    .layer_norm = layer_norm,
    .squared_errors = squared_errors,
    .moments = moments,
    .normalize = normalize,
    .dynamic_terms = dynamic_terms,
    .lstm_gates = lstm_gates,
    .min_max = min_max,
    .histogram = histogram,
};

}  // namespace octet::kernels
