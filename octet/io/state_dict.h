#pragma once
// State dicts as files: safetensors, which any machine-learning tool reads and writes.
//
//   save_state_dict("model.safetensors", model->state_dict());
//   other->load_state_dict(load_state_dict("model.safetensors"));
//
// A quantized tensor `conv.weight` is stored as its codes (I8, U8 or I32; of 4 bits two to a byte)
// beside `conv.weight.scale` and `conv.weight.zero_point`; the metadata entry "octet.state" says
// what belongs together (docs/file-format.md).

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "octet/tensor/tensor.h"

namespace octet {

// Writes atomically: path holds the whole new file or what it held before. Errors: invalid_argument
// for an undefined tensor and for names that are not UTF-8; io.
void save_state_dict(const std::filesystem::path& path, const std::map<std::string, Tensor>& state);

// The tensors of a safetensors file of any tool, or of a model written by save_model; those that
// octet wrote have their dtype, scales and zero points again. They lie in the mapped file
// (read_safetensors) and may be written to. What is unusual about the file is added to `notes`, a
// line each: it is of an older octet, without checksums. Errors: not_found, io; corrupt, naming
// file and field; unsupported for files of a newer octet.
std::map<std::string, Tensor> load_state_dict(const std::filesystem::path& path,
                                              std::vector<std::string>* notes = nullptr);

}  // namespace octet
