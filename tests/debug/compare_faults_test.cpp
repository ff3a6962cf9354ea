// Faults that were planted are found, named and put first; nothing is found in sound networks.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "octet/debug/sensitivity.h"
#include "tests/debug/compare_networks.h"

namespace octet::testing {
namespace {

using debug::Comparison;
using debug::Fault;
using debug::LayerComparison;

std::string describe(const Comparison& c) {
  std::string text;
  for (size_t i : c.ranking) {
    const LayerComparison& l = c.layers[i];
    text += fmt::format("  {} ({}): {}, noise {:.3f}, own {:.1f}, weight {:.1f}: {}\n", l.name,
                        l.op, debug::to_string(l.fault), l.noise_share, l.own_sqnr, l.weight_sqnr,
                        l.sentence);
  }
  return text;
}

// The first layer of the ranking has this name and fault, and says `part`.
void expect_first(const Comparison& c, const std::string& name, Fault fault,
                  const std::string& part) {
  ASSERT_FALSE(c.ranking.empty());
  const LayerComparison& first = c.layers[c.ranking[0]];
  EXPECT_EQ(first.name, name) << describe(c);
  EXPECT_STREQ(debug::to_string(first.fault), debug::to_string(fault)) << describe(c);
  EXPECT_NE(first.sentence.find(part), std::string::npos) << first.sentence;
}

class CompareFaults : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Networks, CompareFaults, ::testing::ValuesIn(fault_net_kinds()),
                         [](const auto& info) { return info.param; });

TEST_P(CompareFaults, NothingIsWrongWithASoundNetwork) {
  for (const char* observer : {"MinMaxObserver", "HistogramObserver"})
    for (Uneven uneven : {Uneven{}, Uneven{.channels = true}}) {
      const FaultNet net = make_fault_net(GetParam(), uneven);
      const Tensor data = fault_samples(net);
      const auto [before, after, prepared] = quantize_fault_net(net, data, observer);
      const Comparison c = debug::compare(before, after, as_samples(data));
      for (const LayerComparison& l : c.layers)
        EXPECT_EQ(l.fault, Fault::none) << observer << " " << l.name << ": " << l.sentence;
    }
}

// -- six faults in each network ------------------------------------------------------------------

using Planted = std::tuple<std::string, Fault>;
class PlantedFaults : public ::testing::TestWithParam<Planted> {};
INSTANTIATE_TEST_SUITE_P(
    Networks, PlantedFaults,
    ::testing::Combine(::testing::ValuesIn(fault_net_kinds()),
                       ::testing::Values(Fault::scale_too_large, Fault::outlier, Fault::left_float,
                                         Fault::unlike_scales, Fault::dead_channel,
                                         Fault::per_tensor_weights)),
    [](const auto& info) {
      std::string name = std::get<0>(info.param) + "_" + debug::to_string(std::get<1>(info.param));
      for (char& c : name)
        if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
      return name;
    });

TEST_P(PlantedFaults, CompareNamesItFirst) {
  const PlantedFault p = plant_fault(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const auto& [before, after, prepared] = p.quantized;
  expect_first(debug::compare(before, after, as_samples(p.data)), p.layer, p.fault, p.part);
}

// The remedy for a fault, as advice calls it.
std::string remedy(Fault fault) {
  switch (fault) {
    case Fault::scale_too_large:
      return "observer ";
    case Fault::outlier:
      return "all ranges without sample 17";
    case Fault::left_float:
      return "quantize it";
    case Fault::unlike_scales:
      return "leave it, its operands and its readers float";
    default:
      return "per-channel weights";
  }
}

TEST_P(PlantedFaults, AdviceMeasuresWhatMendsIt) {
  const PlantedFault p = plant_fault(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const auto& [before, after, prepared] = p.quantized;
  Comparison c = debug::compare(before, after, as_samples(p.data));
  debug::advise(c, before, after, as_samples(p.data));
  const LayerComparison& first = c.layers[c.ranking[0]];
  ASSERT_EQ(first.name, p.layer);
  std::string tried;
  const debug::Trial* mended = nullptr;
  for (const debug::Trial& t : first.trials) {
    tried += fmt::format("{}: {:+.2f} dB, {:.2f} times as fast\n", t.what, t.gain, t.speedup);
    if (!mended && t.what.rfind(remedy(p.fault), 0) == 0) mended = &t;
  }
  ASSERT_TRUE(mended) << tried;
  if (p.fault == Fault::left_float) {  // that costs time, not accuracy
    EXPECT_GT(mended->speedup, 0);
    EXPECT_TRUE(std::isfinite(mended->gain));
    return;
  }
  EXPECT_GT(mended->gain, 0.1) << tried;
}

TEST_P(PlantedFaults, SensitivityNamesItFirst) {
  const PlantedFault p = plant_fault(std::get<0>(GetParam()), std::get<1>(GetParam()));
  std::vector<std::vector<Tensor>> samples;
  for (int64_t i = 0; i < p.data.size(0); i += kFaultBatch)
    samples.push_back({p.data.slice(0, i, i + kFaultBatch).contiguous()});
  for (auto method : {debug::SensitivityMethod::alone, debug::SensitivityMethod::estimate}) {
    const debug::Sensitivity s =
        debug::sensitivity(*p.quantized.prepared, samples, {.method = method});
    std::string text;
    for (const auto& l : s.layers)
      text += fmt::format("  {} ({}): {:.4f}{}\n", l.name, l.op, l.share,
                          l.left_float ? " float: " + l.reason : "");
    const auto at = std::find_if(s.layers.begin(), s.layers.end(),
                                 [&](const auto& l) { return l.name == p.layer; });
    ASSERT_NE(at, s.layers.end()) << text;
    EXPECT_EQ(at->left_float, p.fault == Fault::left_float) << text;
    if (p.fault == Fault::left_float) {  // it loses nothing: what it costs is time and size
      EXPECT_NE(at->reason.find("skipped by"), std::string::npos) << text;
      EXPECT_GT(at->time_share, 0);
      EXPECT_GT(at->weight_bytes, 0);
      for (const auto& l : s.layers) EXPECT_EQ(l.left_float, l.name == p.layer) << l.name;
    }
    EXPECT_EQ(s.layers[0].name, p.layer) << to_string(method) << "\n" << text;
    EXPECT_EQ(s.layers[0].fault, p.fault) << text;
    EXPECT_NE(s.layers[0].sentence.find(p.part), std::string::npos) << s.layers[0].sentence;
  }
}

}  // namespace
}  // namespace octet::testing
