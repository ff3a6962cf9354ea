// Attention: ONNX's and com.microsoft's, against loops in double.
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "octet/runtime/program.h"
#include "tests/expect_error.h"
#include "tests/io/onnx/test_util.h"

namespace octet::testing {
namespace {

constexpr int64_t kBatch = 2, kHeads = 2, kQueries = 3, kKeys = 4, kSize = 2,
                  kFeatures = kHeads * kSize;

// One head: `q`, `k` and `v` give numbers by (step, place); `score` changes the score of a query
// and a key.
struct Reference {
  std::function<double(int64_t, int64_t)> q, k, v;
  std::function<double(int64_t, int64_t, double)> score = [](int64_t, int64_t, double s) {
    return s;
  };
  int64_t keys = kKeys;
  double scale = 1 / std::sqrt(static_cast<double>(kSize));

  double at(int64_t query, int64_t place) const {
    std::vector<double> weights;
    double most = -INFINITY, sum = 0, result = 0;
    for (int64_t j = 0; j < keys; ++j) {
      double s = 0;
      for (int64_t d = 0; d < kSize; ++d) s += q(query, d) * k(j, d);
      weights.push_back(score(query, j, s * scale));
      most = std::max(most, weights.back());
    }
    for (double& w : weights) sum += w = std::exp(w - most);
    for (int64_t j = 0; j < keys; ++j)
      result += weights[static_cast<size_t>(j)] / sum * v(j, place);
    return result;
  }
};

// Of x (batch, steps, heads * size): one head.
std::function<double(int64_t, int64_t)> head_of(const Tensor& x, int64_t n, int64_t h,
                                                int64_t from = 0) {
  return [=](int64_t t, int64_t d) { return x.at({n, t, from + h * kSize + d}); };
}

void expect_heads(const Tensor& y, const std::function<Reference(int64_t, int64_t)>& reference) {
  for (int64_t n = 0; n < y.size(0); ++n)
    for (int64_t h = 0; h < kHeads; ++h)
      for (int64_t t = 0; t < y.size(1); ++t)
        for (int64_t d = 0; d < kSize; ++d)
          EXPECT_NEAR(y.at({n, t, h * kSize + d}), reference(n, h).at(t, d), 1e-5)
              << n << " " << h << " " << t << " " << d;
}

struct AttentionOperands {
  Tensor q = Tensor::randn({kBatch, kQueries, kFeatures}, 1),
         k = Tensor::randn({kBatch, kKeys, kFeatures}, 2),
         v = Tensor::randn({kBatch, kKeys, kFeatures}, 3);
  Reference reference(int64_t n, int64_t h) const {
    return {head_of(q, n, h), head_of(k, n, h), head_of(v, n, h)};
  }
};

OnnxModel multi_head() {
  OnnxModel m;
  m.input("q", {"N", "Q", static_cast<int>(kFeatures)});
  m.input("k", {"N", "K", static_cast<int>(kFeatures)});
  return m.input("v", {"N", "K", static_cast<int>(kFeatures)});
}

TEST(OnnxAttention, MultiHeadAttentionWithLengthsAndABias) {
  const AttentionOperands o;
  const Tensor bias = Tensor::randn({3 * kFeatures}, 4);
  OnnxModel m = multi_head();
  m.input("lengths", {"N"}, kInt32).constant("b", bias);
  m.node("MultiHeadAttention", {"q", "k", "v", "b", "lengths"}, {"y"}, {{"num_heads", kHeads}}, "",
         kMicrosoft);
  const std::vector<int32_t> lengths{4, 2};
  const Tensor y = runtime::compile(m.output("y").import())
                       .run({o.q, o.k, o.v, Tensor::from(lengths, {kBatch})})
                       .at(0);
  expect_heads(y, [&](int64_t n, int64_t h) {
    Reference r = o.reference(n, h);
    const auto shifted = [&](const Tensor& x, int64_t part) {
      return [=, head = head_of(x, n, h)](int64_t t, int64_t d) {
        return head(t, d) + bias.at({part * kFeatures + h * kSize + d});
      };
    };
    r.q = shifted(o.q, 0);
    r.k = shifted(o.k, 1);
    r.v = shifted(o.v, 2);
    r.keys = lengths[static_cast<size_t>(n)];  // the others weigh e^-10000
    return r;
  });
}

TEST(OnnxAttention, MultiHeadAttentionBehindEarlierKeys) {
  const AttentionOperands o;
  const Tensor past_k = Tensor::randn({kBatch, kHeads, 2, kSize}, 5),
               past_v = Tensor::randn({kBatch, kHeads, 2, kSize}, 6);
  OnnxModel m = multi_head();
  for (const char* name : {"pk", "pv"})
    m.input(name, {"N", static_cast<int>(kHeads), "P", static_cast<int>(kSize)});
  m.node("MultiHeadAttention", {"q", "k", "v", "", "", "", "pk", "pv"}, {"y", "all_k"},
         {{"num_heads", kHeads}, {"unidirectional", int64_t{1}}}, "", kMicrosoft)
      .output("y")
      .output("all_k");
  const std::vector<Tensor> y = runtime::compile(m.import()).run({o.q, o.k, o.v, past_k, past_v});
  EXPECT_EQ(y[1].shape(), (Shape{kBatch, kHeads, 2 + kKeys, kSize}));
  expect_heads(y[0], [&](int64_t n, int64_t h) {
    Reference r = o.reference(n, h);
    r.keys = 2 + kKeys;
    const auto behind = [=](const Tensor& past, const Tensor& x) {
      return [=, head = head_of(x, n, h)](int64_t t, int64_t d) {
        return t < 2 ? past.at({n, h, t, d}) : head(t - 2, d);
      };
    };
    r.k = behind(past_k, o.k);
    r.v = behind(past_v, o.v);
    r.score = [](int64_t i, int64_t j, double s) { return j <= i + 2 ? s : -INFINITY; };
    return r;
  });
}

TEST(OnnxAttention, PackedOperandsAreRefused) {
  OnnxModel m;
  m.input("q", {1, 3, 2, 3, 2})
      .node("MultiHeadAttention", {"q"}, {"y"}, {{"num_heads", kHeads}}, "mha", kMicrosoft);
  expect_error(ErrorCode::unsupported, {"mha", "packed into one operand"},
               [&] { m.output("y").import(); });
}

TEST(OnnxAttention, MicrosoftsProjectsItsInputFirst) {
  const Tensor x = Tensor::randn({kBatch, kQueries, 3}, 1),
               w = Tensor::randn({3, 3 * kFeatures}, 2), bias = Tensor::randn({3 * kFeatures}, 3);
  const Tensor all = ops::call("add", {ops::call("matmul", {x, w}), bias});
  for (const char* mask : {"", "causal", "raw"}) {
    OnnxModel m;
    m.input("x", {"N", "S", 3}).constant("w", w).constant("b", bias);
    std::vector<std::string> inputs{"x", "w", "b"};
    std::vector<Tensor> given{x};
    if (std::string(mask) == "raw") {
      m.input("m", {"N", "S"}, kInt32);
      inputs.emplace_back("m");
      given.push_back(Tensor::from(std::vector<int32_t>{1, 1, 0, 0, 1, 1}, {kBatch, kQueries}));
    }
    m.node("Attention", inputs, {"y"},
           {{"num_heads", kHeads},
            {"unidirectional", static_cast<int64_t>(std::string(mask) == "causal")}},
           "", kMicrosoft);
    graph::Graph g = m.output("y").import();
    EXPECT_EQ(count_ops(g, "linear"), 1);
    expect_heads(runtime::compile(g).run(given).at(0), [&](int64_t n, int64_t h) {
      Reference r{head_of(all, n, h), head_of(all, n, h, kFeatures),
                  head_of(all, n, h, 2 * kFeatures)};
      r.keys = kQueries;
      if (std::string(mask) == "causal")
        r.score = [](int64_t i, int64_t j, double s) { return j <= i ? s : -INFINITY; };
      if (std::string(mask) == "raw")
        r.score = [n](int64_t, int64_t j, double s) {
          return (n == 0 && j == 2) || (n == 1 && j == 0) ? s - 10000 : s;
        };
      return r;
    });
  }
}

TEST(OnnxAttention, Opset23SharesHeadsOfKeys) {
  const AttentionOperands o;
  const Tensor k = o.k.slice(2, 0, kSize).contiguous(), v = o.v.slice(2, 0, kSize).contiguous(),
               bias = Tensor::randn({kQueries, kKeys}, 9);
  OnnxModel m(23);
  m.input("q", {"N", "Q", static_cast<int>(kFeatures)});
  m.input("k", {"N", "K", static_cast<int>(kSize)}).input("v", {"N", "K", static_cast<int>(kSize)});
  m.input("m", {"Q", "K"});
  m.node("Attention", {"q", "k", "v", "m"}, {"y"},
         {{"q_num_heads", kHeads},
          {"kv_num_heads", int64_t{1}},
          {"is_causal", int64_t{1}},
          {"softcap", 2.0},
          {"scale", 0.75}})
      .output("y");
  expect_heads(runtime::compile(m.import()).run({o.q, k, v, bias}).at(0),
               [&](int64_t n, int64_t h) {
                 Reference r{head_of(o.q, n, h), head_of(k, n, 0), head_of(v, n, 0)};
                 r.scale = 0.75;
                 r.score = [&](int64_t i, int64_t j, double s) {
                   return j <= i ? 2 * std::tanh(s / 2) + bias.at({i, j}) : -INFINITY;
                 };
                 return r;
               });
}

TEST(OnnxAttention, Opset23TakesABoolMask) {
  const AttentionOperands o;
  OnnxModel m(23);
  for (const char* name : {"q", "k", "v"}) m.input(name, {1, 1, 2, static_cast<int>(kSize)});
  m.constant("keep", Tensor::from(std::vector<int64_t>{1, 0, 0, 1}, {2, 2}).to(DType::bool_));
  m.node("Attention", {"q", "k", "v", "keep"}, {"y"}).output("y");
  const Shape shape{1, 1, 2, kSize};
  const Tensor v = Tensor::from(std::vector<float>{1, 2, 3, 4}, shape);
  const Tensor y = run_one(m.import(), {Tensor::ones(shape), Tensor::ones(shape), v});
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{1, 2, 3, 4}));
}

}  // namespace
}  // namespace octet::testing
