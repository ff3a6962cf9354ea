#pragma once
// Small networks of twelve kinds, in which six faults can be planted.

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "octet/base/random.h"
#include "octet/debug/compare.h"
#include "octet/graph/graph.h"
#include "octet/ops/functional.h"
#include "octet/quant/observe/observer.h"
#include "octet/quant/workflow/fx.h"

namespace octet::testing {

// How a float network differs from a plain one, so that a fault can happen to it.
struct Uneven {
  // An operand of a cat is 40 times smaller, and a layer behind it makes it as large as the others.
  bool branches = false;
  bool channels = false;  // the weights of a depthwise layer's first channel are 32 times larger
};

struct FaultNet {
  std::string kind;
  graph::Graph graph;
  Shape input;  // without the samples
  // By name: a layer with weights whose result only another such layer reads; a depthwise layer; a
  // cat.
  std::string victim, depthwise, cat;
};

class NetBuilder {
 public:
  using ValueId = graph::ValueId;
  struct Layer {
    int64_t kernel = 1, groups = 1, stride = 1;
    std::string activation = "none";
    double gain = 1;
    double first_channel = 1;  // what its weights and bias are multiplied by
  };

  NetBuilder(uint64_t seed, Uneven uneven) : random_(seed), uneven_(uneven) {}
  graph::Graph g;

  ValueId input(const Shape& shape) {
    std::vector<Dim> dims{Dim("N")};
    for (int64_t d : shape) dims.emplace_back(d);
    return g.add_input("x", TensorType(DType::float32, dims));
  }
  ValueId call(const std::string& name, const std::string& op, std::vector<ValueId> operands,
               const Attrs& attrs = {}) {
    return g.add_call(name, op, std::move(operands), attrs, std::nullopt, name);
  }
  // conv1d, conv2d, conv_transpose2d or linear.
  ValueId layer(const std::string& name, const std::string& op, ValueId x, int64_t out,
                const Layer& l) {
    const bool linear = op == "linear", transposed = op == "conv_transpose2d";
    const int64_t in = g.type(x).dims[linear ? g.type(x).dims.size() - 1 : 1].size();
    const size_t spatial = linear ? 0 : op == "conv1d" ? 1 : 2;
    Shape shape{transposed ? in : out, (transposed ? out : in) / l.groups};
    for (size_t i = 0; i < spatial; ++i) shape.push_back(l.kernel);
    const int64_t fan = numel(shape) / shape[0];
    Tensor w =
        Tensor::randn(shape, random_.next()) * (l.gain * std::sqrt(1.6 / static_cast<double>(fan)));
    Tensor b = Tensor::randn({out}, random_.next()) * (0.1 * l.gain);
    if (l.first_channel != 1) {
      for (int64_t i = 0; i < fan; ++i) w.data<float>()[i] *= static_cast<float>(l.first_channel);
      b.data<float>()[0] *= static_cast<float>(l.first_channel);
    }
    Attrs attrs{{"activation", l.activation}};
    if (spatial) {
      const int64_t p = transposed ? 0 : l.kernel / 2;
      attrs.set("padding", std::vector<int64_t>(2 * spatial, p));
      attrs.set("stride", std::vector<int64_t>(spatial, l.stride));
      attrs.set("groups", l.groups);
    }
    return call(name, op,
                {x, g.add_constant(name + ".weight", w), g.add_constant(name + ".bias", b)}, attrs);
  }
  // A pointwise layer and a depthwise one behind it.
  ValueId separable(const std::string& name, const std::string& op, ValueId x, int64_t channels,
                    const std::string& activation = "relu") {
    const double thin = uneven_.channels ? 1 / std::sqrt(32.0) : 1;
    x = layer(name + ".point", op, x, channels, {.activation = activation, .first_channel = thin});
    return layer(name + ".depth", op, x, channels,
                 {.kernel = 3,
                  .groups = channels,
                  .activation = activation,
                  .first_channel = uneven_.channels ? 32.0 : 1.0});
  }
  // The gain of the layer whose result is to be small.
  double small() const { return uneven_.branches ? 1 / 40.0 : 1; }
  ValueId cat(const std::string& name, std::vector<ValueId> xs, int64_t dim) {
    return call(name, "cat", std::move(xs), {{"dim", dim}});
  }
  // The cat whose last operand is small.
  ValueId join(const std::vector<ValueId>& xs, int64_t dim) {
    const ValueId x = cat("join", xs, dim);
    if (!uneven_.branches) return x;
    const std::vector<Dim> dims = g.type(x).dims;
    const bool linear = dim + 1 == static_cast<int64_t>(dims.size());
    const int64_t n = dims[static_cast<size_t>(dim)].size(),
                  last = g.type(xs.back()).dims[static_cast<size_t>(dim)].size();
    Shape shape(linear ? 2 : dims.size(), 1);
    shape[0] = n;
    if (linear) shape[1] = n;
    Tensor w = Tensor::zeros(shape);  // of a diagonal, or one for each channel
    for (int64_t i = 0; i < n; ++i) w.data<float>()[linear ? i * n + i : i] = i < n - last ? 1 : 40;
    Attrs attrs;
    if (!linear) attrs.set("groups", n);
    return call("level",
                linear             ? "linear"
                : dims.size() == 3 ? "conv1d"
                                   : "conv2d",
                {x, g.add_constant("level.weight", w)}, attrs);
  }

