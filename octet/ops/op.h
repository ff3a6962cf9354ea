#pragma once
// Every operator, once: its schema, type inference and evaluation, registered by one statement
// (OCTET_OP), and ops::call, the one door through which every operator call goes.

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "octet/autograd/autograd.h"
#include "octet/engine/engine.h"
#include "octet/tensor/attrs.h"
#include "octet/tensor/tensor.h"

namespace octet::ops {

// What an operator's result is to be quantized as. Asked for by the caller, as PyTorch's quantized
// ops take an output scale and zero point.
struct QType {
  DType dtype = DType::quint8;
  QuantizerPtr quantizer;
};

// What an operator does with qparams.
enum class QRule {
  float_only,  // no quantized form: operands must be float
  // float operand and result; the weights may be quantized: dynamic and weight-only layers,
  // embedding_bag
  weights,
  // works on codes; the result has its (first) operand's qparams: relu, max_pool2d, reshape, slice
  // ...
  same,
  // the result has qparams of its own, which the caller gives: conv2d, linear, add, cat ...
  own,
  // bounded range, fixed qparams unless the caller gives others: sigmoid, tanh, softmax
  fixed,
};

// What passes over graphs, engines and files ask about an operator besides its schema and QRule.
struct Traits {
  // Its results are elements of its operands, moved, repeated or left out: reshape, cat, slice. If
  // `reshapes`, row-major elements also stay in their order: reshape, flatten.
  bool moves = false, reshapes = false;
  // Its results are elements of its operand, found by comparing them: max_pool2d, amax.
  bool selects = false;
  // Cuts its operand's values to a range: relu, clamp.
  bool narrows = false;
  // Its results are means of whole images or dimensions: adaptive_avg_pool2d, mean.
  bool averages = false;
  // Its results depend on its operands' types only, not on what is in them: shape.
  bool of_types = false;
  // How large its results are depends on what is in its operands: nonzero.
  bool data_sized = false;
  // Its results range too widely for one scale of 8 bits: exp, div.
  bool wide_range = false;
  // Its quantized form computes in float between codes: softmax. Where no operator takes the codes
  // of its result, quantizing it saves nothing and costs precision.
  bool computes_in_float = false;
  // A transposed convolution: its weight is (in, out / groups, ...).
  bool transposed = false;
  // QRule::fixed: scale and zero point of quint8; the zero point of qint8 is 128 less.
  double fixed_scale = 0;
  int64_t fixed_zero_point = 0;
  // The ONNX operator that is the same, with the same operands and no attributes. Where the opset
  // that octet writes lacks it: what it is there, in terms of the operands' names:
  // "Mul(x, Tanh(Softplus(x)))".
  const char* onnx = nullptr;
  const char* onnx_form = nullptr;
  // For a layer whose weight alone is quantized: the layer in float, and how it computes.
  const char* layer = nullptr;
  WeightForm form = WeightForm::in_float;
};

class Op;

// A dimension that is not known before a call runs. A graph gives it a name of its own.
inline Dim unknown() { return Dim("?"); }

// What is known of operands that are integers before a call runs: by operand, its entries, some of
// them symbolic sizes or unknown(); nullopt where nothing is known. May be shorter than the
// operands.
using OperandSizes = std::vector<std::optional<std::vector<Dim>>>;

// The operands of a type inference: input types and attributes, by the names of the schema.
class Types {
 public:
  Types(const Op& op, const std::vector<std::optional<TensorType>>& inputs, const Attrs& attrs,
        const std::optional<QType>& want, const OperandSizes* sizes = nullptr)
      : op_(op), inputs_(inputs), attrs_(attrs), want_(want), sizes_(sizes) {}
  const Op& op() const { return op_; }
  size_t size() const { return inputs_.size(); }
  bool has(size_t i) const { return i < inputs_.size() && inputs_[i].has_value(); }
  const TensorType& operator[](size_t i) const;
  bool has(std::string_view name) const;
  const TensorType& operator[](std::string_view name) const;
  const Attrs& attrs() const { return attrs_; }
  const std::optional<QType>& want() const { return want_; }
  // The integers of an attribute, which an operand may give: then what is known of them (symbolic,
  // negative or unknown() entries), or nullopt.
  std::optional<std::vector<Dim>> sizes(const std::string& attr) const;
  // How many numbers the attribute has. Error if an operand gives it and its size is not known.
  int64_t count(const std::string& attr) const;
  // The result type with these dims: quantized as the operator's QRule and `want` say, else of
  // `float_dtype`.
  TensorType result(std::vector<Dim> dims, DType float_dtype = DType::float32) const;

