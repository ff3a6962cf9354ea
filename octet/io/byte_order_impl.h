#pragma once
// The numbers of .octet, safetensors, .npz and ONNX files are little-endian. On a big-endian
// machine they are turned round when they are read and written; elsewhere nothing is done.

#include <algorithm>
#include <bit>
#include <cstddef>

#include "octet/tensor/tensor.h"

namespace octet::io {

inline constexpr bool kBigEndian = std::endian::native == std::endian::big;

// Reverses the bytes of each element of `size` bytes; `bytes` is a multiple of it.
inline void reverse_elements(void* data, size_t bytes, size_t size) {
  auto* at = static_cast<std::byte*>(data);
  for (size_t i = 0; i + size <= bytes; i += size) std::reverse(at + i, at + i + size);
}

// Elements as they lie in a file, made this machine's; or the other way round.
inline void little_endian(void* data, size_t bytes, size_t size) {
  if constexpr (kBigEndian)
    if (size > 1) reverse_elements(data, bytes, size);
}

// A row-major tensor whose bytes are those of a file: `t` itself where nothing is to be reversed.
inline Tensor in_file_order(const Tensor& t) {
  Tensor rows = t.contiguous();
  if (kBigEndian && element_size(t.dtype()) > 1) {
    rows = rows.clone();
    little_endian(rows.raw_data(), static_cast<size_t>(rows.nbytes()), element_size(t.dtype()));
  }
  return rows;
}

}  // namespace octet::io
