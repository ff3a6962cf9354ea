#pragma once
// Puts the templates together to an ISA's table: `Dot` is its dot product, `Tail` the one for half
// a vector of channels (or Dot again), `Nibbles` the one with weights of 4 bits, `Product` the
// matrix product.

#include "octet/kernels/codes16_impl.h"
#include "octet/kernels/depthwise_impl.h"
#include "octet/kernels/elementwise_impl.h"
#include "octet/kernels/float_gemm_impl.h"
#include "octet/kernels/float_winograd_impl.h"
#include "octet/kernels/gemm_impl.h"
#include "octet/kernels/histogram_impl.h"
#include "octet/kernels/kernels.h"
#include "octet/kernels/layout_impl.h"
#include "octet/kernels/math_impl.h"
#include "octet/kernels/nibble_gemm_impl.h"
#include "octet/kernels/pool_impl.h"
#include "octet/kernels/resize_impl.h"
#include "octet/kernels/weight_only_impl.h"
#include "octet/kernels/winograd_impl.h"

namespace octet::kernels {
namespace {

// Accumulators of 2 vectors a row, 2 of weights, one broadcast: of 32 registers, or AVX2's 16.
template <typename V>
inline constexpr int kFloatRows = V::kBytes == 32 ? 6 : 12;

template <typename Dot, typename Tail, typename Nibbles = Dot, typename Product = Gemm<Dot>>
constexpr KernelTable make_table(Isa isa) {
  using V = typename Dot::V;
  using Floats = FloatGemm<V, kFloatRows<V>>;
  return {
      .isa = isa,
      .gemm_mr = Product::kRows,
      .gemm_nr = Product::kPanel,
      .gemm_packed_bytes = Product::packed_bytes,
      .gemm_pack = Product::pack_part,
      .gemm_pack_columns = Product::pack_columns,
      .gemm = Product::run,
      .gemm_finish = Product::finish_sums,
      .row_sums = Product::row_sums,
      .gemm4_packed_bytes = NibbleGemm<Nibbles>::packed_bytes,
      .gemm4_pack = NibbleGemm<Nibbles>::pack_part,
      .gemm4 = NibbleGemm<Nibbles>::run,
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
      .depthwise_packed_bytes = Depthwise<Dot, Tail>::packed_bytes,
      .depthwise_pack = Depthwise<Dot, Tail>::pack,
      .depthwise = Depthwise<Dot, Tail>::run,
      .float_gemm_mr = Floats::kRows,
      .float_gemm_nr = Floats::kPanel,
      .float_gemm_packed_bytes = Floats::packed_bytes,
      .float_gemm_pack = Floats::pack,
      .float_gemm = Floats::run,
      .float_winograd_packed_bytes = FloatWinograd<V, Floats>::packed_bytes,
      .float_winograd_pack = FloatWinograd<V, Floats>::pack,
      .float_winograd_scratch_bytes = FloatWinograd<V, Floats>::scratch_bytes,
      .float_winograd = FloatWinograd<V, Floats>::run,
      .float_depthwise = FloatPixels<V>::depthwise,
      .float_max_pool = FloatPixels<V>::template pool<true>,
      .float_average_pool = FloatPixels<V>::template pool<false>,
      .float_clamp = FloatPixels<V>::clamp,
      .max_pool = Pool<V>::max_pool,
      .average_pool = Pool<V>::average_pool,
      .add = Elementwise<V>::add,
      .mul = Elementwise<V>::mul,
      .add_floats = Elementwise<V>::add_floats,
      .lookup = Elementwise<V>::lookup,
      .quantize = Elementwise<V>::quantize,
      .quantize_divided = Elementwise<V>::quantize_divided,
      .dequantize = Elementwise<V>::dequantize,
      .requantize = Elementwise<V>::requantize,
      .quantize_nchw_to_nhwc = PlanesToPixels<V>::quantize,
      .blend_rows = Blend<V>::rows,
      .blend_rows_quantize = Blend<V>::quantize_rows,
      .blend_columns = Blend<V>::columns,
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
      .min_max = Elementwise<V>::min_max,
      .histogram = Histograms<V>::run,
  };
}

// The same with Winograd's convolutions; `Dot16` multiplies numbers of 16 bits.
template <typename Dot16>
constexpr KernelTable with_winograd(KernelTable table, const WinogradCost& cost,
                                    const WinogradCost& wide_cost) {
  table.winograd_packed_bytes = Winograd<Dot16>::packed_bytes;
  table.winograd_pack = Winograd<Dot16>::pack;
  table.winograd_scratch_bytes = Winograd<Dot16>::scratch_bytes;
  table.winograd = Winograd<Dot16>::run;
  table.winograd_cost = cost;
  table.wide_winograd_cost = wide_cost;
  return table;
}
template <typename Dot16>
constexpr KernelTable with_winograd(const KernelTable& table, const WinogradCost& cost) {
  return with_winograd<Dot16>(table, cost, cost);
}

}  // namespace
}  // namespace octet::kernels
