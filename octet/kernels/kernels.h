#pragma once
// The inner loops, by instruction set. Raw pointers and sizes only: no tensors, no allocation, no
// threads (the caller splits the ranges). Every table computes the same bits: docs/numerics.md is
// the contract, scalar.cpp its plainest form.
//
// Conventions
//  - Activations are "codes": one byte each, unsigned (quint8) or signed (qint8, flagged by
//    `is_signed`).
//  - Matrix kernels take unsigned activations. The caller turns qint8 into quint8 first (x ^
//    0x80, zero point + 128).
//  - Images are NHWC. Buffers of codes may be read up to kBufferSlack bytes past their end;
//    arrays of floats and of int32 (bias, multipliers, offsets ...) are not. Nothing is written
//    outside ranges.
//  - f(x) rounds to float32, rne rounds half to even. No multiply-add may be contracted. int32
//    sums wrap.
//  - Zero points, lo and hi are codes: 0..255, or -128..127. clamp(rne(v) + zero_point, lo, hi)
//    holds for every float v; where v is NaN (an infinite multiplier times 0) the code is lo,
//    except where floats are quantized.
//  - Element by element, y may be the same memory as an operand of the same size. Sizes and
//    shapes are at least 1.

#include <cstddef>
#include <cstdint>

#include "octet/base/cpu.h"

namespace octet::kernels {

// How an int32 accumulator leaves a matrix kernel.
enum class Epilogue {
  requantize,  // y = clamp(rne(f(f(acc + bias[n]) * multiplier[n])) + zero_point, lo, hi), one byte
  int32,       // y = acc + bias[n]
  // y = f(f(f(acc + bias[n]) * multiplier[n]) + float_bias[n]), float32; then max(y, 0) if relu
  dynamic,
};

// C[m][n] = sum over t < taps, i < k of A(m, t)[i] * B[n][t][i], in wrapping int32, then the
// epilogue.
//
// A(m, t) is the address of k consecutive bytes:
//  dense (offsets == nullptr, taps == 1):  a + m * lda
//  indirect:                               offsets[m * taps + t] < 0 ? pad : a + offsets[m * taps +
//                                          t]
// so a convolution is a matrix product whose rows are pointers into the image: no im2col copy.
// `pad` holds k bytes (plus slack) of the activation's zero point. k is padded to a multiple of 4
// for every tap, with weights of zero, so up to 15 bytes behind a row are read and add nothing
// (valgrind calls the sums uninitialised where nobody wrote those bytes). With few channels (k =
// 3), a whole row of the window as one tap of kw * channels bytes, over an image with its padding
// written out, is the faster layout (engine/native/conv.cpp chooses it).
//
// Zero points: with x codes' zero point zx and weights' zw, sum (qx-zx)(qw-zw) = acc - zx*sum(qw) -
// zw*sum(qx) + K*zx*zw. The caller folds -zx*sum(qw) + K*zx*zw into `bias`; where zw is not 0 it
// also passes row_sums (sum of the row's qx over all k and taps, padding included) and
// b_zero_points, and the kernel subtracts row_sums[m]*b_zero_points[n] from acc.
//
// Rows of a convolution whose windows leave the image at the same taps can be made one cut: those
// taps are skipped, neither read nor multiplied, and the cut's own bias folds the zero point over
// the others. The order of the rows is the caller's: c_rows says where each of them is stored.
struct GemmShape {
  int64_t n = 0;     // output channels
  int64_t k = 0;     // bytes per tap
  int64_t taps = 1;  // kernel positions
};

struct GemmCut {
  int64_t end = 0;                // the row behind its last one; it begins where the last cut ends
  uint64_t skipped = 0;           // bit t: tap t is skipped. Never all taps
  const int32_t* bias = nullptr;  // [n], in place of the product's
};

struct GemmArgs {
  GemmShape shape;
  const uint8_t* a = nullptr;
  int64_t lda = 0;                   // bytes, dense only
  const int32_t* offsets = nullptr;  // [m][taps]
  const uint8_t* pad = nullptr;
  const void* b = nullptr;          // made by gemm_pack of the same table
  void* c = nullptr;                // bytes, int32 or float32 by the epilogue
  int64_t ldc = 0;                  // elements
  const int32_t* c_rows = nullptr;  // [m] or null: row m is stored as row c_rows[m]; indirect only
  // Ascending, up to the last row; at most 64 taps. Null: none. Indirect only.
  const GemmCut* cuts = nullptr;
  uint64_t skipped = 0;  // as in GemmCut, of all rows; not read with cuts
  Epilogue epilogue = Epilogue::requantize;
  const int32_t* bias = nullptr;           // [n], never null
  const float* multiplier = nullptr;       // [n], for requantize and dynamic
  const float* float_bias = nullptr;       // [n] or null, for dynamic
  const int32_t* row_sums = nullptr;       // [m] or null
  const int32_t* b_zero_points = nullptr;  // [n], with row_sums
  int32_t zero_point = 0;                  // of y, for requantize
  // clamp of y's codes; signed output is -128..127 and stored as int8
  int32_t lo = 0, hi = 255;
  bool relu = false;  // for dynamic

