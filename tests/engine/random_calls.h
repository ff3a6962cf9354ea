#pragma once
// Random calls on codes, extreme codes, scales and zero points among them, and whether an engine's
// kernels give the bits of the reference engine for those that it takes.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include "octet/base/random.h"
#include "octet/engine/registry.h"
#include "octet/ops/op.h"
#include "tests/engine/slack.h"

namespace octet::testing {

// One call and its operands; `packed` of them, from the second on, are constants.
struct Call {
  OpSpec spec;
  std::vector<Tensor> inputs;
};

inline Call call(const std::string& name, const std::vector<Tensor>& inputs, const Attrs& attrs,
                 const std::optional<ops::QType>& want, bool constants) {
  const ops::Op& op = ops::get(name);
  std::vector<std::optional<TensorType>> types;
  std::vector<Tensor> known;
  for (size_t i = 0; i < inputs.size(); ++i) {
    types.push_back(inputs[i].defined() ? std::optional(inputs[i].type()) : std::nullopt);
    known.push_back(constants && i > 0 ? inputs[i] : Tensor());
  }
  const Attrs complete = op.complete(attrs);
  auto outputs = op.infer(types, complete, want, name);
  return {ops::make_spec(op, complete, types, std::move(known), std::move(outputs), name), inputs};
}

class Generator {
 public:
  explicit Generator(uint64_t seed) : random_(seed) {}
  int64_t integer(int64_t lo, int64_t hi) { return random_.integer(lo, hi); }
  bool chance(double p) { return random_.uniform() < p; }
  double scale(double least = -3.5, double most = 0.5) {
    return static_cast<float>(std::pow(10.0, random_.uniform(least, most)));
  }
  DType dtype() { return chance(0.6) ? DType::quint8 : DType::qint8; }
  int64_t code(DType t, double extreme) {
    return chance(extreme) ? (chance(0.5) ? qmin(t) : qmax(t)) : integer(qmin(t), qmax(t));
  }
  Tensor codes(const Shape& shape, DType t, QuantizerPtr q) {
    Tensor x = Tensor::empty(shape, t, std::move(q));
    const double extreme = chance(0.3) ? 0.9 : 0.05;
    for (int64_t i = 0; i < x.numel(); ++i)
      static_cast<uint8_t*>(x.raw_data())[i] = static_cast<uint8_t>(code(t, extreme));
    return x;
  }
  QuantizerPtr quantizer(DType t) { return Quantizer::per_tensor(scale(), code(t, 0.2), t); }
  Tensor activation(const Shape& shape, DType t) { return codes(shape, t, quantizer(t)); }
  // Per tensor with any zero point, or per channel of an axis.
  Tensor weight(const Shape& shape, size_t axis = 0) {
    const DType t = chance(0.8) ? DType::qint8 : DType::quint8;
    const int64_t middle = t == DType::qint8 ? 0 : 128;
    if (chance(0.5))
      return codes(shape, t,
                   Quantizer::per_tensor(scale(), chance(0.5) ? middle : code(t, 0.1), t));
    std::vector<double> scales;
    for (int64_t i = 0; i < shape[axis]; ++i) scales.push_back(scale());
    return codes(shape, t,
                 Quantizer::per_channel(
                     scales, std::vector<int64_t>(static_cast<size_t>(shape[axis]), middle),
                     static_cast<int64_t>(axis), t));
  }
  Tensor bias(int64_t n) {
    return chance(0.3) ? Tensor() : Tensor::rand({n}, random_.next(), -100, 100);
  }
  ops::QType result(DType t) { return {t, Quantizer::per_tensor(scale(-2, 3.5), code(t, 0.2), t)}; }
  std::string activation_name() { return chance(0.5) ? "none" : chance(0.7) ? "relu" : "relu6"; }

 private:
  Random random_;
};

// How many of the calls the engine took; each of those must give the bits of the reference engine
// (or native's, where that has no kernel).
template <typename Make>
int exact_calls(const std::string& engine, int cases, Make&& make) {
  int taken = 0;
  for (int seed = 0; seed < cases; ++seed) {
    Generator g(static_cast<uint64_t>(seed));
    const Call c = make(g);
    auto kernel = find_engine(engine).make(c.spec);
    if (!kernel) continue;
    EXPECT_EQ(kernel->engine(), engine);
    ++taken;
    auto oracle = make_kernel(c.spec, "reference");
    if (!oracle) oracle = make_kernel(c.spec, "native");
    const Tensor want = run_kernel(*oracle, c.spec, c.inputs)[0];
    for (int again = 0; again < 2; ++again) {
      fill_slack(c.inputs, again == 0 ? 255 : 127);
      const Tensor got = run_kernel(*kernel, c.spec, c.inputs)[0];
      EXPECT_TRUE(equal(got, want))
          << c.spec.op << ", seed " << seed << ": x " << to_string(c.spec.inputs[0]) << ", y "
          << to_string(c.spec.outputs[0]);
      if (!equal(got, want)) return taken;
    }
  }
  return taken;
}

}  // namespace octet::testing
