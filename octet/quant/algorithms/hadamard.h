#pragma once
// Rotations that spread a few large features over all (S. Ashkboos et al., "QuaRot: Outlier-Free
// 4-Bit Inference in Rotated LLMs", 2024; Z. Liu et al., "SpinQuant: LLM Quantization with Learned
// Rotations", 2024), where they cost nothing when the network runs.
//
//   graph::Graph rotated = quant::hadamard_rotation(float_graph);
//   auto prepared = quant::prepare_fx(rotated, quant::get_default_qconfig());

#include <cstdint>
#include <string>
#include <vector>

#include "octet/graph/graph.h"

namespace octet::quant {

// Each value x that a linear layer without an activation computes, and that linear layers alone
// read, becomes R x: the weight and bias of the first become R W and R b, the weights of those that
// read it W R^T, which is the same function up to rounding, because R R^T = 1. R is Sylvester's
// Hadamard matrix over sqrt(n) for n features, a power of two; for other numbers of features a
// block-diagonal matrix of such, each of the largest power of two that divides n. Nothing is done
// for an odd n. All weights and biases must be constants of their own. `rotated`: the names of
// these values.
graph::Graph hadamard_rotation(const graph::Graph& graph,
                               std::vector<std::string>* rotated = nullptr);

// Each block of `block` numbers (a power of two; Error else) of each row of x (rows, n), float32,
// times Sylvester's Hadamard matrix over sqrt(block), in n log(block) steps for a row. n is a
// multiple of block.
Tensor hadamard_rows(const Tensor& x, int64_t block);

}  // namespace octet::quant