 private:
  Random random_;
  Uneven uneven_;
};

inline const std::vector<std::string>& fault_net_kinds() {
  static const std::vector<std::string> kinds{"plain",   "residual",    "mobilenet", "unet",
                                              "mixer",   "transformer", "glu",       "decoder",
                                              "squeeze", "densenet",    "conv1d",    "recurrent"};
  return kinds;
}

inline FaultNet make_fault_net(const std::string& kind, Uneven uneven = {}) {
  uint64_t seed = 7;
  for (char c : kind) seed = seed * 31 + static_cast<unsigned char>(c);
  NetBuilder b(seed, uneven);
  const std::string relu = "relu", c2 = "conv2d", c1 = "conv1d", lin = "linear";
  FaultNet net;
  net.kind = kind;
  net.victim = "victim";
  net.depthwise = "sep.depth";
  net.cat = "join";
  net.input = {3, 12, 12};
  using V = graph::ValueId;
  const auto head = [&](V x) {  // of an image
    x = b.layer("victim", c2, x, 12, {.kernel = 3, .activation = relu});
    x = b.layer("after", c2, x, 8, {.activation = relu});
    x = b.call("pool", "adaptive_avg_pool2d", {x}, {{"output_size", std::vector<int64_t>{1, 1}}});
    x = b.call("flat", "flatten", {x});
    return b.layer("fc", lin, x, 5, {});
  };
  V y = -1;
  if (kind == "plain") {
    V x = b.layer("stem", c2, b.input(net.input), 8, {.kernel = 3, .activation = relu});
    x = b.separable("sep", c2, x, 8);
    V a = b.layer("a", c2, x, 8, {.activation = relu});
    V s = b.layer("small", c2, x, 8, {.activation = relu, .gain = b.small()});
    y = head(b.join({a, s}, 1));
  } else if (kind == "residual") {
    V x = b.layer("stem", c2, b.input(net.input), 8, {.kernel = 3, .activation = relu});
    V r = b.layer("r1", c2, x, 8, {.kernel = 3, .activation = relu});
    r = b.layer("r2", c2, r, 8, {.kernel = 3});
    x = b.call("sum", "add", {x, r}, {{"activation", relu}});
    V d = b.separable("sep", c2, x, 8);
    V s = b.layer("small", c2, x, 8, {.activation = relu, .gain = b.small()});
    y = head(b.join({d, s}, 1));
  } else if (kind == "mobilenet") {
    V x = b.layer("stem", c2, b.input(net.input), 8, {.kernel = 3, .activation = "relu6"});
    V d = b.separable("sep", c2, x, 16, "relu6");
    V p = b.layer("project", c2, d, 8, {});
    x = b.call("sum", "add", {x, p});
    V s = b.layer("small", c2, x, 8, {.activation = "relu6", .gain = b.small()});
    y = head(b.join({x, s}, 1));
  } else if (kind == "unet") {
    V x = b.separable("sep", c2, b.input(net.input), 8);
    const std::vector<int64_t> two{2, 2};
    V down = b.call("down", "max_pool2d", {x}, {{"kernel", two}, {"stride", two}});
    down = b.layer("bottom", c2, down, 12, {.kernel = 3, .activation = relu});
    V up = b.call("up", "interpolate", {down}, {{"scales", std::vector<double>{2, 2}}});
    up = b.layer("small", c2, up, 8, {.activation = relu, .gain = b.small()});
    x = b.join({x, up}, 1);
    x = b.layer("victim", c2, x, 8, {.kernel = 3, .activation = relu});
    y = b.layer("image", c2, x, 3, {});
  } else if (kind == "mixer") {
    net.input = {16, 24};
    V x = b.layer("embed", lin, b.input(net.input), 24, {.activation = relu});
    x = b.separable("sep", c1, x, 16);
    V a = b.layer("a", lin, x, 16, {.activation = relu});
    V s = b.layer("small", lin, x, 16, {.activation = relu, .gain = b.small()});
    x = b.join({a, s}, 2);
    x = b.layer("victim", lin, x, 20, {.activation = relu});
    y = b.layer("fc", lin, x, 6, {});
  } else if (kind == "transformer") {
    net.input = {10, 16};
    V x = b.layer("embed", lin, b.input(net.input), 16, {});
    V n = b.call("norm", "layer_norm",
                 {x, b.g.add_constant("norm.weight", Tensor::ones({16})),
                  b.g.add_constant("norm.bias", Tensor::zeros({16}))});
    V q = b.layer("q", lin, n, 16, {}), k = b.layer("k", lin, n, 16, {}),
      v = b.layer("v", lin, n, 16, {});
    k = b.call("kt", "permute", {k}, {{"dims", std::vector<int64_t>{0, 2, 1}}});
    V scores = b.call("scores", "matmul", {q, k});
    scores = b.call("scaled", "mul_scalar", {scores}, {{"value", 0.25}});
    V att = b.call("attention", "softmax", {scores});
    V mixed = b.call("mixed", "matmul", {att, v});
    x = b.call("sum", "add", {x, b.layer("proj", lin, mixed, 16, {})});
    V t = b.call("to_channels", "permute", {x}, {{"dims", std::vector<int64_t>{0, 2, 1}}});
    t = b.separable("sep", c1, t, 16);
    t = b.call("to_tokens", "permute", {t}, {{"dims", std::vector<int64_t>{0, 2, 1}}});
    V s = b.layer("small", lin, x, 16, {.activation = relu, .gain = b.small()});
    x = b.join({t, s}, 2);
    x = b.layer("victim", lin, x, 24, {.activation = relu});
    y = b.layer("fc", lin, x, 8, {});
  } else if (kind == "glu") {
    V x = b.layer("stem", c2, b.input(net.input), 8, {.kernel = 3, .activation = relu});
    V value = b.layer("value", c2, x, 8, {.kernel = 3});
    V gate = b.call("gate", "sigmoid", {b.layer("gates", c2, x, 8, {.kernel = 3})});
    x = b.call("gated", "mul", {value, gate});
    V d = b.separable("sep", c2, x, 8);
    V s = b.layer("small", c2, x, 8, {.activation = relu, .gain = b.small()});
    y = head(b.join({d, s}, 1));
  } else if (kind == "decoder") {
    net.input = {8, 6, 6};
    V x = b.layer("stem", c2, b.input(net.input), 8, {.kernel = 3, .activation = relu});
    x = b.layer("grow", "conv_transpose2d", x, 8,
                {.kernel = 2, .stride = 2, .activation = relu, .gain = 2});
    V d = b.separable("sep", c2, x, 8);
    V s = b.layer("small", c2, x, 8, {.activation = relu, .gain = b.small()});
    x = b.join({d, s}, 1);
    x = b.layer("victim", c2, x, 8, {.kernel = 3, .activation = relu});
    x = b.layer("mid", c2, x, 8, {.activation = relu});
    x = b.call("up", "interpolate", {x}, {{"scales", std::vector<double>{2, 2}}});
    y = b.layer("image", c2, x, 3, {.kernel = 3});
  } else if (kind == "squeeze") {
    V x = b.layer("stem", c2, b.input(net.input), 8, {.kernel = 3, .activation = relu});
    V d = b.separable("sep", c2, x, 8);
    V e = b.call("squeeze", "adaptive_avg_pool2d", {d},
                 {{"output_size", std::vector<int64_t>{1, 1}}});
    e = b.layer("reduce", c2, e, 4, {.activation = relu});
    e = b.call("excite", "sigmoid", {b.layer("expand", c2, e, 8, {})});
    d = b.call("scaled", "mul", {d, e});
    V s = b.layer("small", c2, d, 8, {.activation = relu, .gain = b.small()});
    V a = b.layer("a", c2, d, 8, {.activation = relu});
    y = head(b.join({a, s}, 1));
  } else if (kind == "densenet") {
    V x = b.layer("stem", c2, b.input(net.input), 8, {.kernel = 3, .activation = relu});
    V one = b.layer("d1", c2, x, 4, {.kernel = 3, .activation = relu});
    V two = b.cat("dense1", {x, one}, 1);
    V d = b.separable("sep", c2, two, 8);
    V s = b.layer("small", c2, two, 8, {.kernel = 3, .activation = relu, .gain = b.small()});
    y = head(b.join({two, d, s}, 1));
  } else if (kind == "conv1d") {
    net.input = {4, 40};
    V x = b.layer("stem", c1, b.input(net.input), 8, {.kernel = 5, .activation = relu});
    V d = b.separable("sep", c1, x, 8);
    V s = b.layer("small", c1, x, 8, {.activation = relu, .gain = b.small()});
    x = b.join({d, s}, 1);
    x = b.layer("victim", c1, x, 12, {.kernel = 3, .activation = relu});
    x = b.layer("after", c1, x, 8, {.activation = relu});
    x = b.call("flat", "flatten", {x});
    y = b.layer("fc", lin, x, 5, {});
  } else if (kind == "recurrent") {
    net.input = {6, 12};
    V x = b.separable("sep", c1, b.input(net.input), 16);
    V h = -1, last = -1;
    for (int64_t t = 0; t < 3; ++t) {
      const std::string at = std::to_string(t);
      last = b.call("step" + at, "slice", {x},
                    {{"dim", int64_t{2}}, {"start", 4 * t}, {"end", 4 * t + 1}});
      last = b.call("flat" + at, "flatten", {last});
      V in = b.layer("in" + at, lin, last, 16, {});
      if (h >= 0) in = b.call("sum" + at, "add", {in, b.layer("state" + at, lin, h, 16, {})});
      h = b.call("h" + at, "tanh", {in});
    }
    V s = b.layer("small", lin, last, 16, {.activation = relu, .gain = b.small()});
    x = b.join({h, s}, 1);
    x = b.layer("victim", lin, x, 16, {.activation = relu});
    y = b.layer("fc", lin, x, 5, {});
  }
  b.g.set_outputs({y});
  b.g.name = kind;
  net.graph = std::move(b.g);
  return net;
}

inline constexpr int64_t kFaultSamples = 24, kFaultBatch = 8;

inline Tensor fault_samples(const FaultNet& net) {
  Shape shape{kFaultSamples};
  shape.insert(shape.end(), net.input.begin(), net.input.end());
  return Tensor::randn(shape, 99);
}

inline debug::Samples as_samples(const Tensor& x) {
  return {.count = x.size(0), .batch = kFaultBatch, .get = [x](int64_t begin, int64_t size) {
            return debug::SampleBatch{{x.slice(0, begin, begin + size).contiguous()}};
          }};
}

// Calibrated, and what convert makes of it.
struct FaultQuantized {
  graph::Graph before, after;
  std::shared_ptr<quant::ObservedGraphModule> prepared;
};
// Of each channel from its least to its greatest weight.
inline quant::ObserverFactory whole_weights() {
  return quant::default_per_channel_weight_observer().with_quant_range(-127, 127);
}
// `plant` may change the observers after calibration. `weight`: of all layers but `per_tensor`, in
// place of the default.
inline FaultQuantized quantize_fault_net(
    const FaultNet& net, const Tensor& data, const std::string& observer = "MinMaxObserver",
    const std::vector<std::string>& skip = {}, const std::string& per_tensor = "",
    const std::function<void(quant::ObservedGraphModule&)>& plant = {},
    const std::optional<quant::ObserverFactory>& weight = {}) {
  quant::QConfig qconfig = quant::get_default_qconfig();
  qconfig.activation = quant::ObserverFactory(observer);
  if (weight) qconfig.weight = *weight;
  quant::QConfigMapping mapping(qconfig);
  if (!per_tensor.empty()) {
    quant::QConfig other = qconfig;
    other.weight = quant::default_weight_observer();
    mapping.set_module_name(per_tensor, other);
  }
  auto prepared = quant::prepare_fx(net.graph, mapping, {.skip = skip});
  for (int64_t i = 0; i < data.size(0); i += kFaultBatch)
    prepared->forward({data.slice(0, i, i + kFaultBatch).contiguous()});
  if (plant) plant(*prepared);
  graph::Graph after = quant::convert_fx(prepared)->graph();
  return {prepared->watched().graph, std::move(after), prepared};
}

// The observer of a value of the float graph.
inline quant::Observer& observer_of(quant::ObservedGraphModule& prepared, const std::string& name) {
  const auto watched = prepared.watched();
  const std::string& path = watched.observer.at(static_cast<size_t>(*watched.graph.find(name)));
  return dynamic_cast<quant::Observer&>(*prepared.submodule(path));
}

// A network with one of the six faults: what is to be found, and where.
struct PlantedFault {
  FaultQuantized quantized;
  Tensor data;
  std::string layer, part;  // its name, and what is said of it
  debug::Fault fault = debug::Fault::none;
};

inline PlantedFault plant_fault(const std::string& kind, debug::Fault fault) {
  using debug::Fault;
  const FaultNet net = make_fault_net(kind, {.branches = fault == Fault::unlike_scales,
                                             .channels = fault == Fault::per_tensor_weights});
  PlantedFault p;
  p.fault = fault;
  p.layer = net.victim;
  p.data = fault_samples(net);
  const std::string minmax = "MinMaxObserver";
  switch (fault) {
    case Fault::scale_too_large:  // calibration saw values 8 times as large
      p.part = "about 8 times too large";
      p.quantized = quantize_fault_net(net, p.data, minmax, {}, "", [&](auto& prepared) {
        quant::Observer& observer = observer_of(prepared, net.victim);
        const quant::QParams q = observer.calculate_qparams();
        const double low = q.scales[0] * (0 - static_cast<double>(q.zero_points[0])),
                     high = q.scales[0] * (255 - static_cast<double>(q.zero_points[0]));
        observer.observe(
            Tensor::from<float>({static_cast<float>(8 * low), static_cast<float>(8 * high)}));
      });
      break;
    case Fault::outlier:
      p.layer = "x";
      p.part = "sample 17 holds 200";
      p.data.data<float>()[17 * (p.data.numel() / p.data.size(0)) + 5] = 200;
      p.quantized = quantize_fault_net(net, p.data);
      break;
    case Fault::left_float:
      p.part = "left float";
      p.quantized = quantize_fault_net(net, p.data, minmax, {net.victim});
      break;
    case Fault::unlike_scales:
      p.layer = net.cat;
      p.part = "%small";
      p.quantized = quantize_fault_net(net, p.data);
      break;
    case Fault::dead_channel:  // its weights' scale is so large that all codes are 0
      p.part = "channel 3 is dead";
      p.quantized = quantize_fault_net(net, p.data, minmax, {}, "", [&](auto& prepared) {
        const std::string name = net.victim + ".weight";
        Tensor w = prepared.watched().graph.constant(*net.graph.find(name)).clone();
        quant::Observer& observer = observer_of(prepared, name);
        observer.observe(w);
        const int64_t row = w.numel() / w.size(0);
        for (int64_t i = 0; i < row; ++i) w.data<float>()[3 * row + i] *= 1000;
        observer.observe(w);
      });
      break;
    case Fault::per_tensor_weights:
      p.layer = net.depthwise;
      p.part = "scales per channel";
      p.quantized = quantize_fault_net(net, p.data, minmax, {}, net.depthwise, {}, whole_weights());
      break;
    default:
      ADD_FAILURE() << "not one of the six";
  }
  return p;
}

}  // namespace octet::testing
