#pragma once
// A 256-bit vector of eight 32-bit lanes in AVX2, as the kernel templates see it: simd512_impl.h
// explains, and has the same names. AVX2 has no byte masks, so the stores of part of a vector go
// through the stack.

#include <immintrin.h>

#include <cstdint>

#include "octet/kernels/codes_impl.h"

namespace octet::kernels {
namespace {

struct Simd256 {
  using I = __m256i;
  using F = __m256;
  static constexpr int kLanes = 8;
  static constexpr int kBytes = 32;
  // the same lanes for the compiler's operators; unsigned ones wrap
  using Halves = int16_t __attribute__((vector_size(32)));
  using Words = uint32_t __attribute__((vector_size(32)));
  using SignedWords = int32_t __attribute__((vector_size(32)));

  static OCTET_INLINE I first(int64_t n) {
    return _mm256_cmpgt_epi32(set(static_cast<int32_t>(n)),
                              _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }

  // -- loads; those with a count use the first n lanes only and give 0 in the others --------------
  static OCTET_INLINE I zero() { return _mm256_setzero_si256(); }
  static OCTET_INLINE I set(int32_t x) { return _mm256_set1_epi32(x); }
  static OCTET_INLINE I set8(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static OCTET_INLINE I set16(int x) { return _mm256_set1_epi16(static_cast<short>(x)); }
  static OCTET_INLINE F set(float x) { return _mm256_set1_ps(x); }
  static OCTET_INLINE I load(const void* p) {
    return _mm256_loadu_si256(static_cast<const __m256i*>(p));
  }
  // reads the whole vector (buffer slack)
  static OCTET_INLINE I load_bytes(const void* p, int64_t n) {
    alignas(32) static constexpr uint8_t kOnesThenZeros[64] = {
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255,
        255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255};
    return _mm256_and_si256(load(p), load(kOnesThenZeros + 32 - (n < 32 ? n : 32)));
  }
  static OCTET_INLINE I load_i32(const int32_t* p, int64_t n) {
    return _mm256_maskload_epi32(p, first(n));
  }
  static OCTET_INLINE F load_f32(const float* p) { return _mm256_loadu_ps(p); }
  static OCTET_INLINE F load_f32(const float* p, int64_t n) {
    return _mm256_maskload_ps(p, first(n));
  }
  static OCTET_INLINE I spread(const uint8_t* four) {  // 4 bytes, in every lane
    int32_t x;
    __builtin_memcpy(&x, four, 4);
    return set(x);
  }
  template <bool kSigned>
  static OCTET_INLINE I load_codes(const void* p) {  // kLanes bytes
    const __m128i x = _mm_loadl_epi64(static_cast<const __m128i*>(p));
    return kSigned ? _mm256_cvtepi8_epi32(x) : _mm256_cvtepu8_epi32(x);
  }
  // 2 * kLanes bytes with `flip` xor-ed in, as signed numbers of 16 bits
  static OCTET_INLINE __m128i set_half8(int x) { return _mm_set1_epi8(static_cast<char>(x)); }
  static OCTET_INLINE I widen_half(const void* p, __m128i flip) {
    const __m128i x = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return _mm256_cvtepi8_epi16(_mm_xor_si128(x, flip));
  }
  static OCTET_INLINE I broadcast128(const void* p) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }

  // to[i] = of[i] < 0 ? pad : base + of[i], for i < n and i < 8; `to` has room for 8.
  static OCTET_INLINE void resolve(const int32_t* of, int64_t n, const uint8_t* base,
                                   const uint8_t* pad, const uint8_t** to) {
    const I offsets = n >= 8 ? load(of) : load_i32(of, n);
    for (int half = 0; half < 2 && half * 4 < n; ++half) {
      const I offset = _mm256_cvtepi32_epi64(half == 0 ? _mm256_castsi256_si128(offsets)
                                                       : _mm256_extracti128_si256(offsets, 1));
      const I inside =
          _mm256_add_epi64(offset, _mm256_set1_epi64x(reinterpret_cast<int64_t>(base)));
      const __m256d chosen =
          _mm256_blendv_pd(_mm256_castsi256_pd(inside),
                           _mm256_castsi256_pd(_mm256_set1_epi64x(reinterpret_cast<int64_t>(pad))),
                           _mm256_castsi256_pd(offset));
      store(to + 4 * half, _mm256_castpd_si256(chosen));
    }
  }

  // -- stores -------------------------------------------------------------------------------------
  static OCTET_INLINE void store(void* p, I x) { _mm256_storeu_si256(static_cast<__m256i*>(p), x); }
  static OCTET_INLINE void store_bytes(void* p, I x, int64_t n) {
    if (n >= kBytes) return store(p, x);
    alignas(32) uint8_t bytes[kBytes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), x);
    __builtin_memcpy(p, bytes, static_cast<size_t>(n));
  }
  static OCTET_INLINE void store_i32(int32_t* p, I x, int64_t n) {
    _mm256_maskstore_epi32(p, first(n), x);
  }
  static OCTET_INLINE void store_f32(float* p, F x) { _mm256_storeu_ps(p, x); }
  static OCTET_INLINE void store_f32(float* p, F x, int64_t n) {
    _mm256_maskstore_ps(p, first(n), x);
  }
  // The part-th half (kParts = 2) or quarter (4) of the bytes of x; with a count, the first n of
  // them.
  template <int kParts, int kPart>
  static OCTET_INLINE void store_part(void* p, I x) {
    const __m128i half = _mm256_extracti128_si256(x, kPart * 2 / kParts);
    if constexpr (kParts == 2) {
      _mm_storeu_si128(static_cast<__m128i*>(p), half);
    } else {
      const int64_t quarter = _mm_extract_epi64(half, kPart % 2);
      __builtin_memcpy(p, &quarter, 8);
    }
  }
  template <int kParts, int kPart>
  static OCTET_INLINE void store_part(void* p, I x, int64_t n) {
    alignas(32) uint8_t bytes[kBytes];
    _mm256_store_si256(reinterpret_cast<__m256i*>(bytes), x);
    __builtin_memcpy(p, bytes + kPart * kBytes / kParts, static_cast<size_t>(n));
  }

