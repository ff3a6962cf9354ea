#pragma once
// Safetensors files: named tensors and a map of strings, in a format any machine-learning tool
// reads (https://github.com/huggingface/safetensors#format): 8 bytes of header length, a JSON
// header, the data.
//
// Plain dtypes only: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL. What a quantized tensor means is
// stored by the floor above.

#include <filesystem>
#include <map>
#include <string>

#include "octet/tensor/tensor.h"

namespace octet {

struct SafetensorsFile {
  std::map<std::string, Tensor> tensors;
  std::map<std::string, std::string> metadata;  // "__metadata__", without the checksums
  bool has_checksums = false;                   // and they were right
};

// Opens a file without copying the data: it is mapped, and tensors lie in the mapping where their
// offset is a multiple of the element size (always so in files that octet wrote), in copies
// otherwise. Mapped tensors keep the mapping alive and may be written to without changing the file
// (see MappedFile). Files that octet wrote carry checksums of the header and of every tensor
// (docs/file-format.md), which are compared here. Errors: not_found, io as MappedFile::open;
// corrupt, naming file and field, for a checksum that does not fit and for whatever the format
// forbids: a header that is longer than the file or 100 MB or is not the right JSON
// (base/json_impl.h), unknown dtypes, shapes that do not match their offsets, names that occur
// twice, tensors that overlap, leave holes or reach beyond the end, bools other than 0 and 1.
SafetensorsFile read_safetensors(const std::filesystem::path& path);

// Only the header's "__metadata__"; of the checksums only the header's is compared. Errors as
// read_safetensors.
std::map<std::string, std::string> read_safetensors_metadata(const std::filesystem::path& path);

// Writes atomically, with checksums. The format allows no holes, so tensors are ordered such that
// each starts at a multiple of its element size, and of 64 where its size in bytes is a multiple
// of 64. Strided tensors are written row-major. The bytes depend on the tensors and the metadata
// alone. Errors: invalid_argument for quantized tensors, for names or metadata that are not UTF-8,
// for a tensor called "__metadata__", metadata called "octet.checksum.*" and for headers beyond 100
// MB; io.
void write_safetensors(const std::filesystem::path& path,
                       const std::map<std::string, Tensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

}  // namespace octet