 private:
  const Op& op_;
  const std::vector<std::optional<TensorType>>& inputs_;
  const Attrs& attrs_;
  const std::optional<QType>& want_;
  const OperandSizes* sizes_;
};

// The operands of an evaluation. Inputs that were omitted are undefined tensors.
class Call {
 public:
  Call(const Op& op, std::vector<Tensor> inputs, Attrs attrs, std::vector<TensorType> outputs)
      : op_(op),
        inputs_(std::move(inputs)),
        attrs_(std::move(attrs)),
        outputs_(std::move(outputs)) {}
  const Op& op() const { return op_; }
  const std::vector<Tensor>& inputs() const { return inputs_; }
  bool has(size_t i) const { return i < inputs_.size() && inputs_[i].defined(); }
  const Tensor& operator[](size_t i) const;
  bool has(std::string_view name) const;
  const Tensor& operator[](std::string_view name) const;
  const Attrs& attrs() const { return attrs_; }
  // concrete types of the results
  const std::vector<TensorType>& outputs() const { return outputs_; }

 private:
  const Op& op_;
  std::vector<Tensor> inputs_;
  Attrs attrs_;
  std::vector<TensorType> outputs_;
};

// What a gradient is computed from: the operands and results of a call, and the gradients of the
// results.
class Grad {
 public:
  Grad(const Call& call, const std::vector<Tensor>& outputs, const std::vector<Tensor>& dys,
       const std::vector<bool>& needs)
      : call_(call), outputs_(outputs), dys_(dys), needs_(needs) {}
  const Call& call() const { return call_; }
  const Attrs& attrs() const { return call_.attrs(); }
  size_t size() const { return call_.inputs().size(); }
  bool has(size_t i) const { return call_.has(i); }
  bool has(std::string_view name) const { return call_.has(name); }
  const Tensor& operator[](size_t i) const { return call_[i]; }
  const Tensor& operator[](std::string_view name) const { return call_[name]; }
  const Tensor& y(size_t i = 0) const { return outputs_.at(i); }
  // The gradient of result i; zeros if nothing depends on that result.
  Tensor dy(size_t i = 0) const;
  // Is operand i's gradient wanted?
  bool needs(size_t i) const { return i < needs_.size() && needs_[i]; }

 private:
  const Call& call_;
  const std::vector<Tensor>& outputs_;
  const std::vector<Tensor>& dys_;
  const std::vector<bool>& needs_;
};

using InferFn = std::function<std::vector<TensorType>(const Types&)>;
using EvalFn = std::function<std::vector<Tensor>(const Call&)>;

// The parts of an OCTET_OP statement; Traits is one, too.
struct Infer {
  InferFn fn;
};
struct Eval {
  EvalFn fn;
};
struct Quantized {
  EvalFn fn;
};
struct Gradient {
  std::function<std::vector<Tensor>(const Grad&)> fn;
};
struct Doc {
  const char* text;
};
// A function of one number. Makes f of the complete attributes, in float32: exactly what the float
// evaluation computes (unary.h).
struct Scalar {
  FloatFunction (*make)(const Attrs&);
};
inline Infer infer(InferFn fn) { return {std::move(fn)}; }
// For single results: the type, or the tensor.
Infer infer(std::function<TensorType(const Types&)> fn);
Eval eval(std::function<Tensor(const Call&)> fn);
inline Eval eval_many(EvalFn fn) { return {std::move(fn)}; }
inline Infer infer_many(InferFn fn) { return {std::move(fn)}; }
// Evaluation when an operand or the result is quantized. Without it: an operator of QRule::same
// with an eval runs that on the codes (it only moves them); for others the engines are asked for a
// kernel, and if none has one: dequantize, evaluate, quantize, which is the contract of
// docs/numerics.md for such operators.
Quantized quantized(std::function<Tensor(const Call&)> fn);

// Which attributes an operand may give when the call runs (FromOperand), and the result types
// before that: a dimension that depends on them is unknown(), unless Types::sizes knows it. Without
// this part all attributes must be known.
enum class AttrKind { integer, integers, number, numbers };
struct OpenAttrs {
  std::vector<std::pair<std::string, AttrKind>> attrs;
  InferFn fn;
};
OpenAttrs open_attrs(std::vector<std::pair<std::string, AttrKind>> attrs,
                     std::function<TensorType(const Types&)> fn);
OpenAttrs open_attrs_many(std::vector<std::pair<std::string, AttrKind>> attrs, InferFn fn);
// The gradients of the operands, in their order: of the first operand, or of all (undefined: none).
// They have the operands' shapes; broadcast ones are summed with sum_to. May call operators:
// nothing is recorded then. Without this part the operator's float results can be computed from
// parameters, but backward() through it is an error that names it.
Gradient gradient(std::function<Tensor(const Grad&)> fn);
inline Gradient gradients(std::function<std::vector<Tensor>(const Grad&)> fn) {
  return {std::move(fn)};
}
// dy summed over the dimensions along which `shape` was broadcast to dy's.
Tensor sum_to(const Tensor& dy, const Shape& shape);

struct Param {
  std::string name;
  bool optional = false;  // "bias?"
  bool variadic = false;  // "xs...": last one only
};

class Op {
 public:
  template <typename... Parts>
  Op(const char* name, const char* schema, QRule rule, Parts&&... parts)
      : name_(name), schema_(schema), rule_(rule) {
    parse_schema();
    (add(std::forward<Parts>(parts)), ...);
  }

