#pragma once
// Sixteen bytes in one vector register, on every architecture: what packing needs besides an
// instruction set's own vectors. The functions are named as in simd512_impl.h. Written with the
// vectors of GCC and clang, which both compile each function to one instruction.

#include <cstdint>

#include "octet/kernels/codes_impl.h"

namespace octet::kernels {
namespace {

struct Bytes16 {
  // The type behind __m128i of x86, so that the two convert.
  typedef long long I __attribute__((vector_size(16)));
  typedef int8_t Units8 __attribute__((vector_size(16)));
  typedef int16_t Units16 __attribute__((vector_size(16)));
  typedef int32_t Units32 __attribute__((vector_size(16)));

  static OCTET_INLINE I zero() { return I{}; }
  static OCTET_INLINE I set8(int x) { return (I)(Units8{} + static_cast<int8_t>(x)); }
  static OCTET_INLINE I load(const void* p) {
    I x;
    __builtin_memcpy(&x, p, sizeof x);
    return x;
  }
  static OCTET_INLINE I load_half(const void* p) {  // 8 bytes, and 8 zeros
    I x{};
    __builtin_memcpy(&x, p, sizeof x / 2);
    return x;
  }
  static OCTET_INLINE void store(void* p, I x) { __builtin_memcpy(p, &x, sizeof x); }

  static OCTET_INLINE I unpacklo8(I a, I b) {
    return (I)__builtin_shufflevector((Units8)a, (Units8)b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5,
                                      21, 6, 22, 7, 23);
  }
  static OCTET_INLINE I unpackhi8(I a, I b) {
    return (I)__builtin_shufflevector((Units8)a, (Units8)b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28,
                                      13, 29, 14, 30, 15, 31);
  }
  static OCTET_INLINE I unpacklo16(I a, I b) {
    return (I)__builtin_shufflevector((Units16)a, (Units16)b, 0, 8, 1, 9, 2, 10, 3, 11);
  }
  static OCTET_INLINE I unpackhi16(I a, I b) {
    return (I)__builtin_shufflevector((Units16)a, (Units16)b, 4, 12, 5, 13, 6, 14, 7, 15);
  }
  static OCTET_INLINE I unpacklo32(I a, I b) {
    return (I)__builtin_shufflevector((Units32)a, (Units32)b, 0, 4, 1, 5);
  }
  static OCTET_INLINE I unpackhi32(I a, I b) {
    return (I)__builtin_shufflevector((Units32)a, (Units32)b, 2, 6, 3, 7);
  }
  static OCTET_INLINE I unpacklo64(I a, I b) { return __builtin_shufflevector(a, b, 0, 2); }
  static OCTET_INLINE I unpackhi64(I a, I b) { return __builtin_shufflevector(a, b, 1, 3); }
};

}  // namespace
}  // namespace octet::kernels
