#pragma once
// What the files of state dicts and of whole models share.

#include "octet/io/safetensors.h"

namespace octet::io {

// save_state_dict with more metadata.
void write_state(const std::filesystem::path& path, const std::map<std::string, Tensor>& state,
                 std::map<std::string, std::string> metadata);
// The tensors of a file that was read, quantized ones put together; `path` is for errors, `notes`
// as load_state_dict.
std::map<std::string, Tensor> state_of(SafetensorsFile file, const std::string& path,
                                       std::vector<std::string>* notes);

// The tensor in a dtype of half the size where that loses nothing.
Tensor smaller(const Tensor& t, DType dtype);

}  // namespace octet::io