  // Where in C row m is stored, in elements.
  int64_t row_of_c(int64_t m) const { return (c_rows ? c_rows[m] : m) * ldc; }
};

// y[p][c] = requantize(sum over t < taps of (A(p, t)[c] - zx) * w[t][c]): depthwise convolution,
// one weight per channel. `weights` is packed by depthwise_pack, `bias` holds -zx*sum(w) already, A
// as above with k = channels.
struct DepthwiseArgs {
  int64_t channels = 0;
  int64_t taps = 0;
  const uint8_t* a = nullptr;
  const int32_t* offsets = nullptr;  // [pixel][taps]
  const uint8_t* pad = nullptr;
  const void* weights = nullptr;
  void* c = nullptr;
  int64_t ldc = 0;                    // bytes between output pixels
  const int32_t* bias = nullptr;      // [channels]
  const float* multiplier = nullptr;  // [channels]
  int32_t zero_point = 0;
  int32_t lo = 0, hi = 255;
  // Where slide is 1 or 2: 3x3 windows over an image of h x w pixels, `width` of them in a row. The
  // window of pixel p begins at row p / width * slide_rows - top, column p % width * slide - left;
  // taps, [row][column], outside the image are the pad's; `offsets` is not read. 0: any windows.
  int64_t slide = 0, slide_rows = 0;
  int64_t width = 0, h = 0, w = 0, top = 0, left = 0;
};

// A 3x3 convolution with a stride of one pixel, whose results are made 4x4 at a time by Winograd's
// F(4x4, 3x3): a quarter of the multiplications, of 16-bit numbers (Lavin and Gray, "Fast
// Algorithms for Convolutional Neural Networks", 2015; winograd_impl.h has the exact form). The
// sums of a channel of y over the taps and each winograd_part() channels of x, whole ones from the
// first on,
//  S = sum of (q_x - 128) * q_w, with codes q_x of 0..255,
// must lie in -2^25 .. 2^25 - 1 for whatever codes of x; all S then come out exact, and
//  y = clamp(rne(f(f(sum of the S + bias[n]) * multiplier[n])) + zero_point, lo, hi).
inline int64_t winograd_part(int64_t channels) {
  constexpr int64_t kMost = 512;
  const int64_t parts = channels <= kMost ? 1 : (channels + kMost - 1) / kMost;
  return ((channels + parts - 1) / parts + 1) / 2 * 2;
}
struct WinogradTile {
  int32_t image, y, x;  // its first result; the others follow in steps of the dilation
};
// Images whose channels lie together, and tiles of the results.
struct WinogradImages {
  int64_t channels = 0;       // of x
  int64_t h = 0, w = 0;       // of x
  int64_t oh = 0, ow = 0;     // of y
  int64_t top = 0, left = 0;  // padding
  int64_t dilation_h = 1, dilation_w = 1;
  const WinogradTile* tiles = nullptr;
};
struct WinogradArgs : WinogradImages {
  // shape.n, c, ldc (bytes from a pixel of y to the next), bias, multiplier, zero_point, lo, hi;
  // nothing else is read
  GemmArgs finish;
  const uint8_t* a = nullptr;
  uint8_t flip = 0x80;           // 0: codes of x are signed, q_x - 128
  const uint8_t* pad = nullptr;  // `channels` bytes, and slack, of x's zero point, as x's codes
  const void* weights = nullptr;
};

// What Winograd's convolutions cost, in the time of one multiply-add of `gemm`.
struct WinogradCost {
  double product = 0;      // a multiply-add of 16-bit numbers
  double weight_byte = 0;  // to read a byte of transformed weights, which wait beyond L2
  double x = 0, y = 0;     // to transform a tile of a channel of x, and of y, which leaves as codes
};

// C[m][n] = clamp(bias[n] + sum over t < taps, i < k of A(m, t)[i] * B[n][t][i]) in float32: one
// chain of fused multiply-adds that begins with the bias, taps outside and k inside, each in order.
// A result of -0 becomes 0; NaN passes the clamp. All tables give the same bits. Sizes, lda, ldc
// and offsets count floats; nothing is read beyond the operands.
struct FloatGemmArgs {
  GemmShape shape;
  const float* a = nullptr;
  int64_t lda = 0;                   // dense only: A(m, 0) = a + m * lda, and taps is 1
  const int32_t* offsets = nullptr;  // [m][taps]: A(m, t) = offset < 0 ? pad : a + offset
  const float* pad = nullptr;        // k zeros
  const float* b = nullptr;          // made by float_gemm_pack of the same table
  float* c = nullptr;
  int64_t ldc = 0;
  const int64_t* c_rows = nullptr;  // [m] or null: where each row of C begins, in place of m * ldc
  const float* bias = nullptr;      // [n] or null
  float lo = -__builtin_inff(), hi = __builtin_inff();
  // Rows where tiles begin anew, ascending: rows between two of them meet the padding with the same
  // taps, which a tile passes over. A hint for speed.
  const int64_t* cuts = nullptr;
  int64_t cut_count = 0;
};

// Weights of a float product where they lie: element (n, tap, k) at data[n * n_stride + tap *
// tap_stride + k * k_stride].
struct FloatWeights {
  const float* data = nullptr;
  int64_t n_stride = 0, tap_stride = 0, k_stride = 0;
};

// A 3x3 convolution of floats with a stride of one pixel, whose results are made 2x2 at a time by
// Winograd's F(2x2, 3x3), with fewer than half of the multiplications. All tables give the same
// bits (docs/numerics.md has each step): of a tile of 4x4 pixels d and a window g
//  u = G g G^T, v = B^T d B, m[i][j] = the chain of fused multiply-adds of v[i][j] and u[i][j] over
//  the channels of x, which begins with 0, for i = j = 1 with the bias; y = clamp(A^T m A),
// columns (the left matrix) before rows, with
//  G: g0, ((g0 + g2) + g1) / 2, ((g0 + g2) - g1) / 2, g2; B^T: d0 - d2, d1 + d2, d2 - d1, d1 - d3;
//  A^T: (m0 + m1) + m2, (m1 - m2) - m3.
struct FloatWinogradArgs : WinogradImages {
  int64_t n = 0;  // channels of y
  const float* a = nullptr;
  const float* pad = nullptr;  // `channels` zeros
  const float* weights = nullptr;
  float* c = nullptr;
  int64_t ldc = 0;              // floats from a pixel of y to the next
  const float* bias = nullptr;  // [n] or null
  float lo = -__builtin_inff(), hi = __builtin_inff();
};

// y[p][c] = clamp(bias[c] + sum over t < taps of A(p, t)[c] * weights[t][c]) in float32, one chain
// as above.
struct FloatDepthwiseArgs {
  int64_t channels = 0, taps = 0;
  const float* a = nullptr;
  const int32_t* offsets = nullptr;  // [pixel][taps], < 0: pad
  const float* pad = nullptr;        // `channels` zeros
  const float* weights = nullptr;    // [taps][channels]
  float* c = nullptr;
  int64_t ldc = 0;
  const float* bias = nullptr;  // [channels] or null
  float lo = -__builtin_inff(), hi = __builtin_inff();
  // as in DepthwiseArgs, but a slide of 1 or 2 says that windows are 3x3
  int64_t slide = 0, width = 0;
};

struct FloatPoolArgs {
  int64_t channels = 0, taps = 0;
  const float* a = nullptr;
  const int32_t* offsets = nullptr;  // [pixel][taps], < 0: outside the image, skipped
  float* y = nullptr;
  int64_t ldy = 0;
  const float* counts = nullptr;  // [pixel], what an average divides by
};

// One row of results of codes of 16 bits times weights, whose sums over the upper bytes of x are
// `high` and over the lower ones `low`:
//  y[n] = clamp(rne(f(f(s) * multiplier[n])) + zero_point, lo, hi),
//  s = 256 * high[n] + low[n] + offsets[n],
// exact in double until f, for which all terms are whole numbers below 2^52. A null `high`: x has 8
// bits. Multipliers are finite.
struct JoinCodesArgs {
  const int32_t* high = nullptr;
  const int32_t* low = nullptr;
  const double* offsets = nullptr;
  const float* multiplier = nullptr;
  int32_t zero_point = 0;
  int32_t lo = 0, hi = 65535;
  bool wide = true;  // y's codes have 16 bits, else 8
  void* y = nullptr;
};

// sums[c] = sum over t < taps of (A(p, t)[c] ^ flip) * weights[t][c], all of which fit int32:
// depthwise convolution of 16-bit codes (flip 0x8000 makes signed ones unsigned). A as in
// DepthwiseArgs, counted in codes.
struct DepthwiseCodesArgs {
  int64_t channels = 0, taps = 0;
  const uint16_t* a = nullptr;
  const int32_t* offsets = nullptr;  // [pixel][taps], < 0: pad
  const uint16_t* pad = nullptr;     // `channels` codes
  const int16_t* weights = nullptr;  // [taps][ldw], less their zero points
  int64_t ldw = 0;
  uint16_t flip = 0;
};

struct QParams {
  float scale = 1;
  int32_t zero_point = 0;
};

// Element by element on codes: y = quantize(dequantize(a) op dequantize(b)), clamped to lo..hi.
// Add: y = clamp(rne(f(f(f(sa*(qa-za)) + f(sb*(qb-zb))) * inv_scale)) + zero_point).
// A negative scale subtracts.
// Mul: y = clamp(rne(f(f((qa-za)*(qb-zb)) * multiplier)) + zero_point), multiplier =
// f(f(sa*sb)*f(1/sy)). A single value for b is passed as b_step = 0 (otherwise 1).
struct BinaryArgs {
  const void* a = nullptr;
  const void* b = nullptr;
  int64_t b_step = 1;
  void* y = nullptr;
  QParams qa, qb;
  float inv_scale = 1;   // f(1/sy), for add
  float multiplier = 1;  // for mul
  int32_t zero_point = 0;
  int32_t lo = 0, hi = 255;
  bool is_signed = false;  // a, b and y
};

// The codes of a scale, lo to hi, each less the zero point.
struct CodeGrid {
  float scale = 1, inverse = 1;  // f(1/scale)
  float lo = 0, hi = 255;        // within +-2^22
};
// What rounding floats to codes costs: the sum of f(e * e), e = f(x - f(scale * rne(clamp(f(x *
// inverse))))); and what clamping alone costs, of f(scale * (f(x * inverse) - clamped)). Eight sums
// in double, of i modulo 8, are added in order.
struct SquaredErrors {
  double all = 0, clipped = 0;
};

// Codes and floats, of neighbouring elements: y = clamp(rne(f(f(f(s * (q-z)) + b) * f(1/sy))) +
// zero_point), to the codes that quantize has for what is not finite.
struct AddFloatsArgs {
  const void* x = nullptr;
  const float* b = nullptr;
  int64_t b_step = 1;  // 0: a single value
  void* y = nullptr;
  QParams q;
  float inv_scale = 1;  // f(1/sy)
  int32_t zero_point = 0;
  int32_t lo = 0, hi = 255;
  bool is_signed = false;  // x and y
};

// one output pixel: window of `taps` addresses A(p, t) of `channels` bytes
struct PoolArgs {
  int64_t channels = 0;
  int64_t taps = 0;
  const void* a = nullptr;
  const int32_t* offsets = nullptr;  // [pixel][taps], < 0: outside the image, skipped
  void* y = nullptr;
  int64_t ldy = 0;  // bytes between output pixels
  bool is_signed = false;
  // average_pool only:
  int32_t zx = 0;
  const float* multiplier = nullptr;  // [pixel]
  int32_t zero_point = 0;
  int32_t lo = 0, hi = 255;
};

enum class Arithmetic { add, sub, mul, div };

// Functions of one number. In float32: gelu = x * P(Z <= x) for a standard normal Z, to 3 units in
// the last place; sigmoid = 1 / (1 + exp(-x)), silu = x / (1 + exp(-x)) and tanh, to 2; hardswish =
// x * min(max(x + 3, 0), 6) / 6, each step rounded. The others are computed in double and rounded
// once: exp; gelu_tanh = x / 2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))); mish =
// x * tanh(log(1 + exp(x))).
enum class Function { exp, sigmoid, silu, tanh, gelu, gelu_tanh, mish, hardswish };

// Weight-only layers: x in fixed point, whose exact sums become y (docs/numerics.md). A row of x is
// row_scale * (U - 2^23) with whole U of 24 bits, kept as three planes of bytes, lowest first;
// `sums` are the products of the three planes with the weights' codes.
//  y[n] = f((exact[n] * scales[n]) * row_scale + bias[n]), in double until the end,
//  exact[n] = sums[0][n] + 256 * sums[1][n] + 65536 * sums[2][n] - zero_points[n] * row_sum -
//  offsets[n],
// all terms of which are whole numbers below 2^52. Then y = y > 0 ? min(y, most) : 0 if relu.
struct JoinArgs {
  const int32_t* sums = nullptr;  // [3][ld]; the first is that of channel n0
  int64_t ld = 0;
  double row_sum = 0;                   // of U
  double row_scale = 1;                 // a power of two
  const double* zero_points = nullptr;  // [n], of the codes
  const double* offsets = nullptr;      // [n], 2^23 * sum of (code - zero point)
  const double* scales = nullptr;       // [n]
  const float* bias = nullptr;          // [n] or null
  bool relu = false;
  float most = 0;
  float* y = nullptr;  // [n]
};

// sums[n] += (S - zero_points[n] * row_sum) * scales[n] in double, one operation after another,
// where S = all[n] - 2^23 * weight_sums[n] of the three planes, as in JoinArgs: a block of a
// weight-only layer with scales by block.
struct JoinBlockArgs {
  const int32_t* sums = nullptr;  // [3][ld]; the first is that of channel n0
  int64_t ld = 0;
  double row_sum = 0;  // of the fixed-point numbers
  const float* zero_points = nullptr;
  const int32_t* weight_sums = nullptr;  // of codes
  const float* scales = nullptr;
  double* total = nullptr;  // the first is that of channel n0
};

// ++counts[floor(x / width) - first] for values x[0..n) that all lie within lo..hi, the quotient
// exact. `inverse` is 1/width, a power of two from 2^-126 to 2^126; lo, hi and so all bins k of
// them are such that |k| <= 2^30.
struct HistogramArgs {
  static constexpr int kSpare = 16;
  float lo = 0, hi = 0;
  float inverse = 1;
  int32_t first = 0;  // the bin that counts[0] counts
  int32_t bins = 0;   // from the bin of lo to that of hi
  // [bins + kSpare]; the spare ones are 0 and stay so, unless the kernel returns false
  uint32_t* counts = nullptr;
};

struct KernelTable {
  Isa isa = Isa::scalar;

