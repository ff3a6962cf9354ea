// 256-bit vectors: AVX2 and AVX-VNNI.

#include "octet/kernels/isa/tables_impl.h"
#include "octet/kernels/simd256_impl.h"
#include "octet/kernels/table_impl.h"

namespace octet::kernels {
namespace {

// acc[lane] += sum over i < 4 of x[lane][i] * w[lane][i], unsigned times signed, exactly: vpdpbusd.
struct AvxVnni : NoHeader {
  using V = Simd256;
  // 12 accumulators, 2 vectors of weights, 1 of activations: 15 of 16 registers
  static constexpr int kRows = 6;
  static constexpr int kHalves = 1;
  static constexpr int kVectorBytes = 32;
  static constexpr bool kManyRegisters = false;

  template <int>
  static OCTET_INLINE __m256i half(__m256i x) {
    return x;
  }
  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    return _mm256_dpbusd_avx_epi32(acc, x, w);
  }
  static OCTET_INLINE void put(char* vector, int lane, const int8_t (&quad)[4]) {
    __builtin_memcpy(vector + 4 * lane, quad, 4);
  }
  static OCTET_INLINE void put_four(char* vector, int lane, __m128i quads) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(vector + 4 * lane), quads);
  }
};

// acc[lane] += sum over i < 2 of x[lane][i] * w[lane][i], of 16 bits: vpdpwssd.
struct AvxVnniWords : AvxVnni {
  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    return _mm256_dpwssd_avx_epi32(acc, x, w);
  }
};

}  // namespace

// On Zen 5.
constinit const KernelTable avxvnni_table =
    with_winograd<AvxVnniWords>(make_table<AvxVnni, AvxVnni>(Isa::avxvnni),
                                {.product = 3, .weight_byte = 8.9, .x = 70, .y = 120});

}  // namespace octet::kernels
