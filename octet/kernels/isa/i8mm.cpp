// 128-bit vectors: NEON with dot products of unsigned and signed bytes (optional since ARMv8.2,
// part of ARMv8.6).

#include "octet/kernels/isa/tables_impl.h"
#include "octet/kernels/simd128_impl.h"
#include "octet/kernels/table_impl.h"

namespace octet::kernels {
namespace {

// acc[lane] += sum over i < 4 of x[lane][i] * w[lane][i], unsigned times signed, exactly: usdot.
struct I8mm : NeonDot {
  static OCTET_INLINE I dot(I acc, I x, I w) {
    return (I)vusdotq_s32(V::s32(acc), V::u8(x), V::s8(w));
  }
};

}  // namespace

constinit const KernelTable i8mm_table = make_table<I8mm, I8mm>(Isa::i8mm);

}  // namespace octet::kernels