  // -- matrix products and convolutions --------------------------------------------------------
  // the register tile; ranges given to gemm should be multiples of these (but the last)
  int64_t gemm_mr = 0, gemm_nr = 0;
  size_t (*gemm_packed_bytes)(const GemmShape&) = nullptr;
  // Packs channels n0..n1 of a product; n0, and n1 but the last, are multiples of gemm_nr. w is
  // [n1 - n0][taps][k], row-major; `packed` has room for all channels. Packed bytes depend on the
  // weights, the shape and the table only. Put them on a 64-byte boundary: it is not required, but
  // loads that straddle cache lines are slower.
  void (*gemm_pack)(const GemmShape&, int64_t n0, int64_t n1, const int8_t* w,
                    void* packed) = nullptr;
  // The same from codes [k][n] (taps is 1), as matrices of activations lie: weights are the bytes
  // with `flip` (0, or 0x80 to make unsigned codes signed) xor-ed in. sums[n] becomes the sum of
  // channel n's.
  void (*gemm_pack_columns)(const GemmShape&, const uint8_t* b, uint8_t flip, void* packed,
                            int32_t* sums) = nullptr;
  // Rows m0..m1 and channels n0..n1 of C; n0 is a multiple of gemm_nr. Any split gives the same
  // bits.
  void (*gemm)(const GemmArgs&, int64_t m0, int64_t m1, int64_t n0, int64_t n1) = nullptr;
  // The epilogue alone, for rows m0..m1 of products that were summed elsewhere: C[m] becomes what
  // gemm makes of it where the sums over taps and k are sums[m * n .. (m + 1) * n]. Uses shape.n,
  // c, ldc, epilogue and what belongs to it, row_sums and b_zero_points.
  void (*gemm_finish)(const GemmArgs&, const int32_t* sums, int64_t m0, int64_t m1) = nullptr;
  // sums[m] = sum of A(m, t)[i] over taps and k, for m0..m1; uses shape, a, lda, offsets, pad.
  void (*row_sums)(const GemmArgs&, int32_t* sums, int64_t m0, int64_t m1) = nullptr;

