#pragma once
// What the files of state dicts and of whole models share, and the parts of load_state_dict.

#include <string_view>
#include <vector>

#include "octet/io/safetensors.h"

namespace octet::io {

// save_state_dict with more metadata.
void write_state(const std::filesystem::path& path, const std::map<std::string, Tensor>& state,
                 std::map<std::string, std::string> metadata);
// The tensors of a file that was read, quantized ones put together; `path` is for errors, `notes`
// as load_state_dict.
std::map<std::string, Tensor> state_of(SafetensorsFile file, const std::string& path,
                                       std::vector<std::string>* notes);

// One file of safetensors or of PyTorch: load_state_dict without shards.
std::map<std::string, Tensor> load_state_file(const std::filesystem::path& path,
                                              const std::string& key,
                                              std::vector<std::string>* notes);

// Whether a file that starts with these bytes is JSON, as an index of shards, and no safetensors.
bool is_json(std::string_view bytes);
// The tensors of all shards that an index names.
std::map<std::string, Tensor> load_index(const std::filesystem::path& path, const std::string& key,
                                         std::vector<std::string>* notes);
// The tensors of a directory.
std::map<std::string, Tensor> load_directory(const std::filesystem::path& path,
                                             const std::string& key,
                                             std::vector<std::string>* notes);

// Whether a name from a file has no control characters, so that an error may quote it.
bool is_one_line(std::string_view name);

// "a, b, c and 12 more": the first twenty names, for errors and notes.
std::string listed(const std::vector<std::string>& names);

// The tensor in a dtype of half the size where that loses nothing.
Tensor smaller(const Tensor& t, DType dtype);

}  // namespace octet::io
