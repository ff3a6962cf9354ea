#pragma once
// Whole models as .octet files: the tree of modules with all its state. Float, prepared, in
// training, quantized.
//
//   OCTET_MODULE(Net)  // nn/registry.h; octet's own classes are registered
//
//   save_model("net.octet", *int8);
//   std::shared_ptr<Net> again = load_model<Net>("net.octet");
//
// Saved are, of each module: its class, config(), mode, parameters, buffers and extra state, which
// parameters are trained, its submodules, its qconfig and what prepare() did to it. Hooks that
// users add are code, and are not saved. What is shared (a module in two places, a tensor of two
// modules) is stored once and shared again. docs/file-format.md has the format.

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "octet/nn/module.h"

namespace octet {

// Writes atomically: path holds the whole new file or what it held before. Errors: unsupported for
// a class that is not registered, naming it and OCTET_MODULE; invalid_argument for a qconfig that
// is none and for text that is not UTF-8; io.
void save_model(const std::filesystem::path& path, const nn::Module& model);

// The model again. Each module is made by its class (from_config with its config(), or the default
// constructor); then every place gets the submodule of the file: the one that the constructor made
// if that has the same class and config, else a new one. Tensors lie in the mapped file and may be
// written to. What is unusual about the file is added to `notes`, a line each: it is of an older
// octet, without checksums. Errors: not_found for a file, or a class that this program does not
// have; unsupported for a newer format; corrupt, naming file, module and field, for anything
// damaged or that does not fit the classes: a submodule or tensor that a class makes and the file
// does not have, a parameter of another shape. (A file can be so damaged that it asks for a layer
// larger than memory.)
nn::ModulePtr load_model(const std::filesystem::path& path,
                         std::vector<std::string>* notes = nullptr);

// The same as an M; Error if the model is of another class.
template <typename M>
std::shared_ptr<M> load_model(const std::filesystem::path& path,
                              std::vector<std::string>* notes = nullptr) {
  nn::ModulePtr model = load_model(path, notes);
  model->as<M>();
  return std::static_pointer_cast<M>(model);
}

namespace io {

// Does the file hold a model of modules, as opposed to a graph (load_octet)? Errors as
// read_safetensors.
bool is_model_file(const std::filesystem::path& path);

// The model as nn::to_string prints it, from the file alone: its classes need not be in this
// program. Errors as load_model.
std::string describe_model(const std::filesystem::path& path);

}  // namespace io
}  // namespace octet
