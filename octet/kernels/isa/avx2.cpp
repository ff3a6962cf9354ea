// 256-bit vectors, AVX2 alone.

#include "octet/kernels/isa/tables_impl.h"
#include "octet/kernels/simd256_impl.h"
#include "octet/kernels/table_impl.h"

namespace octet::kernels {
namespace {

// The dot product of four bytes without VNNI. vpmaddubsw would be the short way, but it saturates:
// 255 * 127 * 2 does not fit in 16 bits. So both sides are widened to 16 bits and vpmaddwd adds
// pairs of products in 32, exactly: in two halves, first the bytes of even position, then those of
// odd, because masking and shifting then widen the activations without a shuffle. Weights are
// packed widened, the even half first.
struct Madd {
  using V = Simd256;
  // 8 accumulators, 2 vectors of weights, 1 of activations, its mask, 1 product
  static constexpr int kRows = 4;
  static constexpr int kHalves = 2;
  static constexpr int kVectorBytes = 64;
  static constexpr bool kManyRegisters = false;

  template <int kHalf>
  static OCTET_INLINE __m256i half(__m256i x) {
    return kHalf == 0 ? _mm256_and_si256(x, _mm256_set1_epi16(0xff)) : _mm256_srli_epi16(x, 8);
  }
  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(x, w));
    // Or GCC regroups the sums to add products to products first, and has to spill them.
    asm("" : "+x"(acc));
    return acc;
  }
  static OCTET_INLINE void put(char* vector, int lane, const int8_t (&quad)[4]) {
    const int16_t even[2] = {quad[0], quad[2]}, odd[2] = {quad[1], quad[3]};
    __builtin_memcpy(vector + 4 * lane, even, 4);
    __builtin_memcpy(vector + 32 + 4 * lane, odd, 4);
  }
  // of lanes lane..lane + 4
  static OCTET_INLINE void put_four(char* vector, int lane, __m128i quads) {
    const auto store = [&](char* to, __m128i x) OCTET_INLINE_LAMBDA {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to), x);
    };
    store(vector + 4 * lane, _mm_srai_epi16(_mm_slli_epi16(quads, 8), 8));
    store(vector + 32 + 4 * lane, _mm_srai_epi16(quads, 8));
  }
};

// The same for weights of 4 bits, 0..15: sums of two products stay below 2^15 (2 * 255 * 15), so
// vpmaddubsw is exact.
struct MaddNibbles {
  using V = Simd256;
  static constexpr int kRows = Madd::kRows;
  static constexpr int kHalves = 1;

  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    return _mm256_add_epi32(acc,
                            _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
  }
};

}  // namespace

constinit const KernelTable avx2_table = make_table<Madd, Madd, MaddNibbles>(Isa::avx2);

}  // namespace octet::kernels