  const std::string& name() const { return name_; }
  // "conv2d(x, weight, bias?, *, stride=[1, 1], ...) -> y"
  const std::string& schema() const { return schema_; }
  const std::string& doc() const { return doc_; }
  QRule rule() const { return rule_; }
  const std::vector<Param>& params() const { return params_; }
  size_t output_count() const { return outputs_.size(); }  // a variadic result counts as one
  bool variadic_outputs() const { return variadic_outputs_; }
  // Attributes with their defaults; an attribute without one is required.
  const std::vector<std::pair<std::string, std::optional<Attr>>>& attrs() const { return attrs_; }
  std::optional<size_t> param_index(std::string_view name) const;

  // `given` with defaults filled in. Error on an unknown name (with the nearest), a missing one, or
  // a wrong kind.
  Attrs complete(const Attrs& given) const;
  // Result types. `label` names the caller in errors. Checks the number of inputs.
  std::vector<TensorType> infer(const std::vector<std::optional<TensorType>>& inputs,
                                const Attrs& complete_attrs, const std::optional<QType>& want,
                                std::string_view label, const OperandSizes* sizes = nullptr) const;
  // The attributes that an operand may give; empty for most operators.
  const std::vector<std::pair<std::string, AttrKind>>& open_attrs() const { return open_.attrs; }

  const Traits& traits() const { return traits_; }
  // Null unless it is a function of one number.
  auto scalar() const { return scalar_.make; }

  const EvalFn& eval() const { return eval_; }
  const EvalFn& quantized() const { return quantized_; }
  const std::function<std::vector<Tensor>(const Grad&)>& gradient() const { return gradient_; }

 private:
  void parse_schema();
  void check_open_attrs(const std::vector<std::optional<TensorType>>& inputs, const Attrs& attrs,
                        const std::string& who) const;
  void add(Infer part) { infer_ = std::move(part.fn); }
  void add(Eval part) { eval_ = std::move(part.fn); }
  void add(Quantized part) { quantized_ = std::move(part.fn); }
  void add(Gradient part) { gradient_ = std::move(part.fn); }
  void add(OpenAttrs part) { open_ = std::move(part); }
  void add(Doc part) { doc_ = part.text; }
  void add(Scalar part) { scalar_ = part; }
  void add(Traits part) { traits_ = part; }