  // 3x3 convolutions by Winograd's algorithm, of tables that gain by it; others have null.
  size_t (*winograd_packed_bytes)(int64_t channels, int64_t n) = nullptr;
  // Output channels n0..n1 of n, whose weights are w[n1 - n0][9][channels]; n0 is a multiple of
  // gemm_nr, and n1 too or it is n.
  void (*winograd_pack)(int64_t channels, int64_t n, const int8_t* w, int64_t n0, int64_t n1,
                        void* packed) = nullptr;
  // Of one thread.
  size_t (*winograd_scratch_bytes)(int64_t channels) = nullptr;
  // Tiles t0..t1 and output channels n0..n1; n0 is a multiple of 2 * gemm_nr, and n1 too or it is
  // n.
  void (*winograd)(const WinogradArgs&, void* scratch, int64_t t0, int64_t t1, int64_t n0,
                   int64_t n1) = nullptr;
  // The second on CPUs that have AVX-VNNI too and multiply whole vectors of 512 bits at once, twice
  // a cycle (Zen 5; Zen 4 takes half of one).
  WinogradCost winograd_cost, wide_winograd_cost;

  // The same product with weights of 4 bits, codes 0..15; dense only. Their zero points go the way
  // of b_zero_points.
  size_t (*gemm4_packed_bytes)(const GemmShape&) = nullptr;
  void (*gemm4_pack)(const GemmShape&, int64_t n0, int64_t n1,
                     const int8_t* w /* one code each, 0..15 */, void* packed) = nullptr;
  void (*gemm4)(const GemmArgs&, int64_t m0, int64_t m1, int64_t n0, int64_t n1) = nullptr;

