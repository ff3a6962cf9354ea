#pragma once
// IDX: the format of MNIST's files: two zero bytes, a dtype, the rank, the sizes and the elements,
// all big-endian.

#include <filesystem>

#include "octet/tensor/tensor.h"

namespace octet {

// Whether a file begins as an IDX file does, or is compressed by gzip and does then. False if it
// cannot be read.
bool is_idx(const std::filesystem::path& path);

// Its array: uint8, int8, int16, int32, float32 or float64. Error not_found if there is no such
// file, corrupt (naming what is wrong) if it is not an IDX file or has another length than its
// sizes say.
Tensor read_idx(const std::filesystem::path& path);

}  // namespace octet
