// Every named qconfig, observer and fake-quantize module against PyTorch 1.13's, field by field:
// tests/golden/observers_qconfigs.json, made by scripts/oracle/observers.py.

#include <gtest/gtest.h>

#include <map>

#include "octet/quant/observe/qconfig.h"
#include "tests/quant/golden.h"

namespace octet::quant {
namespace {

// What ours makes, in PyTorch's words; only the fields that PyTorch's class has.
json definition(const ObserverFactory& factory, const json& theirs) {
  const ObserverOptions& o = factory.options();
  json d = {{"class", factory.name()}};
  if (!factory.fake_quantize_name().empty()) d["fake_quantize"] = factory.fake_quantize_name();
  const std::map<std::string, json> fields = {
      {"dtype", to_string(o.dtype)},    {"qscheme", to_string(o.qscheme)},
      {"reduce_range", o.reduce_range}, {"averaging_constant", o.averaging_constant},
      {"ch_axis", o.ch_axis},           {"eps", o.eps},
      {"is_dynamic", o.is_dynamic}};
  for (const auto& [key, value] : fields)
    if (theirs.contains(key)) d[key] = value;
  if (theirs.contains("quant_min")) {
    d["quant_min"] = code_range(o).quant_min;
    d["quant_max"] = code_range(o).quant_max;
  }
  if (o.scale) d["scale"] = *o.scale;
  if (o.zero_point) d["zero_point"] = *o.zero_point;
  return d;
}

}  // namespace

TEST(GoldenQConfig, EveryNamedConfigurationIsPyTorchs) {
  int seen = 0;
  for (const json& c : load("observers_qconfigs.json")) {
    if (!c.contains("qconfig")) continue;
    SCOPED_TRACE(c.dump());
    std::string name = c["qconfig"];
    QConfig q = c.contains("version") ? get_default_qat_qconfig(name, c["version"])
                                      : get_default_qconfig(name);
    EXPECT_EQ(definition(q.activation, c["activation"]), c["activation"]);
    EXPECT_EQ(definition(q.weight, c["weight"]), c["weight"]);
    ++seen;
  }
  EXPECT_EQ(seen, 33);
}

TEST(GoldenQConfig, EveryNamedObserverAndFakeQuantizeModuleIsPyTorchs) {
#define NAMED(name) \
  { #name, name }
  const std::map<std::string, ObserverFactory (*)()> factories = {
      NAMED(default_observer),
      NAMED(default_histogram_observer),
      NAMED(default_weight_observer),
      NAMED(default_per_channel_weight_observer),
      NAMED(weight_observer_range_neg_127_to_127),
      NAMED(per_channel_weight_observer_range_neg_127_to_127),
      NAMED(default_placeholder_observer),
      NAMED(default_debug_observer),
      NAMED(default_dynamic_quant_observer),
      NAMED(default_float_qparams_observer),
      NAMED(default_float_qparams_observer_4bit),
      NAMED(default_fixed_qparams_range_0to1_observer),
      NAMED(default_fixed_qparams_range_neg1to1_observer),
      NAMED(default_affine_fixed_qparams_observer),
      NAMED(default_symmetric_fixed_qparams_observer),
      NAMED(default_reuse_input_observer),
      NAMED(default_fake_quant),
      NAMED(default_weight_fake_quant),
      NAMED(default_per_channel_weight_fake_quant),
      NAMED(default_dynamic_fake_quant),
      NAMED(default_histogram_fake_quant),
      NAMED(default_embedding_fake_quant),
      NAMED(default_embedding_fake_quant_4bit),
      NAMED(default_fixed_qparams_range_0to1_fake_quant),
      NAMED(default_fixed_qparams_range_neg1to1_fake_quant),
      NAMED(default_affine_fixed_qparams_fake_quant),
      NAMED(default_symmetric_fixed_qparams_fake_quant),
      NAMED(default_fused_act_fake_quant),
      NAMED(default_fused_wt_fake_quant),
      NAMED(default_fused_per_channel_wt_fake_quant),
      NAMED(fused_wt_fake_quant_range_neg_127_to_127),
      NAMED(fused_per_channel_wt_fake_quant_range_neg_127_to_127),
  };
#undef NAMED
  size_t seen = 0;
  for (const json& c : load("observers_qconfigs.json")) {
    if (!c.contains("name")) continue;
    SCOPED_TRACE(c.dump());
    auto factory = factories.find(c["name"].get<std::string>());
    ASSERT_NE(factory, factories.end());
    EXPECT_EQ(definition(factory->second(), c["makes"]), c["makes"]);
    ++seen;
  }
  EXPECT_EQ(seen, factories.size());
}

}  // namespace octet::quant