  // U = min(rne(x * scale) + 2^23, 2^24 - 1) of n floats with |x * scale| < 2^23, byte p of number
  // i at planes[p * stride + i]; returns the sum of the U.
  int64_t (*split_planes)(const float* x, int64_t n, double scale, uint8_t* planes,
                          int64_t stride) = nullptr;
  // channels n0..n1 of a row
  void (*join_planes)(const JoinArgs&, int64_t n0, int64_t n1) = nullptr;
  void (*join_block)(const JoinBlockArgs&, int64_t n0, int64_t n1) = nullptr;

  // -- codes of 16 bits ------------------------------------------------------------------------
  // The upper and the lower bytes of x[i] ^ flip (0x8000 makes signed codes unsigned).
  void (*split_codes)(const uint16_t* x, int64_t n, uint16_t flip, uint8_t* high,
                      uint8_t* low) = nullptr;
  void (*join_codes)(const JoinCodesArgs&, int64_t n) = nullptr;
  void (*depthwise_codes)(const DepthwiseCodesArgs&, int64_t pixel, int32_t* sums) = nullptr;
  // As those below without the number, on codes of 16 bits: offsets and ldy of pools count codes.
  // Sums of average_pool16 fit int32.
  void (*add16)(const BinaryArgs&, int64_t i0, int64_t i1) = nullptr;
  void (*mul16)(const BinaryArgs&, int64_t i0, int64_t i1) = nullptr;
  void (*max_pool16)(const PoolArgs&, int64_t p0, int64_t p1) = nullptr;
  void (*average_pool16)(const PoolArgs&, int64_t p0, int64_t p1) = nullptr;
  void (*quantize16)(const float* x, void* y, int64_t n, float inv_scale, int32_t zp, int32_t lo,
                     int32_t hi) = nullptr;
  void (*dequantize16)(const void* x, float* y, int64_t n, float scale, int32_t zp,
                       bool is_signed) = nullptr;

