#pragma once
// From rounded int32 to codes, shared by the vector kernels: clamp(r + zero_point, lo, hi) as
// saturating packs.
//
// A signed code is handled as the unsigned code 128 above it and its top bit flipped at the very
// end, so one path serves both. Zero points and bounds are codes (-128..255), so nothing saturates
// in 16 bits that would not be clamped.

#include <cstdint>

#define OCTET_INLINE __attribute__((always_inline)) inline
#define OCTET_INLINE_LAMBDA __attribute__((always_inline))

namespace octet::kernels {
namespace {

// Rounded values are cut here before the conversion to int32, which would overflow to INT_MIN. Any
// float does that is above 32767 + 255 and below 2^31.
constexpr float kAboveEveryCode = 1 << 20;

// The constants of one requantization, in every lane.
template <typename V>
struct Codes {
  using I = typename V::I;
  I zero_point, lo, hi, flip;
  bool clamps;  // or lo..hi are 0..255, which the packing to bytes saturates to

  OCTET_INLINE Codes(int32_t zp, int32_t low, int32_t high) {
    const int32_t up = low < 0 ? 128 : 0;
    zero_point = V::set16(zp + up);
    lo = V::set8(low + up);
    hi = V::set8(high + up);
    flip = V::set8(up);
    clamps = low != 0 || high != 255;
  }

  // The 4 x kLanes codes of four vectors; each 128 bits hold four codes of a, four of b, of c, of
  // d.
  OCTET_INLINE I pack4(I a, I b, I c, I d) const {
    const I ab = V::adds16(V::packs32(a, b), zero_point);
    const I cd = V::adds16(V::packs32(c, d), zero_point);
    const I codes = V::packus16(ab, cd);
    return clamps ? V::bit_xor(V::min_u8(V::max_u8(codes, lo), hi), flip) : codes;
  }
  // The same in order: all of a's, then b's, c's, d's.
  OCTET_INLINE I narrow4(I a, I b, I c, I d) const { return V::order_packed(pack4(a, b, c, d)); }
};

}  // namespace
}  // namespace octet::kernels