  // -- arithmetic on 32-bit lanes -----------------------------------------------------------------
  static OCTET_INLINE I add(I a, I b) { return _mm256_add_epi32(a, b); }
  static OCTET_INLINE I sub(I a, I b) { return _mm256_sub_epi32(a, b); }
  static OCTET_INLINE I mul(I a, I b) { return _mm256_mullo_epi32(a, b); }
  static OCTET_INLINE F add(F a, F b) { return _mm256_add_ps(a, b); }
  static OCTET_INLINE F mul(F a, F b) { return _mm256_mul_ps(a, b); }
  static OCTET_INLINE F div(F a, F b) { return _mm256_div_ps(a, b); }
  // sum = a * b + sum, rounded once. In assembly, since GCC takes the form that overwrites a factor
  // as often as the one that overwrites the sum, and then runs out of registers.
  static OCTET_INLINE void add_product(F& sum, F a, F b) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
  static OCTET_INLINE F min(F a, F b) { return _mm256_min_ps(a, b); }  // b where either is NaN
  static OCTET_INLINE F max(F a, F b) { return _mm256_max_ps(a, b); }
  static OCTET_INLINE F to_float(I a) { return _mm256_cvtepi32_ps(a); }
  // rne(v), for narrow4: large v saturates somewhere above every code, small v and NaN give the
  // least int32.
  static OCTET_INLINE I round(F v) {
    return _mm256_cvtps_epi32(_mm256_min_ps(set(kAboveEveryCode), v));
  }
  // round() where v is known to fit
  static OCTET_INLINE I round_below_2_31(F v) { return _mm256_cvtps_epi32(v); }
  // in magnitude; NaN is not
  static OCTET_INLINE bool all_below_one(F v) {
    const F magnitude = _mm256_andnot_ps(set(-0.0f), v);
    return _mm256_movemask_ps(_mm256_cmp_ps(magnitude, set(1.0f), _CMP_NLT_UQ)) == 0;
  }
  static OCTET_INLINE I round_or_zero(F v) {  // NaN gives 0
    const F number = _mm256_cmp_ps(v, v, _CMP_ORD_Q);
    return _mm256_cvtps_epi32(_mm256_and_ps(number, _mm256_min_ps(set(kAboveEveryCode), v)));
  }
  // Adds 1 to the lanes of `count` where x is NaN or infinite.
  static OCTET_INLINE I count_not_finite(I count, F x) {
    const I exponent = set(0x7f800000);
    return sub(count,
               _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_castps_si256(x), exponent), exponent));
  }

  // -- bins ---------------------------------------------------------------------------------------
  static OCTET_INLINE bool within(F x, F lo, F hi) {
    const F inside =
        _mm256_and_ps(_mm256_cmp_ps(x, lo, _CMP_GE_OQ), _mm256_cmp_ps(x, hi, _CMP_LE_OQ));
    return _mm256_movemask_ps(inside) == 0xff;
  }
  static OCTET_INLINE I floor(F v) { return _mm256_cvtps_epi32(_mm256_floor_ps(v)); }
  static OCTET_INLINE I minus_where_less(I k, F a, F b) {
    return _mm256_add_epi32(k, _mm256_castps_si256(_mm256_cmp_ps(a, b, _CMP_LT_OQ)));
  }
  static OCTET_INLINE I replace(I x, I from, I to) {
    return _mm256_blendv_epi8(x, to, _mm256_cmpeq_epi32(x, from));
  }

