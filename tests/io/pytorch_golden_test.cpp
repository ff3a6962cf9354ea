// Files that PyTorch 1.13 wrote: tests/golden/pytorch_files.json, made by
// scripts/oracle/pytorch_files.py.
#include <gtest/gtest.h>

#include "octet/io/pytorch_file.h"
#include "octet/io/state_dict.h"
#include "octet/nn/activation.h"
#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/nn/norm.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "tests/quant/golden_modules.h"
#include "tests/temp_dir.h"

namespace octet::testing {
namespace {

struct Net : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(2, 3, 3));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(3));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot fc = slot("fc", nn::Linear(12, 2));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(fc(relu(bn(conv(quant(x)))).flatten(1))); }
};

// What PyTorch has, as the script's stored() wrote it.
Tensor expected_tensor(const json& item) {
  const DType dtype = parse_dtype(item["dtype"].get<std::string>());
  const Shape shape = item["shape"].get<Shape>();
  const std::vector<uint8_t> bytes = from_base64(item["data"]);
  Tensor codes = Tensor::empty(shape, is_quantized(dtype) ? code_dtype(dtype) : dtype);
  EXPECT_EQ(static_cast<size_t>(codes.nbytes()), bytes.size());
  if (!bytes.empty()) std::memcpy(codes.raw_data(), bytes.data(), bytes.size());
  if (!is_quantized(dtype)) return codes;
  const auto scale = item["scale"].get<std::vector<double>>();
  if (!item.contains("axis"))
    return make_quantized(
        codes, Quantizer::per_tensor(scale[0], item["zero_point"][0].get<int64_t>(), dtype));
  const int64_t axis = item["axis"];
  return make_quantized(
      codes, item["float_zero_point"]
                 ? Quantizer::per_channel_float(
                       scale, item["zero_point"].get<std::vector<double>>(), axis, dtype)
                 : Quantizer::per_channel(scale, item["zero_point"].get<std::vector<int64_t>>(),
                                          axis, dtype));
}

json golden_file(const std::string& name) {
  for (const json& c : load_golden("pytorch_files.json"))
    if (c["name"] == name) return c;
  ADD_FAILURE() << name;
  return {};
}

std::map<std::string, Tensor> load(const json& c) {
  TempDir dir;
  const std::vector<uint8_t> bytes = from_base64(c["file"]);
  spill(dir / "weights.pth", std::string(bytes.begin(), bytes.end()));
  return load_state_dict(dir / "weights.pth");
}

TEST(GoldenPyTorchFiles, EveryTensorIsPyTorchsBitForBit) {
  const json cases = load_golden("pytorch_files.json");
  ASSERT_EQ(cases.size(), 9u);
  for (const json& c : cases) {
    SCOPED_TRACE(c["name"].get<std::string>());
    const auto state = load(c);
    EXPECT_EQ(state.size(), c["tensors"].size());
    for (const auto& [name, item] : c["tensors"].items()) {
      ASSERT_TRUE(state.count(name)) << name;
      const Tensor expected = expected_tensor(item);
      EXPECT_EQ(to_string(state.at(name).type(), false), to_string(expected.type(), false)) << name;
      EXPECT_TRUE(equal(state.at(name), expected)) << name;
    }
  }
}

TEST(GoldenPyTorchFiles, AModuleComputesWhatPyTorchsDoes) {
  const json c = golden_file("net");
  for (const std::string name : {"net", "net in a checkpoint"}) {
    auto net = nn::make<Net>();
    net->eval();
    net->load_state_dict(load(golden_file(name)));
    const Tensor y = net->forward(expected_tensor(c["input"])).detach();
    EXPECT_TRUE(allclose(y, expected_tensor(c["output"]), 1e-6, 1e-6));
  }
}

TEST(GoldenPyTorchFiles, AQuantizedModuleComputesWhatPyTorchsDoes) {
  const json c = golden_file("quantized net");
  auto net = nn::make<Net>();
  net->eval();
  net->qconfig = quant::get_default_qconfig("fbgemm");
  auto int8 = quant::convert(quant::prepare(quant::fuse_modules(net, {{"conv", "bn", "relu"}})),
                             {.for_loading = true});
  int8->load_state_dict(load(c));
  const Tensor y = int8->forward(expected_tensor(c["input"])).detach();
  const double step = load(c).at("fc.scale").item();
  EXPECT_TRUE(allclose(y, expected_tensor(c["output"]), 0, step * 1.001))
      << "1 step: onednn adds the bias in float";
}

}  // namespace
}  // namespace octet::testing
