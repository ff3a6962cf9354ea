#pragma once
// What quantized modules are made from: the observers of a prepared module, and the qparams they
// keep.

#include <functional>
#include <string>

#include "octet/nn/module.h"
#include "octet/ops/op.h"
#include "octet/quant/observe/qconfig.h"

namespace octet::quant {

// The name under which prepare() puts a module's observer or fake-quantize module.
inline constexpr const char* kActivationPostProcess = "activation_post_process";

// Does it quantize weights by rows with float zero points, as tables of embeddings are?
bool quantizes_rows(const QConfig& qconfig);

// The module's QConfig; null if it has none or is to stay float.
const QConfig* qconfig_of(const nn::Module& module);

// The qparams that the module's activation_post_process chose. Error naming the module if it has
// none, or if that saw no data.
QParams activation_qparams(const nn::Module& module);

// The qparams of a weight: of `fake_quantize` if it is given (shown the weight once more, as
// PyTorch does), else of a new observer of the QConfig. Per-channel observers run along
// `channel_axis`, whatever their ch_axis. Error if there is no QConfig with a weight observer.
QParams weight_qparams(const Tensor& weight, const nn::Module& module,
                       const nn::ModulePtr& fake_quantize, int64_t channel_axis);
// The weight quantized with them, or float16. Error for float zero points, which only tables of
// embeddings have.
Tensor quantize_weight(const Tensor& weight, const nn::Module& module,
                       const nn::ModulePtr& fake_quantize, int64_t channel_axis);

// x quantized with these qparams, within their codes, which may be fewer than the dtype's.
Tensor quantize_to(const Tensor& x, const QParams& qparams);

// The result type of a quantized module. Not every scale is a float32; the operator rounds it.
ops::QType result_type(double scale, int64_t zero_point, DType dtype);

// scale and zero_point as a module's extra state, and back (Error unless they are one finite
// positive scale and a zero point of the dtype).
void save_qparams(std::map<std::string, Tensor>& state, double scale, int64_t zero_point);
void load_qparams(const std::map<std::string, Tensor>& state, DType dtype, const std::string& who,
                  double& scale, int64_t& zero_point);

}  // namespace octet::quant
