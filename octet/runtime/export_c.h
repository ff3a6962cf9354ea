#pragma once
// A network as C source: whole numbers only, no library, no memory but what it is given.

#include <map>
#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::runtime {

struct CSource {
  std::map<std::string, std::string> files;  // by name: NAME.h, NAME.c, octet_runtime.h, ...c
  size_t arena_bytes = 0;                    // memory for values between the layers
  size_t constant_bytes = 0;                 // weights, biases, multipliers and tables
  // What the caller does: how inputs are quantized, what the results are, and float operators in
  // front of the first codes or behind the last ones, which are left out. A line each.
  std::vector<std::string> notes;
};

// The part of a quantized network that computes with codes, for one sample (symbolic batch
// dimensions become 1), as C99 that includes <stdint.h> only: a function `void NAME_run(const
// uint8_t* input, ..., uint8_t* output, ..., uint8_t* arena)`. Inputs and outputs are codes,
// row-major; NAME.h says their sizes, scales and zero points. The results are those of the network
// in octet, to the bit: float32 multiplications are done with integers that round alike. Operators:
// conv2d (of 2-d images, with groups), linear, add, sub, mul, max_pool2d, avg_pool2d, adaptive
// pools to one place, mean over an image, functions of one code, requantize, cat, and what moves
// elements: reshape, flatten, permute, slice, split ... Errors: invalid_argument for a name that is
// no C identifier, open sizes, or a network without codes; unsupported naming every other operator
// on codes, and float operators between codes.
CSource export_c(const graph::Graph& graph, const std::string& name);

}  // namespace octet::runtime
