#pragma once
// State dicts as files: safetensors, which any machine-learning tool reads and writes. Read are
// also those that PyTorch saved.
//
//   save_state_dict("model.safetensors", model->state_dict());
//   other->load_state_dict(load_state_dict("model.safetensors"));
//   model->load_state_dict(load_state_dict("resnet18.pth"));
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

// The tensors of a file, by what it holds and not by its name: safetensors of any tool, or of a
// model written by save_model; what torch.save wrote (read_pytorch); an index of shards
// (model.safetensors.index.json); or of a directory that holds one of these (docs/file-format.md).
// Those that octet wrote have their dtype, scales and zero points again. Tensors lie in the mapped
// files (read_safetensors) and may be written to. What is unusual about the file is added to
// `notes`, a line each: it is of an older octet, without checksums; what was passed over. `key`
// names the state dict in a checkpoint of PyTorch. Errors: not_found, io; corrupt, naming file and
// field; unsupported for files of a newer octet; invalid_argument for a key where there are none;
// those of read_pytorch; of shards one that names every shard and tensor that is missing.
std::map<std::string, Tensor> load_state_dict(const std::filesystem::path& path,
                                              std::vector<std::string>* notes = nullptr,
                                              const std::string& key = "");

}  // namespace octet