  size_t (*depthwise_packed_bytes)(int64_t channels, int64_t taps) = nullptr;
  void (*depthwise_pack)(int64_t channels, int64_t taps, const int8_t* w /* [taps][channels] */,
                         void* packed) = nullptr;
  // output pixels p0..p1
  void (*depthwise)(const DepthwiseArgs&, int64_t p0, int64_t p1) = nullptr;

  // -- floats ----------------------------------------------------------------------------------
  int64_t float_gemm_mr = 0, float_gemm_nr = 0;  // as gemm_mr and gemm_nr
  size_t (*float_gemm_packed_bytes)(const GemmShape&) = nullptr;
  void (*float_gemm_pack)(const GemmShape&, const FloatWeights&, float* packed) = nullptr;
  // Rows m0..m1 and channels n0..n1 of C; n0 is a multiple of float_gemm_nr, and n1 too or it is n.
  // Any split gives the same bits.
  void (*float_gemm)(const FloatGemmArgs&, int64_t m0, int64_t m1, int64_t n0,
                     int64_t n1) = nullptr;
  size_t (*float_winograd_packed_bytes)(int64_t channels, int64_t n) = nullptr;
  // Output channels n0..n1 of n, whose weights are w[n1 - n0][channels][9]. n0 is a multiple of 2 *
  // float_gemm_nr, and n1 too or it is n, here and below.
  void (*float_winograd_pack)(int64_t channels, int64_t n, const float* w, int64_t n0, int64_t n1,
                              float* packed) = nullptr;
  size_t (*float_winograd_scratch_bytes)(int64_t channels) = nullptr;  // of one thread
  // Tiles t0..t1 and output channels n0..n1.
  void (*float_winograd)(const FloatWinogradArgs&, void* scratch, int64_t t0, int64_t t1,
                         int64_t n0, int64_t n1) = nullptr;
  void (*float_depthwise)(const FloatDepthwiseArgs&, int64_t p0, int64_t p1) = nullptr;
  // The largest of the taps inside the image (NaN is passed over; -inf if there is none), and their
  // sum in order / counts[p].
  void (*float_max_pool)(const FloatPoolArgs&, int64_t p0, int64_t p1) = nullptr;
  void (*float_average_pool)(const FloatPoolArgs&, int64_t p0, int64_t p1) = nullptr;
  // y = min(max(x, lo), hi), hi where lo > hi; NaN stays NaN. y may be x.
  void (*float_clamp)(const float* x, float* y, int64_t n, float lo, float hi) = nullptr;

