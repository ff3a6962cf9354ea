// 128-bit vectors: NEON with dot products of signed bytes (optional since ARMv8.2, part of
// ARMv8.4).

#include "octet/kernels/isa/tables_impl.h"
#include "octet/kernels/simd128_impl.h"
#include "octet/kernels/table_impl.h"

namespace octet::kernels {
namespace {

// acc[lane] += sum over i < 4 of x[lane][i] * w[lane][i], unsigned times signed, exactly: sdot of
// x - 128 and w, and 128 times the sum of the weights, which the compiler computes once for all
// rows of a tile.
struct Dotprod : NeonDot {
  static OCTET_INLINE I dot(I acc, I x, I w) {
    const int8x16_t centred = V::s8(x ^ V::set8(-128));
    const int32x4_t rest = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(-128), V::s8(w));
    return V::sub((I)vdotq_s32(V::s32(acc), centred, V::s8(w)), (I)rest);
  }
};

}  // namespace

constinit const KernelTable dotprod_table = make_table<Dotprod, Dotprod>(Isa::dotprod);

}  // namespace octet::kernels
