#pragma once
// A 128-bit vector of four 32-bit lanes in NEON of 64-bit Arm, as the kernel templates see it:
// simd512_impl.h explains, and has the same names. Where x86 and Arm differ (conversions of NaN,
// the minimum of NaN and a number, a shuffle's large indices) these functions do as x86 does, since
// the templates are written for that. Stores of part of a vector go through the stack.

#include <arm_neon.h>

#include <cstdint>

#include "octet/kernels/bytes16_impl.h"
#include "octet/kernels/codes_impl.h"

namespace octet::kernels {
namespace {

struct Simd128 : Bytes16 {
  using F = float32x4_t;
  static constexpr int kLanes = 4;
  static constexpr int kBytes = 16;

  // The same bits as another vector.
  static OCTET_INLINE int8x16_t s8(I x) { return (int8x16_t)x; }
  static OCTET_INLINE uint8x16_t u8(I x) { return (uint8x16_t)x; }
  static OCTET_INLINE int16x8_t s16(I x) { return (int16x8_t)x; }
  static OCTET_INLINE uint16x8_t u16(I x) { return (uint16x8_t)x; }
  static OCTET_INLINE int32x4_t s32(I x) { return (int32x4_t)x; }
  static OCTET_INLINE uint32x4_t u32(I x) { return (uint32x4_t)x; }
  static OCTET_INLINE bool all(uint32x4_t mask) { return vminvq_u32(mask) != 0; }

  // At most all lanes.
  static OCTET_INLINE size_t bytes_of(int64_t lanes) {
    return static_cast<size_t>(4 * (lanes < kLanes ? lanes : kLanes));
  }

