// 512-bit vectors: AVX-512 F, BW, VL, DQ and VNNI.

// GCC 12's AVX-512 headers start "undefined" vectors from themselves and warn about it (GCC bug
// 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"

#include "octet/kernels/isa/tables_impl.h"
#include "octet/kernels/simd256_impl.h"
#include "octet/kernels/simd512_impl.h"
#include "octet/kernels/table_impl.h"

namespace octet::kernels {
namespace {

// acc[lane] += sum over i < 4 of x[lane][i] * w[lane][i], unsigned times signed, exactly: vpdpbusd.
struct Vnni512 : NoHeader {
  using V = Simd512;
  static constexpr int kRows = 12;  // 24 accumulators, 2 vectors of weights, 1 of activations
  static constexpr int kHalves = 1;
  static constexpr int kVectorBytes = 64;
  static constexpr bool kManyRegisters = true;

  template <int>
  static OCTET_INLINE __m512i half(__m512i x) {
    return x;
  }
  static OCTET_INLINE __m512i dot(__m512i acc, __m512i x, __m512i w) {
    return _mm512_dpbusd_epi32(acc, x, w);
  }
  static OCTET_INLINE void put(char* vector, int lane, const int8_t (&quad)[4]) {
    __builtin_memcpy(vector + 4 * lane, quad, 4);
  }
  static OCTET_INLINE void put_four(char* vector, int lane, __m128i quads) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(vector + 4 * lane), quads);
  }
};

// The same in 256 bits, for depthwise blocks of at most 32 channels.
struct Vnni256 {
  struct V : Simd256 {  // with the masks that AVX2 lacks
    static OCTET_INLINE void store_bytes(void* p, I x, int64_t n) {
      _mm256_mask_storeu_epi8(p, static_cast<__mmask32>(Simd512::first_bytes(n)), x);
    }
  };
  static constexpr int kHalves = 1;
  static constexpr int kVectorBytes = 32;
  static constexpr bool kManyRegisters = true;

  template <int>
  static OCTET_INLINE __m256i half(__m256i x) {
    return x;
  }
  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    return _mm256_dpbusd_epi32(acc, x, w);
  }
  static OCTET_INLINE void put(char* vector, int lane, const int8_t (&quad)[4]) {
    __builtin_memcpy(vector + 4 * lane, quad, 4);
  }
};

// acc[lane] += sum over i < 2 of x[lane][i] * w[lane][i], of 16 bits: vpdpwssd.
struct Vnni512Words : Vnni512 {
  static OCTET_INLINE __m512i dot(__m512i acc, __m512i x, __m512i w) {
    return _mm512_dpwssd_epi32(acc, x, w);
  }
};

}  // namespace

constinit const KernelTable avx512vnni_table =
    with_winograd<Vnni512Words>(make_table<Vnni512, Vnni256>(Isa::avx512vnni),
                                {.product = 2.2, .weight_byte = 8, .x = 300, .y = 550},
                                {.product = 3.2, .weight_byte = 28, .x = 110, .y = 210});

}  // namespace octet::kernels
