#pragma once
// A 512-bit vector of sixteen 32-bit lanes, as the kernel templates see it; simd256_impl.h is its
// twin of eight lanes with the same names. Included by isa/*.cpp only: the anonymous namespace
// gives every ISA its own copy, so that the linker never picks a wide copy for a narrow CPU.
//
// Codes leave through narrow4: four vectors of rounded int32 are packed to 16 bits, moved by the
// zero point, packed to bytes and clamped there, all with saturation. That is clamp(r + zero_point,
// lo, hi) for every int32 r, at a quarter of the clamps, and the packing puts 4 x kLanes codes in
// one vector.

#include <immintrin.h>

#include <cstdint>

#include "octet/kernels/codes_impl.h"

namespace octet::kernels {
namespace {

struct Simd512 {
  using I = __m512i;
  using F = __m512;
  static constexpr int kLanes = 16;
  static constexpr int kBytes = 64;
  // the same lanes for the compiler's operators; unsigned ones wrap
  using Halves = int16_t __attribute__((vector_size(64)));
  using Words = uint32_t __attribute__((vector_size(64)));
  using SignedWords = int32_t __attribute__((vector_size(64)));

  static OCTET_INLINE __mmask16 first(int64_t n) { return static_cast<__mmask16>((1u << n) - 1); }
  static OCTET_INLINE __mmask64 first_bytes(int64_t n) {
    return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1;
  }

  // -- loads; those with a count read no further and give 0 in the other lanes --------------------
  static OCTET_INLINE I zero() { return _mm512_setzero_si512(); }
  static OCTET_INLINE I set(int32_t x) { return _mm512_set1_epi32(x); }
  static OCTET_INLINE I set8(int x) { return _mm512_set1_epi8(static_cast<char>(x)); }
  static OCTET_INLINE I set16(int x) { return _mm512_set1_epi16(static_cast<short>(x)); }
  static OCTET_INLINE F set(float x) { return _mm512_set1_ps(x); }
  static OCTET_INLINE I load(const void* p) { return _mm512_loadu_si512(p); }
  static OCTET_INLINE I load_bytes(const void* p, int64_t n) {
    return _mm512_maskz_loadu_epi8(first_bytes(n), p);
  }
  static OCTET_INLINE I load_i32(const int32_t* p, int64_t n) {
    return _mm512_maskz_loadu_epi32(first(n), p);
  }
  static OCTET_INLINE F load_f32(const float* p) { return _mm512_loadu_ps(p); }
  static OCTET_INLINE F load_f32(const float* p, int64_t n) {
    return _mm512_maskz_loadu_ps(first(n), p);
  }
  static OCTET_INLINE I spread(const uint8_t* four) {  // 4 bytes, in every lane
    int32_t x;
    __builtin_memcpy(&x, four, 4);
    return set(x);
  }
  template <bool kSigned>
  static OCTET_INLINE I load_codes(const void* p) {  // kLanes bytes
    const __m128i x = _mm_loadu_si128(static_cast<const __m128i*>(p));
    return kSigned ? _mm512_cvtepi8_epi32(x) : _mm512_cvtepu8_epi32(x);
  }
  // 2 * kLanes bytes with `flip` xor-ed in, as signed numbers of 16 bits
  static OCTET_INLINE __m256i set_half8(int x) { return _mm256_set1_epi8(static_cast<char>(x)); }
  static OCTET_INLINE I widen_half(const void* p, __m256i flip) {
    const __m256i x = _mm256_loadu_si256(static_cast<const __m256i*>(p));
    return _mm512_cvtepi8_epi16(_mm256_xor_si256(x, flip));
  }
  static OCTET_INLINE I broadcast128(const void* p) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128(static_cast<const __m128i*>(p)));
  }

  // to[i] = of[i] < 0 ? pad : base + of[i], for i < n and i < 8; `to` has room for 8.
  static OCTET_INLINE void resolve(const int32_t* of, int64_t n, const uint8_t* base,
                                   const uint8_t* pad, const uint8_t** to) {
    const __m256i offsets =
        n >= 8 ? _mm256_loadu_si256(reinterpret_cast<const __m256i*>(of))
               : _mm256_maskz_loadu_epi32(static_cast<__mmask8>((1u << n) - 1), of);
    const I offset = _mm512_cvtepi32_epi64(offsets);
    const I inside = _mm512_add_epi64(offset, _mm512_set1_epi64(reinterpret_cast<int64_t>(base)));
    _mm512_storeu_si512(to, _mm512_mask_set1_epi64(inside, _mm512_movepi64_mask(offset),
                                                   reinterpret_cast<int64_t>(pad)));
  }