  std::string name_, schema_, doc_;
  QRule rule_;
  std::vector<Param> params_;
  std::vector<std::pair<std::string, std::optional<Attr>>> attrs_;
  std::vector<std::string> outputs_;
  bool variadic_outputs_ = false;
  Traits traits_;
  Scalar scalar_{};
  InferFn infer_;
  OpenAttrs open_;
  EvalFn eval_, quantized_;
  std::function<std::vector<Tensor>(const Grad&)> gradient_;
};

// -- the registry ---------------------------------------------------------------------------------

// Error naming the nearest known names if there is no such operator.
const Op& get(std::string_view name);
const Op* find(std::string_view name);  // null if there is none
std::vector<const Op*> all();           // by name
// The operator that computes the layer with its weight quantized so; null if there is none.
const Op* find_form(std::string_view layer, WeightForm form);

struct Registration {
  explicit Registration(Op op);
};

// Defines and registers an operator:  OCTET_OP(relu, "relu(x) -> y", QRule::same, infer(...),
// eval(...));
#define OCTET_OP(name, schema, ...)                        \
  static const ::octet::ops::Registration octet_op_##name( \
      ::octet::ops::Op(#name, schema, __VA_ARGS__));

// -- calling --------------------------------------------------------------------------------------

// Calls an operator on tensors. `want` asks for a quantized result. Omitted optional inputs may be
// left off at the end or given as undefined tensors.
std::vector<Tensor> call_all(std::string_view op, std::vector<Tensor> inputs,
                             const Attrs& attrs = {},
                             const std::optional<QType>& want = std::nullopt);
// The same for operators with one result.
Tensor call(std::string_view op, std::vector<Tensor> inputs, const Attrs& attrs = {},
            const std::optional<QType>& want = std::nullopt);

// The attributes of a call with those that operands give (FromOperand) read from `inputs`, which
// lose these operands. Error if one of them is undefined, of another dtype, or not a number or a
// list.
Attrs take_open_attrs(const Op& op, const Attrs& attrs, std::vector<Tensor>& inputs);

// Evaluates a call whose result types are known: what `call` does behind the interceptors, and what
// the runtime does for operators that no engine has a kernel for.
std::vector<Tensor> evaluate(const Call& call);

// The call an engine is asked about. `inputs` are the operands' types (nullopt: omitted),
// `constants` the operands that are known now (undefined tensors: the others). Fills in the
// 256-entry table of unary operators.
OpSpec make_spec(const Op& op, const Attrs& attrs,
                 const std::vector<std::optional<TensorType>>& inputs,
                 std::vector<Tensor> constants, std::vector<TensorType> outputs,
                 const std::string& label);

// The kernel into which the quantized weight of a call is packed: `first_weight` is its place among
// the operands, those before it are data, those behind it constant too. Made at the first such call
// with the engine and kernel table in force, and kept with the weight. Not found(): none has one.
std::shared_ptr<const CachedKernel> packed_kernel(const Call& call, size_t first_weight = 1);

// Evaluates through a kernel of the engine in force; nullopt if no engine has one.
std::optional<std::vector<Tensor>> try_engine(const Call& call);

// Something that wants to see every call on this thread while it lives: the tracer, the profiler,
// the numeric suite. The innermost is asked first; it calls `next` to go on.
class Interceptor {
 public:
  Interceptor();
  virtual ~Interceptor();
  Interceptor(const Interceptor&) = delete;
  Interceptor& operator=(const Interceptor&) = delete;
  using Next = std::function<std::vector<Tensor>(const Call&)>;
  virtual std::vector<Tensor> on_call(const Call& call, const Next& next) = 0;
};

// Something that travels with a tensor (in its trace slot) and wants to see every call that the
// tensor takes part in. It calls `next` to evaluate, and marks the results if they are to be
// followed too.
class TensorTrace {
 public:
  virtual ~TensorTrace() = default;
  virtual std::vector<Tensor> on_call(const Call& call, const Interceptor::Next& next) = 0;
};
std::shared_ptr<TensorTrace> trace_of(const Tensor& x);  // null if there is none
void set_trace(const Tensor& x, std::shared_ptr<TensorTrace> trace);

// -- helpers for definitions ----------------------------------------------------------------------

// Result = the type of input 0 (dims, dtype; quantized as the rule says).
Infer same_type();
// Result = the broadcast of inputs 0 and 1 (NumPy's rule).
Infer broadcast_type();
std::vector<Dim> broadcast(const std::vector<Dim>& a, const std::vector<Dim>& b,
                           std::string_view who);
// d in -dims..dims-1 to 0..dims-1; Error otherwise.
int64_t normalize_dim(int64_t d, int64_t dims, std::string_view who);

}  // namespace octet::ops
