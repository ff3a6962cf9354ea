#pragma once
// The models of scripts/oracle/eager.py and qat.py, and what their tests share (golden_models.cpp,
// compiled once for all of them).

#include <string>

#include "octet/nn/module.h"
#include "octet/tensor/tensor.h"
#include "tests/quant/golden_modules.h"

namespace octet::testing::models {

nn::ModulePtr make_model(const std::string& name);

// tensor() of scripts/oracle/eager.py.
Tensor make_tensor(const std::string& how, uint64_t seed, const Shape& shape, double size,
                   double offset);

// Sets the parameters that a case lists: [name, how, seed, size, offset].
void fill(nn::Module& model, const json& parameters);

// FNV-1a, 64 bits, over the codes.
std::string hash_of_codes(const Tensor& y);

// batch() of scripts/oracle/eager.py.
Tensor batch(const json& c, int index);

// Weights bit for bit; scales and zero points so too, or (where calibration sums floats in another
// order) up to the rounding of float32. Then PyTorch's qparams are put in.
void expect_qparams(const json& c, nn::Module& int8);

// Every module's codes, and the model's output. steps > 0: each module is then given PyTorch's
// inputs, so that steps do not add up.
void expect_outputs(const json& c, nn::Module& int8);

}  // namespace octet::testing::models
