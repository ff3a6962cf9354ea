#pragma once
// .octet files: a graph with all its types and weights, in one safetensors file (any safetensors
// reader opens the weights). The typed graph is JSON in the metadata entry "octet.graph";
// docs/file-format.md describes it.

#include <filesystem>
#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::io {

// Writes atomically: path holds the whole new file or what it held before. Quantized constants are
// stored as codes (`conv.weight`, int8) beside their qparams: `conv.weight.scale`, float32 or where
// that would round float64, and `conv.weight.zero_point`, int32 or where that is too small int64.
// Errors: io; invalid_argument for text that is not UTF-8.
void save_octet(const graph::Graph& graph, const std::filesystem::path& path);

// Reads it back: the same graph, print() gives the same text. Weights stay in the mapped file until
// they are touched. What is unusual about the file is added to `notes`, a line each: it is of an
// older octet, without checksums. Errors: not_found, io; corrupt naming file and field for anything
// damaged, unknown or inconsistent; unsupported for a newer format version.
graph::Graph load_octet(const std::filesystem::path& path,
                        std::vector<std::string>* notes = nullptr);

}  // namespace octet::io