  // -- pools -----------------------------------------------------------------------------------
  // Maximum of the codes of the taps inside the image (at least one is).
  void (*max_pool)(const PoolArgs&, int64_t p0, int64_t p1) = nullptr;
  // y = clamp(rne(f(f(sum over the taps inside of (q - zx)) * multiplier[p])) + zero_point, lo,
  // hi).
  void (*average_pool)(const PoolArgs&, int64_t p0, int64_t p1) = nullptr;

  // -- element by element ----------------------------------------------------------------------
  void (*add)(const BinaryArgs&, int64_t i0, int64_t i1) = nullptr;
  void (*mul)(const BinaryArgs&, int64_t i0, int64_t i1) = nullptr;
  void (*add_floats)(const AddFloatsArgs&, int64_t n) = nullptr;
  void (*lookup)(const uint8_t* x, uint8_t* y, int64_t n, const uint8_t table[256]) = nullptr;
  // q = clamp(rne(f(x * inv_scale)) + zp, lo, hi); NaN -> zp clamped, +inf -> hi, -inf -> lo.
  // The codes are stored as bytes: lo < 0 means int8.
  void (*quantize)(const float* x, void* y, int64_t n, float inv_scale, int32_t zp, int32_t lo,
                   int32_t hi) = nullptr;
  // The same of f(x / scale).
  void (*quantize_divided)(const float* x, void* y, int64_t n, float scale, int32_t zp, int32_t lo,
                           int32_t hi) = nullptr;
  // y = f(scale * f(q - zp)).
  void (*dequantize)(const void* x, float* y, int64_t n, float scale, int32_t zp,
                     bool is_signed) = nullptr;
  // codes -> codes of other qparams: quantize(dequantize(x)), exactly.
  void (*requantize)(const void* x, void* y, int64_t n, QParams from, float inv_scale, int32_t zp,
                     int32_t lo, int32_t hi, bool is_signed) = nullptr;
  // quantize, and from planes to pixels: x is [channels][pixels] float32, y is [pixels][channels]
  // bytes. Pixels p0..p1.
  void (*quantize_nchw_to_nhwc)(const float* x, void* y, int64_t channels, int64_t pixels,
                                float inv_scale, int32_t zp, int32_t lo, int32_t hi, int64_t p0,
                                int64_t p1) = nullptr;
  // -- resizing --------------------------------------------------------------------------------
  // y[i] = sum over t < taps of w[t] * x[t][i] in float32, in the order of t, all products and sums
  // rounded one by one. Sums of neither 1, 2 nor 4 taps begin with +0 (which differs for -0).
  void (*blend_rows)(const float* const* x, const float* w, int64_t taps, float* y,
                     int64_t n) = nullptr;
  // The same, and what `quantize` makes of it.
  void (*blend_rows_quantize)(const float* const* x, const float* w, int64_t taps, void* y,
                              int64_t n, float inv_scale, int32_t zp, int32_t lo,
                              int32_t hi) = nullptr;
  // The same sum across a row of pixels: y[j][c] = sum over t of w[j][t] * x[index[j][t]][c], for
  // j < columns and c < channels.
  void (*blend_columns)(const float* x, int64_t channels, const int32_t* index, const float* w,
                        int64_t taps, float* y, int64_t columns) = nullptr;

