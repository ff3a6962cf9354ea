// 256-bit vectors, AVX2 alone.

#include "octet/kernels/isa/tables_impl.h"
#include "octet/kernels/simd256_impl.h"
#include "octet/kernels/split_gemm_impl.h"
#include "octet/kernels/table_impl.h"

namespace octet::kernels {
namespace {

// acc + x. In assembly, since GCC regroups such sums to add products to products first, and has to
// spill them; where an empty asm forbids that, it leaves the sum in another register and moves it
// back: 8 moves beside the 24 instructions of a step.
OCTET_INLINE __m256i sum(__m256i acc, __m256i x) {
  asm("vpaddd %1, %0, %0" : "+x"(acc) : "x"(x));
  return acc;
}

// The dot product of four bytes without VNNI, for weights of which each pair is safe
// (split_gemm_impl.h): vpmaddubsw adds two products in 16 bits, vpmaddwd two of these sums in 32.
struct MaddPairs {
  using V = Simd256;
  static constexpr int kRows = 4;
  static constexpr int kHalves = 1;
  static constexpr int kVectorBytes = 32;
  static constexpr bool kManyRegisters = false;
  static constexpr int64_t kHeaderBytes = kPanelHeader;
  static constexpr auto kForm = PanelHeader::split;
  static constexpr int64_t kTogether = 1;  // steps whose products are added in 16 bits
  static constexpr int64_t kMostEntries = 5;
  static constexpr int kSlots = 1;
  // An entry's weights, or its indices: a byte for each lane, and three zeros.
  static OCTET_INLINE __m256i slots(const char* p) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  }

  template <int>
  static OCTET_INLINE __m256i half(__m256i x) {
    return x;
  }
  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    return sum(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
  }
  // Bit 2i: the weights of one sign of the i-th pairs of two vectors add up to more than is safe.
  static OCTET_INLINE uint32_t unsafe(const int8_t* w, const int8_t* w2) {
    const __m256i a = V::load(w), b = V::load(w2), zero = _mm256_setzero_si256(),
                  ones = _mm256_set1_epi8(1), limit = _mm256_set1_epi16(kSumLimit);
    const auto sums = [&](__m256i x, __m256i y) OCTET_INLINE_LAMBDA {
      return _mm256_add_epi16(_mm256_maddubs_epi16(ones, x), _mm256_maddubs_epi16(ones, y));
    };
    const __m256i positive = sums(_mm256_max_epi8(a, zero), _mm256_max_epi8(b, zero)),
                  negative = sums(_mm256_min_epi8(a, zero), _mm256_min_epi8(b, zero));
    const __m256i above =
        _mm256_or_si256(_mm256_cmpgt_epi16(positive, limit),
                        _mm256_cmpgt_epi16(_mm256_sub_epi16(zero, negative), limit));
    return static_cast<uint32_t>(_mm256_movemask_epi8(above)) & 0x55555555u;
  }
  static OCTET_INLINE void put_header(char* panel, int vectors) {
    put_panel_header(panel, vectors, {});
  }
  static OCTET_INLINE void put(char* vector, int lane, const int8_t (&quad)[4]) {
    __builtin_memcpy(vector + 4 * lane, quad, 4);
  }
  static OCTET_INLINE void put_four(char* vector, int lane, __m128i quads) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(vector + 4 * lane), quads);
  }
};

// The same for weights of which both steps of two are safe together: four products are added in 16
// bits, which takes 5 instructions for 64 products where two steps by themselves take 6.
struct MaddTwoSteps : MaddPairs {
  static constexpr auto kForm = PanelHeader::split_by_two;
  static constexpr int64_t kTogether = 2;
  static constexpr int64_t kMostEntries = 7;
  static constexpr int kSlots = 4;
  static OCTET_INLINE __m256i slots(const char* p) { return V::load(p); }
  static OCTET_INLINE __m256i dot_two(__m256i acc, __m256i x, __m256i w, __m256i x2, __m256i w2) {
    const __m256i sums = _mm256_add_epi16(_mm256_maddubs_epi16(x, w), _mm256_maddubs_epi16(x2, w2));
    return sum(acc, _mm256_madd_epi16(sums, _mm256_set1_epi16(1)));
  }
};