  // -- bytes --------------------------------------------------------------------------------------
  static OCTET_INLINE I bit_xor(I a, I b) { return _mm256_xor_si256(a, b); }
  static OCTET_INLINE I bit_and(I a, I b) { return _mm256_and_si256(a, b); }
  template <int kBits>
  static OCTET_INLINE I shift_right16(I x) {  // every 16 bits by themselves, zeros in
    return _mm256_srli_epi16(x, kBits);
  }
  static OCTET_INLINE I max_u8(I a, I b) { return _mm256_max_epu8(a, b); }
  static OCTET_INLINE I min_u8(I a, I b) { return _mm256_min_epu8(a, b); }
  static OCTET_INLINE I max_s8(I a, I b) { return _mm256_max_epi8(a, b); }
  static OCTET_INLINE I subs_s8(I a, I b) { return _mm256_subs_epi8(a, b); }
  // in each 128 bits
  static OCTET_INLINE I shuffle(I table, I index) { return _mm256_shuffle_epi8(table, index); }
  static OCTET_INLINE I packs32(I a, I b) { return _mm256_packs_epi32(a, b); }
  static OCTET_INLINE I packus16(I a, I b) { return _mm256_packus_epi16(a, b); }
  static OCTET_INLINE I adds16(I a, I b) { return _mm256_adds_epi16(a, b); }
  static OCTET_INLINE I unpacklo8(I a, I b) { return _mm256_unpacklo_epi8(a, b); }
  static OCTET_INLINE I unpackhi8(I a, I b) { return _mm256_unpackhi_epi8(a, b); }
  static OCTET_INLINE I unpacklo16(I a, I b) { return _mm256_unpacklo_epi16(a, b); }
  static OCTET_INLINE I unpackhi16(I a, I b) { return _mm256_unpackhi_epi16(a, b); }
  static OCTET_INLINE I unpacklo32(I a, I b) { return _mm256_unpacklo_epi32(a, b); }
  static OCTET_INLINE I unpackhi32(I a, I b) { return _mm256_unpackhi_epi32(a, b); }
  static OCTET_INLINE I unpacklo64(I a, I b) { return _mm256_unpacklo_epi64(a, b); }
  static OCTET_INLINE I unpackhi64(I a, I b) { return _mm256_unpackhi_epi64(a, b); }
  // Packing works inside 128 bits and leaves dword j of 128-bit group l as dword l of source vector
  // j: the transpose.
  static OCTET_INLINE I order_packed(I x) {
    return _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
  }
  // The first 12 bytes of every 128 bits, put together at the front.
  static OCTET_INLINE I join_12_bytes(I x) {
    return _mm256_permutevar8x32_epi32(x, _mm256_setr_epi32(0, 1, 2, 4, 5, 6, 0, 0));
  }
  // kBytes * 3 / 4 bytes.
  static OCTET_INLINE void store_three_quarters(void* p, I x) {
    _mm_storeu_si128(static_cast<__m128i*>(p), _mm256_castsi256_si128(x));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(static_cast<char*>(p) + 16),
                     _mm256_extracti128_si256(x, 1));
  }

  // -- halves -------------------------------------------------------------------------------------
  static OCTET_INLINE I load_halves(const void* low, const void* high) {
    const __m128i half = _mm_loadu_si128(static_cast<const __m128i*>(low));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(half),
                                   _mm_loadu_si128(static_cast<const __m128i*>(high)), 1);
  }
  static OCTET_INLINE I join_halves(I a, I b) {  // a's high one, then b's low one
    return _mm256_permute2x128_si256(a, b, 0x21);
  }

  // -- reductions ---------------------------------------------------------------------------------
  static OCTET_INLINE I sum_bytes(I sum, I x) {
    return _mm256_add_epi64(sum, _mm256_sad_epu8(x, zero()));
  }
  static OCTET_INLINE int64_t total64(I x) {
    alignas(32) int64_t v[4];
    _mm256_store_si256(reinterpret_cast<I*>(v), x);
    return v[0] + v[1] + v[2] + v[3];
  }
  static OCTET_INLINE float least(F x) {
    alignas(32) float v[8];
    _mm256_store_ps(v, x);
    float result = v[0];
    for (int i = 1; i < 8; ++i) result = v[i] < result ? v[i] : result;
    return result;
  }
  static OCTET_INLINE float greatest(F x) {
    alignas(32) float v[8];
    _mm256_store_ps(v, x);
    float result = v[0];
    for (int i = 1; i < 8; ++i) result = v[i] > result ? v[i] : result;
    return result;
  }
};

}  // namespace
}  // namespace octet::kernels
