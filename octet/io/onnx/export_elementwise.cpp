// Writers of element-by-element operators, reductions and softmax.
#include <cmath>

#include "octet/io/onnx/exporter_impl.h"
#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr const char* kReductions[][2] = {
    {"mean", "ReduceMean"},
    {"prod", "ReduceProd"},
    {"amax", "ReduceMax"},
    {"amin", "ReduceMin"},
    {"reduce_l1", "ReduceL1"},
    {"reduce_l2", "ReduceL2"},
    {"sum_square", "ReduceSumSquare"},
    {"log_sum", "ReduceLogSum"},
    {"log_sum_exp", "ReduceLogSumExp"},
};

std::string minmax(Exporter& ex, const CallView& c, double value) {
  return std::isfinite(value) ? ex.scalar(c, static_cast<float>(value)) : "";
}

void write_reduction(Exporter& ex, const CallView& c, const char* op) {
  OnnxAttrs attrs{{"keepdims", static_cast<int64_t>(c.attrs().get_bool("keepdim"))}};
  if (c.attrs().any_operand()) {
    ex.need(18, fmt::format("{} over axes known only at run time", c.node.op));
    ex.add(c, op, {c.in[0], ex.given(c, "axes", "dim")}, c.out[0], attrs);
    return;
  }
  // An empty list means all in both, but not to every reader of ONNX: it is left out.
  Names in = c.in;
  if (const auto& dims = c.attrs().get_ints("dim"); !dims.empty()) {
    if (ex.opset() >= 18)  // where axes became an input of these too
      in.push_back(ex.ints(c, "axes", dims));
    else
      attrs.push_back({"axes", dims});
  }
  ex.add(c, op, in, c.out[0], attrs);
}

// axes became an input in opset 13, of this reduction only
void write_sum(Exporter& ex, const CallView& c) {
  const bool all = !c.attrs().any_operand() && c.attrs().get_ints("dim").empty();
  ex.add(c, "ReduceSum", {c.in[0], all ? "" : ex.given(c, "axes", "dim")}, c.out[0],
         {{"keepdims", static_cast<int64_t>(c.attrs().get_bool("keepdim"))}});
}

void write_arg(Exporter& ex, const CallView& c, const char* op) {
  ex.add(c, op, c.in, c.out[0],
         {{"axis", c.attrs().get_int("dim")},
          {"keepdims", static_cast<int64_t>(c.attrs().get_bool("keepdim"))},
          {"select_last_index", static_cast<int64_t>(c.attrs().get_bool("select_last"))}});
}

// Traits::onnx_form: "Mul(x, Tanh(x))" as nodes, the outermost of which gives the call's result.
class FormWriter {
 public:
  FormWriter(Exporter& ex, const CallView& c, std::string_view form)
      : ex_(ex), c_(c), form_(form) {}
  void write() {
    const auto [op, operands] = call();
    ex_.add(c_, op, operands, c_.out[0]);
  }

 private:
  std::string name() {
    const size_t end = std::min(form_.find_first_of("(,)"), form_.size());
    std::string text(form_.substr(0, end));
    form_.remove_prefix(end);
    return text;
  }
  // A node's operator and operands; those that are calls are written first.
  std::pair<std::string, Names> call() {
    std::pair<std::string, Names> made{name(), {}};
    while (!form_.starts_with(')')) {
      form_.remove_prefix(form_.starts_with(", ") ? 2 : 1);
      made.second.push_back(operand());
    }
    form_.remove_prefix(1);
    return made;
  }
  std::string operand() {
    const std::string_view before = form_;
    const std::string text = name();
    if (!form_.starts_with('(')) return c_.in.at(*ops::get(c_.node.op).param_index(text));
    form_ = before;
    const auto [op, operands] = call();
    return ex_.step(c_, op, operands);
  }

  Exporter& ex_;
  const CallView& c_;
  std::string_view form_;
};