// The same for all weights but -128: of x - 128 the absolute value, and its sign in the weight. No
// pair is too large: 2 * 128 * 127 < 2^15.
struct MaddSigned : MaddPairs {
  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    const __m256i centered = _mm256_xor_si256(x, _mm256_set1_epi8(-128));
    return MaddPairs::dot(acc, _mm256_abs_epi8(centered), _mm256_sign_epi8(w, centered));
  }
};

// The same for all weights: both sides are widened to 16 bits and vpmaddwd adds pairs of products
// in 32, in two halves, first the bytes of even position, then those of odd, because masking and
// shifting then widen the activations without a shuffle. Weights are packed widened, the even half
// first.
struct Madd {
  using V = Simd256;
  // 8 accumulators, 2 vectors of weights, 1 of activations, its mask, 1 product
  static constexpr int kRows = MaddPairs::kRows;
  static constexpr int kHalves = 2;
  static constexpr int kVectorBytes = 64;
  static constexpr bool kManyRegisters = false;
  static constexpr int64_t kHeaderBytes = kPanelHeader;

  template <int kHalf>
  static OCTET_INLINE __m256i half(__m256i x) {
    return kHalf == 0 ? _mm256_and_si256(x, _mm256_set1_epi16(0xff)) : _mm256_srli_epi16(x, 8);
  }
  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    acc = _mm256_add_epi32(acc, _mm256_madd_epi16(x, w));
    asm("" : "+x"(acc));  // as in sum(), which takes more instructions here
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

// The same of a product's panels, where the odd halves lie elsewhere (split_gemm_impl.h).
struct MaddWide : Madd {
  static constexpr int kVectorBytes = 32;
  static OCTET_INLINE void widen(const char* quads, char* even, char* odd) {
    const __m256i w = V::load(quads);
    V::store(even, _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8));
    V::store(odd, _mm256_srai_epi16(w, 8));
  }
};

// The same for weights of 4 bits, 0..15: sums of four products stay below 2^15 (4 * 255 * 15), so
// vpmaddubsw is exact and two of its results are added before they are widened.
struct MaddNibbles {
  using V = Simd256;
  static constexpr int kRows = Madd::kRows;
  static constexpr int kHalves = 1;

  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    return _mm256_add_epi32(acc,
                            _mm256_madd_epi16(_mm256_maddubs_epi16(x, w), _mm256_set1_epi16(1)));
  }
  static OCTET_INLINE __m256i dot_two(__m256i acc, __m256i x, __m256i w, __m256i x2, __m256i w2) {
    return MaddTwoSteps::dot_two(acc, x, w, x2, w2);
  }
};

// acc[lane] += sum over i < 2 of x[lane][i] * w[lane][i], of 16 bits; panels have no header.
struct MaddWords : MaddPairs {
  // 12 accumulators, 2 vectors of weights, 1 of activations, 1 product: all registers
  static constexpr int kRows = 6;
  static constexpr int64_t kHeaderBytes = 0;
  static OCTET_INLINE __m256i dot(__m256i acc, __m256i x, __m256i w) {
    return sum(acc, _mm256_madd_epi16(x, w));
  }
};

template <int kN>
struct Excess<MaddPairs, kN> : ExcessLists<MaddPairs, kN> {
  using ExcessLists<MaddPairs, kN>::ExcessLists;
};
template <int kN>
struct Excess<MaddTwoSteps, kN> : ExcessLists<MaddTwoSteps, kN> {
  using ExcessLists<MaddTwoSteps, kN>::ExcessLists;
};
template <int kN>
struct Excess<MaddSigned, kN> : SignedSums<MaddSigned, kN> {
  using SignedSums<MaddSigned, kN>::SignedSums;
};
template <int kN>
struct Excess<MaddWide, kN> : OddHalves<MaddWide, kN> {
  using OddHalves<MaddWide, kN>::OddHalves;
};

}  // namespace

constinit const KernelTable avx2_table = with_winograd<MaddWords>(
    make_table<Madd, Madd, MaddNibbles, SplitGemm<MaddPairs, MaddTwoSteps, MaddSigned, MaddWide>>(
        Isa::avx2),
    {.product = 1.7, .weight_byte = 3.7, .x = 180, .y = 350});

}  // namespace octet::kernels
