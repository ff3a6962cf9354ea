// 128-bit vectors: NEON, which every 64-bit Arm CPU has.

#include "octet/kernels/isa/tables_impl.h"
#include "octet/kernels/simd128_impl.h"
#include "octet/kernels/table_impl.h"

namespace octet::kernels {
namespace {

// acc[lane] += sum over i < 4 of x[lane][i] * w[lane][i], unsigned times signed, exactly: both
// sides are widened to 16 bits, which hold each product (255 * 128 < 2^15), and neighbouring
// products are added in 32.
struct Neon : NeonDot {
  static constexpr int kRows = 8;  // 16 accumulators, 4 halves of weights, 2 of activations, sums
  static OCTET_INLINE I dot(I acc, I x, I w) {
    const int16x8_t low = vmulq_s16(vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(V::u8(x)))),
                                    vmovl_s8(vget_low_s8(V::s8(w)))),
                    high = vmulq_s16(vreinterpretq_s16_u16(vmovl_high_u8(V::u8(x))),
                                     vmovl_high_s8(V::s8(w)));
    return V::add(acc, (I)vpaddq_s32(vpaddlq_s16(low), vpaddlq_s16(high)));
  }
};

}  // namespace

constinit const KernelTable neon_table = make_table<Neon, Neon>(Isa::neon);

}  // namespace octet::kernels