// The parts of an operator that opset 13 lacks, in the form import puts together again.
void write_gelu(Exporter& ex, const CallView& c) {
  const std::string& x = c.in[0];
  std::string gate;
  if (c.attrs().get_string("approximate") == "tanh") {
    std::string cube = ex.step(c, "Pow", {x, ex.scalar(c, 3)});
    std::string inner = ex.step(c, "Add", {x, ex.step(c, "Mul", {cube, ex.scalar(c, 0.044715f)})});
    gate = ex.step(c, "Tanh", {ex.step(c, "Mul", {inner, ex.scalar(c, 0.7978845608f)})});
  } else {
    gate = ex.step(c, "Erf", {ex.step(c, "Div", {x, ex.scalar(c, 1.41421356f)})});
  }
  std::string product = ex.step(c, "Mul", {x, ex.step(c, "Add", {gate, ex.scalar(c, 1)})});
  ex.add(c, "Mul", {product, ex.scalar(c, 0.5f)}, c.out[0]);
}

void write_hardswish(Exporter& ex, const CallView& c) {
  std::string shifted = ex.step(c, "Add", {c.in[0], ex.scalar(c, 3)});
  std::string gate = ex.step(c, "Clip", {shifted, ex.scalar(c, 0), ex.scalar(c, 6)});
  ex.add(c, "Div", {ex.step(c, "Mul", {c.in[0], gate}), ex.scalar(c, 6)}, c.out[0]);
}

void write_softplus(Exporter& ex, const CallView& c) {
  // `threshold` only guards against overflow, which ONNX leaves to the implementation.
  double beta = c.attrs().get_double("beta");
  if (beta == 1) {
    ex.add(c, "Softplus", c.in, c.out[0]);
    return;
  }
  std::string b = ex.scalar(c, static_cast<float>(beta));
  ex.add(c, "Div", {ex.step(c, "Softplus", {ex.step(c, "Mul", {c.in[0], b})}), b}, c.out[0]);
}

void write_threshold(Exporter& ex, const CallView& c) {
  double threshold = c.attrs().get_double("threshold"), value = c.attrs().get_double("value");
  if (value == 0) {
    ex.add(c, "ThresholdedRelu", c.in, c.out[0], {{"alpha", threshold}});
    return;
  }
  std::string above = ex.step(c, "Greater", {c.in[0], ex.scalar(c, static_cast<float>(threshold))});
  ex.add(c, "Where", {above, c.in[0], ex.scalar(c, static_cast<float>(value))}, c.out[0]);
}

// A slope per channel lies along dimension 1; ONNX aligns it with the last ones.
void write_prelu(Exporter& ex, const CallView& c) {
  std::string slope = c.in[1];
  if (c.rank(1) == 1 && c.rank(0) > 2) {
    std::vector<int64_t> shape(static_cast<size_t>(c.rank(0)) - 1, 1);
    shape[0] = -1;
    slope = ex.step(c, "Reshape", {slope, ex.ints(c, "slope_shape", shape)});
  }
  ex.add(c, "PRelu", {c.in[0], slope}, c.out[0]);
}

void write_remainder(Exporter& ex, const CallView& c) {  // a - b * floor(a / b)
  if (!is_floating(c.type(0).dtype)) {
    ex.add(c, "Mod", c.in, c.out[0], {{"fmod", int64_t{0}}});
    return;
  }
  std::string whole = ex.step(c, "Floor", {ex.step(c, "Div", c.in)});
  ex.add(c, "Sub", {c.in[0], ex.step(c, "Mul", {c.in[1], whole})}, c.out[0]);
}

}  // namespace

void write_activated(Exporter& ex, const CallView& c, const std::string& op, const Names& in,
                     const OnnxAttrs& attrs) {
  const std::string& activation = c.attrs().get_string("activation");
  if (activation == "none") {
    ex.add(c, op, in, c.out[0], attrs);
    return;
  }
  std::string y =
      // this node has the call's name; import fuses the other into it
      ex.add(c, op, in, ex.fresh(c, op), attrs);
  if (activation == "relu") {
    const TensorType& type = c.result();
    // Where the lowest code is not the zero point's, ONNX Runtime leaves the whole layer in float:
    // the relu follows on codes, which gives the same ones.
    if (ex.for_onnx_runtime() && c.on_codes() && type.quantizer->zero_point() != qmin(type.dtype))
      ex.add(c, "LeakyRelu", {ex.through_codes(c, y, type)}, c.out[0], {{"alpha", 0.0}},
             activation);
    else
      ex.add(c, "Relu", {y}, c.out[0], {}, activation);
  } else if (activation == "relu6") {
    ex.add(c, "Clip", {y, ex.scalar(c, 0), ex.scalar(c, 6)}, c.out[0], {}, activation);
  } else {
    throw Exporter::Unsupported{fmt::format("activation {}", activation)};
  }
}

