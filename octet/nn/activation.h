#pragma once
// Activations. Names and arguments are torch.nn's. Each works on quantized tensors too, as its
// operator does (docs/operators.md).

#include <string>

#include "octet/base/type_list.h"
#include "octet/nn/module.h"

namespace octet::nn {

// An activation that is one operator with attributes.
class Activation : public Module {
 public:
  Tensor forward(Tensor x) override;
  virtual const char* op_name() const = 0;
  virtual Attrs op_attrs() const { return {}; }
  Attrs config() const override;
  // "negative_slope=0.01": the attributes, as Python writes them
  std::string extra_repr() const override;
};

class ReLU : public Activation {
 public:
  const char* op_name() const override { return "relu"; }
};
class ReLU6 : public Activation {
 public:
  const char* op_name() const override { return "relu6"; }
};
class Sigmoid : public Activation {
 public:
  const char* op_name() const override { return "sigmoid"; }
};
class Tanh : public Activation {
 public:
  const char* op_name() const override { return "tanh"; }
};
class Hardsigmoid : public Activation {
 public:
  const char* op_name() const override { return "hardsigmoid"; }
};
class Hardswish : public Activation {
 public:
  const char* op_name() const override { return "hardswish"; }
};

class LeakyReLU : public Activation {
 public:
  explicit LeakyReLU(double negative_slope = 0.01) : negative_slope(negative_slope) {}
  const char* op_name() const override { return "leaky_relu"; }
  Attrs op_attrs() const override;
  static std::shared_ptr<LeakyReLU> from_config(const Attrs& c);
  double negative_slope;
};

class ELU : public Activation {
 public:
  explicit ELU(double alpha = 1) : alpha(alpha) {}
  const char* op_name() const override { return "elu"; }
  Attrs op_attrs() const override;
  static std::shared_ptr<ELU> from_config(const Attrs& c);
  double alpha;
};

class CELU : public Activation {
 public:
  explicit CELU(double alpha = 1) : alpha(alpha) {}
  const char* op_name() const override { return "celu"; }
  Attrs op_attrs() const override;
  static std::shared_ptr<CELU> from_config(const Attrs& c);
  double alpha;
};

// approximate: "none" or "tanh".
class GELU : public Activation {
 public:
  explicit GELU(std::string approximate = "none") : approximate(std::move(approximate)) {}
  const char* op_name() const override { return "gelu"; }
  Attrs op_attrs() const override;
  static std::shared_ptr<GELU> from_config(const Attrs& c);
  std::string approximate;
};

class Hardtanh : public Activation {
 public:
  explicit Hardtanh(double min_val = -1, double max_val = 1) : min_val(min_val), max_val(max_val) {}
  const char* op_name() const override { return "clamp"; }
  Attrs op_attrs() const override;
  std::string extra_repr() const override;
  static std::shared_ptr<Hardtanh> from_config(const Attrs& c);
  double min_val, max_val;
};

class Softmax : public Activation {
 public:
  explicit Softmax(int64_t dim = -1) : dim(dim) {}
  const char* op_name() const override { return "softmax"; }
  Attrs op_attrs() const override;
  static std::shared_ptr<Softmax> from_config(const Attrs& c);
  int64_t dim;
};

class LogSoftmax : public Activation {
 public:
  explicit LogSoftmax(int64_t dim = -1) : dim(dim) {}
  const char* op_name() const override { return "log_softmax"; }
  Attrs op_attrs() const override;
  static std::shared_ptr<LogSoftmax> from_config(const Attrs& c);
  int64_t dim;
};

// log(1 + exp(beta*x)) / beta; x itself where beta*x > threshold.
class Softplus : public Activation {
 public:
  explicit Softplus(double beta = 1, double threshold = 20) : beta(beta), threshold(threshold) {}
  const char* op_name() const override { return "softplus"; }
  Attrs op_attrs() const override;
  std::string extra_repr() const override;
  static std::shared_ptr<Softplus> from_config(const Attrs& c);
  double beta, threshold;
};

class SELU : public Activation {
 public:
  const char* op_name() const override { return "selu"; }
};
class Softsign : public Activation {
 public:
  const char* op_name() const override { return "softsign"; }
};
// x * tanh(log(1 + exp(x))).
class Mish : public Activation {
 public:
  const char* op_name() const override { return "mish"; }
};

// x * sigmoid(x).
class SiLU : public Activation {
 public:
  const char* op_name() const override { return "silu"; }
};

// Slopes for the negative side, one for all or one per channel (dimension 1).
class PReLU : public Module {
 public:
  explicit PReLU(int64_t num_parameters = 1, double init = 0.25);
  Tensor forward(Tensor x) override;
  std::string extra_repr() const override;
  Attrs config() const override;
  static std::shared_ptr<PReLU> from_config(const Attrs& c);
  Parameter weight;  // (num_parameters)
};

// The activations above that are one operator, by what quantizing them does: those that cut codes
// off, and those whose results have qparams of their own. Registration, quantized forms
// (nn::quantized::WithQParams) and backends are made from these lists.
using Clamps = TypeList<ReLU, ReLU6, Hardtanh>;
using Activations = TypeList<Sigmoid, Tanh, Hardsigmoid, Hardswish, LeakyReLU, ELU, CELU, GELU,
                             Softmax, LogSoftmax, Softplus, SELU, Softsign, Mish, SiLU>;

// The operator that a class of this header or of pooling.h is, by the class's name: "gelu" of
// "GELU"; "" for others.
std::string operator_of(const std::string& class_name);

// Whether a class of this header, by its name, is a function of one number that is applied to each
// element and whose results have a range of their own: GELU, SiLU; not Softmax, ReLU.
bool is_scalar_function(const std::string& class_name);

}  // namespace octet::nn