  // -- stores -------------------------------------------------------------------------------------
  static OCTET_INLINE void store(void* p, I x) { _mm512_storeu_si512(p, x); }
  static OCTET_INLINE void store_bytes(void* p, I x, int64_t n) {
    _mm512_mask_storeu_epi8(p, first_bytes(n), x);
  }
  static OCTET_INLINE void store_i32(int32_t* p, I x, int64_t n) {
    _mm512_mask_storeu_epi32(p, first(n), x);
  }
  static OCTET_INLINE void store_f32(float* p, F x) { _mm512_storeu_ps(p, x); }
  static OCTET_INLINE void store_f32(float* p, F x, int64_t n) {
    _mm512_mask_storeu_ps(p, first(n), x);
  }
  // The part-th half (kParts = 2) or quarter (4) of the bytes of x; with a count, the first n of
  // them.
  template <int kParts, int kPart>
  static OCTET_INLINE void store_part(void* p, I x) {
    if constexpr (kParts == 2) {
      _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_extracti64x4_epi64(x, kPart));
    } else {
      _mm_storeu_si128(static_cast<__m128i*>(p), _mm512_extracti32x4_epi32(x, kPart));
    }
  }
  template <int kParts, int kPart>
  static OCTET_INLINE void store_part(void* p, I x, int64_t n) {
    if constexpr (kParts == 2) {
      _mm256_mask_storeu_epi8(p, static_cast<__mmask32>(first_bytes(n)),
                              _mm512_extracti64x4_epi64(x, kPart));
    } else {
      _mm_mask_storeu_epi8(p, static_cast<__mmask16>(first_bytes(n)),
                           _mm512_extracti32x4_epi32(x, kPart));
    }
  }

  // -- arithmetic on 32-bit lanes -----------------------------------------------------------------
  static OCTET_INLINE I add(I a, I b) { return _mm512_add_epi32(a, b); }
  static OCTET_INLINE I sub(I a, I b) { return _mm512_sub_epi32(a, b); }
  static OCTET_INLINE I mul(I a, I b) { return _mm512_mullo_epi32(a, b); }
  static OCTET_INLINE F add(F a, F b) { return _mm512_add_ps(a, b); }
  static OCTET_INLINE F mul(F a, F b) { return _mm512_mul_ps(a, b); }
  static OCTET_INLINE F div(F a, F b) { return _mm512_div_ps(a, b); }
  // Keeps x in its register: GCC moves sums of a loop to others and back, an instruction for each.
  static OCTET_INLINE void keep(I& x) { asm("" : "+v"(x)); }
  // sum = a * b + sum, rounded once. In assembly, since GCC takes the form that overwrites a factor
  // as often as the one that overwrites the sum, and then runs out of registers.
  static OCTET_INLINE void add_product(F& sum, F a, F b) {
    asm("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  }
  static OCTET_INLINE F min(F a, F b) { return _mm512_min_ps(a, b); }  // b where either is NaN
  static OCTET_INLINE F max(F a, F b) { return _mm512_max_ps(a, b); }
  static OCTET_INLINE F to_float(I a) { return _mm512_cvtepi32_ps(a); }
  // rne(v), for narrow4: large v saturates somewhere above every code, small v and NaN give the
  // least int32.
  static OCTET_INLINE I round(F v) {
    return _mm512_cvtps_epi32(_mm512_min_ps(set(kAboveEveryCode), v));
  }
  // round() where v is known to fit
  static OCTET_INLINE I round_below_2_31(F v) { return _mm512_cvtps_epi32(v); }
  // in magnitude; NaN is not
  static OCTET_INLINE bool all_below_one(F v) {
    return _mm512_cmp_ps_mask(_mm512_abs_ps(v), set(1.0f), _CMP_NLT_UQ) == 0;
  }
  static OCTET_INLINE I round_or_zero(F v) {  // NaN gives 0
    const __mmask16 number = _mm512_cmp_ps_mask(v, v, _CMP_ORD_Q);
    return _mm512_cvtps_epi32(_mm512_maskz_min_ps(number, set(kAboveEveryCode), v));
  }
  // Adds 1 to the lanes of `count` where x is NaN or infinite.
  static OCTET_INLINE I count_not_finite(I count, F x) {
    const I exponent = set(0x7f800000);
    const __mmask16 bad =
        _mm512_cmpeq_epi32_mask(_mm512_and_si512(_mm512_castps_si512(x), exponent), exponent);
    return _mm512_mask_add_epi32(count, bad, count, set(1));
  }

  // -- bins ---------------------------------------------------------------------------------------
  static OCTET_INLINE bool within(F x, F lo, F hi) {  // every lane; NaN is not
    const __mmask16 above = _mm512_cmp_ps_mask(x, lo, _CMP_GE_OQ);
    return _mm512_mask_cmp_ps_mask(above, x, hi, _CMP_LE_OQ) == 0xffff;
  }
  static OCTET_INLINE I floor(F v) {  // INT_MIN where it does not fit
    return _mm512_cvt_roundps_epi32(v, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  }
  static OCTET_INLINE I minus_where_less(I k, F a, F b) {  // k - 1 where a < b
    return _mm512_mask_sub_epi32(k, _mm512_cmp_ps_mask(a, b, _CMP_LT_OQ), k, set(1));
  }
  // lanes that are those of `from` become those of `to`
  static OCTET_INLINE I replace(I x, I from, I to) {
    return _mm512_mask_mov_epi32(x, _mm512_cmpeq_epi32_mask(x, from), to);
  }

  // -- bytes --------------------------------------------------------------------------------------
  static OCTET_INLINE I bit_xor(I a, I b) { return _mm512_xor_si512(a, b); }
  static OCTET_INLINE I bit_and(I a, I b) { return _mm512_and_si512(a, b); }
  template <int kBits>
  static OCTET_INLINE I shift_right16(I x) {  // every 16 bits by themselves, zeros in
    return _mm512_srli_epi16(x, kBits);
  }
  static OCTET_INLINE I max_u8(I a, I b) { return _mm512_max_epu8(a, b); }
  static OCTET_INLINE I min_u8(I a, I b) { return _mm512_min_epu8(a, b); }
  static OCTET_INLINE I max_s8(I a, I b) { return _mm512_max_epi8(a, b); }
  static OCTET_INLINE I subs_s8(I a, I b) { return _mm512_subs_epi8(a, b); }
  // in each 128 bits
  static OCTET_INLINE I shuffle(I table, I index) { return _mm512_shuffle_epi8(table, index); }
  static OCTET_INLINE I packs32(I a, I b) { return _mm512_packs_epi32(a, b); }
  static OCTET_INLINE I packus16(I a, I b) { return _mm512_packus_epi16(a, b); }
  static OCTET_INLINE I adds16(I a, I b) { return _mm512_adds_epi16(a, b); }
  static OCTET_INLINE I unpacklo8(I a, I b) { return _mm512_unpacklo_epi8(a, b); }
  static OCTET_INLINE I unpackhi8(I a, I b) { return _mm512_unpackhi_epi8(a, b); }
  static OCTET_INLINE I unpacklo16(I a, I b) { return _mm512_unpacklo_epi16(a, b); }
  static OCTET_INLINE I unpackhi16(I a, I b) { return _mm512_unpackhi_epi16(a, b); }
  static OCTET_INLINE I unpacklo32(I a, I b) { return _mm512_unpacklo_epi32(a, b); }
  static OCTET_INLINE I unpackhi32(I a, I b) { return _mm512_unpackhi_epi32(a, b); }
  static OCTET_INLINE I unpacklo64(I a, I b) { return _mm512_unpacklo_epi64(a, b); }
  static OCTET_INLINE I unpackhi64(I a, I b) { return _mm512_unpackhi_epi64(a, b); }
  // Packing works inside 128 bits and leaves dword j of 128-bit group l as dword l of source vector
  // j: the transpose.
  static OCTET_INLINE I order_packed(I x) {
    const I order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    return _mm512_permutexvar_epi32(order, x);
  }
  // The first 12 bytes of every 128 bits, put together at the front.
  static OCTET_INLINE I join_12_bytes(I x) {
    const I order = _mm512_setr_epi32(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 0, 0, 0, 0);
    return _mm512_permutexvar_epi32(order, x);
  }
  // kBytes * 3 / 4 bytes.
  static OCTET_INLINE void store_three_quarters(void* p, I x) {
    _mm256_storeu_si256(static_cast<__m256i*>(p), _mm512_castsi512_si256(x));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(static_cast<char*>(p) + 32),
                     _mm512_extracti32x4_epi32(x, 2));
  }

  // -- halves -------------------------------------------------------------------------------------
  static OCTET_INLINE I load_halves(const void* low, const void* high) {
    const __m256i half = _mm256_loadu_si256(static_cast<const __m256i*>(low));
    return _mm512_inserti64x4(_mm512_castsi256_si512(half),
                              _mm256_loadu_si256(static_cast<const __m256i*>(high)), 1);
  }
  static OCTET_INLINE I join_halves(I a, I b) {  // a's high one, then b's low one
    return _mm512_alignr_epi64(b, a, 4);
  }

  // -- reductions ---------------------------------------------------------------------------------
  static OCTET_INLINE I sum_bytes(I sum, I x) {
    return _mm512_add_epi64(sum, _mm512_sad_epu8(x, zero()));
  }
  static OCTET_INLINE int64_t total64(I x) { return _mm512_reduce_add_epi64(x); }
  static OCTET_INLINE float least(F x) { return _mm512_reduce_min_ps(x); }
  static OCTET_INLINE float greatest(F x) { return _mm512_reduce_max_ps(x); }
};

}  // namespace
}  // namespace octet::kernels