  // y[c * ldy + r] = x[r * ldx + c], for bytes.
  void (*transpose)(const uint8_t* x, int64_t ldx, uint8_t* y, int64_t ldy, int64_t rows,
                    int64_t columns) = nullptr;
  // y[i] = exp(x[i] - top) in double; returns their sum. For x[i] <= top (or NaN).
  double (*exp_sum)(const float* x, float top, double* y, int64_t n) = nullptr;
  // y[i] = a[i * a_step] op b[i * b_step] in float32; steps are 0 or 1. y may be a or b.
  void (*arithmetic)(Arithmetic op, const float* a, int64_t a_step, const float* b, int64_t b_step,
                     float* y, int64_t n) = nullptr;
  // The sum of n floats in double: sixteen sums (of i modulo 16), whose upper half is added to the
  // lower until one is left.
  double (*sum)(const float* x, int64_t n) = nullptr;
  // y = exp(x - max(x)) / sum of them, for one row: exponentials in float32 to a unit in the last
  // place, their sum as above. NaN anywhere, or nothing but -inf: all NaN. y may be x.
  void (*softmax)(const float* x, float* y, int64_t n) = nullptr;
  // y[i] = f(x[i]); NaN stays NaN. y may be x.
  void (*function)(Function f, const float* x, float* y, int64_t n) = nullptr;
  // One row: y = f((x - mean) * (1 / sqrt(variance + eps)) * weight + bias) in double, the (biased)
  // variance too; their sums in eight parts, of i modulo 8, added pairwise. weight and bias may be
  // null. y may be x.
  void (*layer_norm)(const float* x, const float* weight, const float* bias, double eps, float* y,
                     int64_t n) = nullptr;
  // The parts of layer_norm, for rows that have a weight for each of several parts: the mean and
  // 1 / sqrt(variance + eps) of one row, and y = f((x - mean) * inverse * weight + bias). y may be
  // x.
  SquaredErrors (*squared_errors)(const CodeGrid&, const float* x, int64_t n) = nullptr;
  void (*moments)(const float* x, double eps, double* mean, double* inverse, int64_t n) = nullptr;
  void (*normalize)(const float* x, double mean, double inverse, float weight, float bias, float* y,
                    int64_t n) = nullptr;
  // What a dynamic layer's zero point and scale of x make of its weights' terms: bias[i] =
  // -zero_point * sums[i] (wrapping), multiplier[i] = f(scale * scales[i]).
  void (*dynamic_terms)(int32_t zero_point, float scale, const int32_t* sums, const float* scales,
                        int32_t* bias, float* multiplier, int64_t n) = nullptr;
  // One step of an LSTM for n units. g: what x gives the gates in, forget, candidate, out, which
  // lie `stride` apart and become the gates themselves; r: what h gives them, likewise; cell and h:
  // the states, h only written. Sigmoid and tanh as `function`, all in float32.
  void (*lstm_gates)(float* g, const float* r, int64_t stride, float* cell, float* h,
                     int64_t n) = nullptr;
  // Minimum and maximum of n floats. NaN is ignored (only NaN: +inf and -inf); infinities are not,
  // but both are counted in *not_finite. A zero comes out as +0.
  void (*min_max)(const float* x, int64_t n, float* mn, float* mx, int64_t* not_finite) = nullptr;
  // Counts n floats, n < 2^32 (HistogramArgs). False as soon as one is not within lo..hi, or NaN:
  // then some are counted, some not.
  bool (*histogram)(const HistogramArgs&, const float* x, int64_t n) = nullptr;
};

// The table of one ISA (the CPU must support it to call through it), and the one in force
// (base/cpu.h).
const KernelTable& table(Isa isa);
const KernelTable& table();

// Puts another table in force in place of the ISA's, one that counts calls or checks results, say;
// null: the ISA's again. It must stay alive as long as kernels that were made meanwhile.
void use_table(const KernelTable* table);

}  // namespace octet::kernels