  // -- loads; those with a count use the first n lanes only and give 0 in the others --------------
  static OCTET_INLINE I set(int32_t x) { return (I)vdupq_n_s32(x); }
  static OCTET_INLINE I set16(int x) { return (I)vdupq_n_s16(static_cast<int16_t>(x)); }
  static OCTET_INLINE F set(float x) { return vdupq_n_f32(x); }
  // reads the whole vector (buffer slack)
  static OCTET_INLINE I load_bytes(const void* p, int64_t n) {
    static constexpr uint8_t kOnesThenZeros[32] = {255, 255, 255, 255, 255, 255, 255, 255,
                                                   255, 255, 255, 255, 255, 255, 255, 255};
    return load(p) & load(kOnesThenZeros + 16 - (n < 16 ? n : 16));
  }
  static OCTET_INLINE I load_i32(const int32_t* p, int64_t n) {
    I x{};
    __builtin_memcpy(&x, p, bytes_of(n));
    return x;
  }
  static OCTET_INLINE F load_f32(const float* p) { return vld1q_f32(p); }
  static OCTET_INLINE F load_f32(const float* p, int64_t n) {
    F x{};
    __builtin_memcpy(&x, p, bytes_of(n));
    return x;
  }
  static OCTET_INLINE I spread(const uint8_t* four) {  // 4 bytes, in every lane
    int32_t x;
    __builtin_memcpy(&x, four, 4);
    return set(x);
  }
  template <bool kSigned>
  static OCTET_INLINE I load_codes(const void* p) {  // kLanes bytes
    uint32_t four;
    __builtin_memcpy(&four, p, 4);
    const uint8x8_t x = vcreate_u8(four);
    if constexpr (kSigned)
      return (I)vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u8(x))));
    else
      return (I)vmovl_u16(vget_low_u16(vmovl_u8(x)));
  }
  static OCTET_INLINE I broadcast128(const void* p) { return load(p); }

  // to[i] = of[i] < 0 ? pad : base + of[i], for i < n and i < 8; `to` has room for 8.
  static OCTET_INLINE void resolve(const int32_t* of, int64_t n, const uint8_t* base,
                                   const uint8_t* pad, const uint8_t** to) {
    for (int64_t i = 0; i < n && i < 8; ++i) to[i] = of[i] < 0 ? pad : base + of[i];
  }

  // -- stores -------------------------------------------------------------------------------------
  static OCTET_INLINE void store_bytes(void* p, I x, int64_t n) {
    if (n >= kBytes) return store(p, x);
    __builtin_memcpy(p, &x, static_cast<size_t>(n));
  }
  static OCTET_INLINE void store_i32(int32_t* p, I x, int64_t n) {
    __builtin_memcpy(p, &x, bytes_of(n));
  }
  static OCTET_INLINE void store_f32(float* p, F x) { vst1q_f32(p, x); }
  static OCTET_INLINE void store_f32(float* p, F x, int64_t n) {
    __builtin_memcpy(p, &x, bytes_of(n));
  }
  // Part kPart of the kParts (1, 2, 4) of the bytes of x; with a count, the first n of them.
  template <int kParts, int kPart>
  static OCTET_INLINE void store_part(void* p, I x) {
    store_part<kParts, kPart>(p, x, kBytes / kParts);
  }
  template <int kParts, int kPart>
  static OCTET_INLINE void store_part(void* p, I x, int64_t n) {
    __builtin_memcpy(p, reinterpret_cast<const char*>(&x) + kPart * kBytes / kParts,
                     static_cast<size_t>(n));
  }

  // -- arithmetic on 32-bit lanes -----------------------------------------------------------------
  static OCTET_INLINE I add(I a, I b) { return (I)vaddq_s32(s32(a), s32(b)); }
  static OCTET_INLINE I sub(I a, I b) { return (I)vsubq_s32(s32(a), s32(b)); }
  static OCTET_INLINE I mul(I a, I b) { return (I)vmulq_s32(s32(a), s32(b)); }
  static OCTET_INLINE F add(F a, F b) { return vaddq_f32(a, b); }
  static OCTET_INLINE F mul(F a, F b) { return vmulq_f32(a, b); }
  static OCTET_INLINE F div(F a, F b) { return vdivq_f32(a, b); }
  // sum = a * b + sum, rounded once
  static OCTET_INLINE void add_product(F& sum, F a, F b) { sum = vfmaq_f32(sum, a, b); }
  // b where either is NaN, or both are zeros
  static OCTET_INLINE F min(F a, F b) { return vbslq_f32(vcltq_f32(a, b), a, b); }
  static OCTET_INLINE F max(F a, F b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
  static OCTET_INLINE F to_float(I a) { return vcvtq_f32_s32(s32(a)); }
  // rne(v), for narrow4: large v saturates somewhere above every code, small v and NaN give the
  // least int32.
  static OCTET_INLINE I round(F v) {
    return (I)vbslq_s32(vceqq_f32(v, v), s32(round_or_zero(v)), vdupq_n_s32(INT32_MIN));
  }
  // round() where v is known to fit
  static OCTET_INLINE I round_below_2_31(F v) { return (I)vcvtnq_s32_f32(v); }
  // in magnitude; NaN is not
  static OCTET_INLINE bool all_below_one(F v) { return all(vcltq_f32(vabsq_f32(v), set(1.0f))); }
  static OCTET_INLINE I round_or_zero(F v) {  // NaN gives 0, as conversions do
    return (I)vcvtnq_s32_f32(min(set(kAboveEveryCode), v));
  }
  // Adds 1 to the lanes of `count` where x is NaN or infinite.
  static OCTET_INLINE I count_not_finite(I count, F x) {
    const uint32x4_t exponent = vdupq_n_u32(0x7f800000);
    const uint32x4_t bad = vceqq_u32(vandq_u32(vreinterpretq_u32_f32(x), exponent), exponent);
    return sub(count, (I)bad);
  }

  // -- bins ---------------------------------------------------------------------------------------
  static OCTET_INLINE bool within(F x, F lo, F hi) {  // every lane; NaN is not
    return all(vandq_u32(vcgeq_f32(x, lo), vcleq_f32(x, hi)));
  }
  static OCTET_INLINE I floor(F v) { return (I)vcvtmq_s32_f32(v); }
  static OCTET_INLINE I minus_where_less(I k, F a, F b) {  // k - 1 where a < b
    return add(k, (I)vcltq_f32(a, b));
  }
  // lanes that are those of `from` become those of `to`
  static OCTET_INLINE I replace(I x, I from, I to) {
    return (I)vbslq_s32(vceqq_s32(s32(x), s32(from)), s32(to), s32(x));
  }

  // -- bytes --------------------------------------------------------------------------------------
  static OCTET_INLINE I bit_xor(I a, I b) { return a ^ b; }
  static OCTET_INLINE I bit_and(I a, I b) { return a & b; }
  template <int kBits>
  static OCTET_INLINE I shift_right16(I x) {  // every 16 bits by themselves, zeros in
    return (I)vshrq_n_u16(u16(x), kBits);
  }
  static OCTET_INLINE I max_u8(I a, I b) { return (I)vmaxq_u8(u8(a), u8(b)); }
  static OCTET_INLINE I min_u8(I a, I b) { return (I)vminq_u8(u8(a), u8(b)); }
  static OCTET_INLINE I max_s8(I a, I b) { return (I)vmaxq_s8(s8(a), s8(b)); }
  static OCTET_INLINE I subs_s8(I a, I b) { return (I)vqsubq_s8(s8(a), s8(b)); }
  // The low four bits of an index count, and its top bit, which gives 0.
  static OCTET_INLINE I shuffle(I table, I index) {
    return (I)vqtbl1q_u8(u8(table), vandq_u8(u8(index), vdupq_n_u8(0x8f)));
  }
  static OCTET_INLINE I packs32(I a, I b) {
    return (I)vcombine_s16(vqmovn_s32(s32(a)), vqmovn_s32(s32(b)));
  }
  static OCTET_INLINE I packus16(I a, I b) {
    return (I)vcombine_u8(vqmovun_s16(s16(a)), vqmovun_s16(s16(b)));
  }
  static OCTET_INLINE I adds16(I a, I b) { return (I)vqaddq_s16(s16(a), s16(b)); }
  // There is one group of 128 bits, so packed codes are in order.
  static OCTET_INLINE I order_packed(I x) { return x; }
  static OCTET_INLINE I join_12_bytes(I x) { return x; }
  // kBytes * 3 / 4 bytes.
  static OCTET_INLINE void store_three_quarters(void* p, I x) { __builtin_memcpy(p, &x, 12); }

  // -- reductions ---------------------------------------------------------------------------------
  static OCTET_INLINE I sum_bytes(I sum, I x) {
    return sum + (I)vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(u8(x))));
  }
  static OCTET_INLINE int64_t total64(I x) { return x[0] + x[1]; }
  static OCTET_INLINE float least(F x) {
    float result = x[0];
    for (int i = 1; i < kLanes; ++i) result = x[i] < result ? x[i] : result;
    return result;
  }
  static OCTET_INLINE float greatest(F x) {
    float result = x[0];
    for (int i = 1; i < kLanes; ++i) result = x[i] > result ? x[i] : result;
    return result;
  }
};

// What the products of bytes of the three tables share (isa/neon.cpp, dotprod.cpp, i8mm.cpp).
struct NeonDot {
  using V = Simd128;
  using I = V::I;
  static constexpr int64_t kHeaderBytes = 0;
  static OCTET_INLINE void put_header(char*, int /*vectors*/) {}
  static constexpr int kRows = 12;  // 24 accumulators, 2 vectors of weights, 1 of activations
  static constexpr int kHalves = 1;
  static constexpr int kVectorBytes = 16;
  static constexpr bool kManyRegisters = true;

  template <int>
  static OCTET_INLINE I half(I x) {
    return x;
  }
  static OCTET_INLINE void put(char* vector, int lane, const int8_t (&quad)[4]) {
    __builtin_memcpy(vector + 4 * lane, quad, 4);
  }
  static OCTET_INLINE void put_four(char* vector, int /*lane*/, I quads) {
    V::store(vector, quads);
  }
};

}  // namespace
}  // namespace octet::kernels
