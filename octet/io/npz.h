#pragma once
// NumPy's files: .npy (one array) and .npz (a zip archive of them), read and written.
//
// Read: .npy versions 1 to 3, C and Fortran order, little endian; dtypes f4 f8 f2 i8 i4 i2 i1 u1
// b1, which become float32 float64 float16 int64 int32 int16 int8 uint8 bool. Anything else (big
// endian, u2 u4 u8, complex, strings, objects, structures) is an Error unsupported that names it.
// Archives: stored and deflated members, zip64, CRCs checked. More than 256 MiB of arrays in a file
// of less than a hundredth of that is an Error corrupt. Every array comes back row-major, in memory
// of its own.
//
// Errors, all octet::Error: not_found (no such file, no such array), io, unsupported, and corrupt
// for everything that is damaged, truncated or not of the format, naming the file, the array and
// the field.

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "octet/tensor/tensor.h"

namespace octet {

// One array of a .npz, as its header describes it.
struct NpzEntry {
  std::string name;  // without ".npy"
  DType dtype;
  Shape shape;
};

Tensor read_npy(const std::filesystem::path& path);
// What a .npy file holds, read from its header only; the name is "".
NpzEntry describe_npy(const std::filesystem::path& path);

// The arrays of an archive by name. If `wanted` is not empty only these are read, and each must be
// there. Members that are not .npy files are passed over; an archive with none at all is an Error.
std::map<std::string, Tensor> read_npz(const std::filesystem::path& path,
                                       const std::vector<std::string>& wanted = {});

// What an archive holds, in its order, read from the headers only.
std::vector<NpzEntry> list_npz(const std::filesystem::path& path);

// Write atomically (see write_file_atomically). Strided tensors are written row-major. Error
// invalid_argument for dtypes NumPy lacks: quantized ones (write int_repr() or dequantize()) and
// bfloat16 (write to(DType::float32)).
void write_npy(const std::filesystem::path& path, const Tensor& tensor);

// Arrays are stored, or deflated if `compress`. The bytes depend on the tensors alone: there are no
// time stamps. Error unsupported for archives of 4 GiB or more.
void write_npz(const std::filesystem::path& path, const std::map<std::string, Tensor>& tensors,
               bool compress = false);

}  // namespace octet
