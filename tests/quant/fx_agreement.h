#pragma once
// What the tests share that look at values inside graphs.

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <utility>

#include "octet/quant/workflow/fx.h"

namespace octet::testing {

// Keeps what each value of the lowered graph was.
struct Recorder : graph::GraphModule {
  using GraphModule::forward;
  Recorder(const graph::GraphModule& lowered)
      : GraphModule(lowered.graph(), const_cast<graph::GraphModule&>(lowered)) {}
  std::map<std::string, Tensor> seen;
  Tensor result(graph::ValueId id, Tensor value) override {
    seen[graph().value(id).name] = value;
    return value;
  }
};

// Runs the reference graph, compares each quantized value with the lowered graph's of that name,
// and goes on with the latter.
struct Compared : graph::GraphModule {
  using GraphModule::forward;
  Compared(const graph::GraphModule& reference, std::map<std::string, Tensor> lowered)
      : GraphModule(reference.graph(), const_cast<graph::GraphModule&>(reference)),
        lowered(std::move(lowered)) {}
  std::map<std::string, Tensor> lowered;
  int64_t values = 0, differ = 0;
  int worst = 0;
  std::string where;
  Tensor result(graph::ValueId id, Tensor value) override {
    auto it = lowered.find(graph().value(id).name);
    if (!value.is_quantized() || it == lowered.end() || !it->second.is_quantized()) return value;
    EXPECT_EQ(*value.quantizer(), *it->second.quantizer()) << it->first;
    auto a = value.int_repr().to(DType::int32).to_vector<int32_t>(),
         b = it->second.int_repr().to(DType::int32).to_vector<int32_t>();
    for (size_t i = 0; i < a.size(); ++i) {
      int d = std::abs(a[i] - b[i]);
      ++values;
      differ += d != 0;
      if (d > worst) worst = d, where = it->first;
    }
    return it->second;
  }
};

}  // namespace octet::testing