void add_elementwise_writers(std::unordered_map<std::string, Writer>& w) {
  for (const ops::Op* op : ops::all())
    if (const char* form = op->traits().onnx_form)
      w[op->name()] = [form](Exporter& ex, const CallView& c) { FormWriter(ex, c, form).write(); };
    else if (const char* onnx = op->traits().onnx)
      w[op->name()] = [onnx](Exporter& ex, const CallView& c) { ex.add(c, onnx, c.in, c.out[0]); };
  w["dropout"] = [](Exporter& ex, const CallView& c) { ex.add(c, "Identity", c.in, c.out[0]); };
  for (const auto& [octet, onnx] : kReductions)
    w[octet] = [onnx = onnx](Exporter& ex, const CallView& c) { write_reduction(ex, c, onnx); };
  w["sum"] = write_sum;
  w["argmax"] = [](Exporter& ex, const CallView& c) { write_arg(ex, c, "ArgMax"); };
  w["argmin"] = [](Exporter& ex, const CallView& c) { write_arg(ex, c, "ArgMin"); };
  w["add"] = [](Exporter& ex, const CallView& c) {
    write_activated(ex, c, "Add", ex.with_exact_codes(c), {});
  };
  w["mul"] = [](Exporter& ex, const CallView& c) {
    write_activated(ex, c, "Mul", ex.with_exact_codes(c), {});
  };
  w["relu6"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Clip", {c.in[0], ex.scalar(c, 0), ex.scalar(c, 6)}, c.out[0]);
  };
  w["clamp"] = [](Exporter& ex, const CallView& c) {
    if (c.type(0).dtype != DType::float32 && !c.type(0).is_quantized())
      throw Exporter::Unsupported{"clamp of " + to_string(c.type(0).dtype)};
    ex.add(c, "Clip",
           {c.in[0], minmax(ex, c, c.attrs().get_double("min")),
            minmax(ex, c, c.attrs().get_double("max"))},
           c.out[0]);
  };
  w["gelu"] = write_gelu;
  w["hardswish"] = write_hardswish;
  w["softplus"] = write_softplus;
  w["threshold"] = write_threshold;
  w["prelu"] = write_prelu;
  w["remainder"] = write_remainder;
  w["fmod"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Mod", c.in, c.out[0], {{"fmod", int64_t{1}}});
  };
  w["hardsigmoid"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "HardSigmoid", c.in, c.out[0],
           {{"alpha", c.attrs().get_double("alpha")}, {"beta", c.attrs().get_double("beta")}});
  };
  w["leaky_relu"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "LeakyRelu", c.in, c.out[0], {{"alpha", c.attrs().get_double("negative_slope")}});
  };
  w["elu"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Elu", c.in, c.out[0], {{"alpha", c.attrs().get_double("alpha")}});
  };
  w["celu"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Celu", c.in, c.out[0], {{"alpha", c.attrs().get_double("alpha")}});
  };
  w["softmax"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Softmax", c.in, c.out[0], {{"axis", c.attrs().get_int("dim")}});
  };
  w["log_softmax"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "LogSoftmax", c.in, c.out[0], {{"axis", c.attrs().get_int("dim")}});
  };
  w["cumsum"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "CumSum", {c.in[0], ex.given(c, "axis", "dim")}, c.out[0]);
  };
  w["to"] = [](Exporter& ex, const CallView& c) {
    ex.add(c, "Cast", c.in, c.out[0], {{"to", int64_t{onnx_type_of(c.result().dtype)}}});
  };
}

}  // namespace octet::io::onnx_impl
