#pragma once
// Weights that PyTorch saved (torch.save): .pt, .pth, .bin. load_state_dict (io/state_dict.h) reads
// these and safetensors, by what a file holds.
//
// Such a file is a pickle, which in Python is a program and may do anything. Here it is data:
// nothing in it is ever run, and a class or function that is not one of those that weights need is
// an Error naming it.
//
// Read are PyTorch's zip archives (1.6 and later) and the files of before. A quantized tensor, per
// tensor or per channel, is one of octet's. docs/file-format.md says which part of a file is its
// state dict.

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "octet/tensor/tensor.h"

namespace octet {

// The tensors of the state dict that a file holds, under PyTorch's names. They lie in the mapped
// file where its data is stored and aligned (always so in files that PyTorch 1.6 or later wrote),
// in copies otherwise, and may be written to without changing the file; tensors that share memory
// in the file share it here, and keep their strides. `key` names the state dict among the entries
// of a checkpoint, e.g. "model_ema"; "": the one that docs/file-format.md's rule finds. What was
// passed over or renamed is added to `notes`, a line each. Errors: not_found for a file and a key;
// io; unsupported for what is no state dict (a whole module, a TorchScript archive, a class that is
// not known), for tensors of a kind that octet has none of (complex, sparse) and for what is beyond
// the limits; corrupt, naming file and tensor, for anything damaged.
std::map<std::string, Tensor> read_pytorch(const std::filesystem::path& path,
                                           const std::string& key = "",
                                           std::vector<std::string>* notes = nullptr);

}  // namespace octet
