// octet convert and octet inspect on files of weights.
#include "octet/io/module_file.h"
#include "octet/io/safetensors.h"
#include "octet/io/state_dict.h"
#include "octet/nn/linear.h"
#include "tests/cli/cli_test_util.h"
#include "tests/io/torch_bytes.h"

namespace octet::testing {
namespace {

std::string fc_state(TorchFile& file) {
  return ordered({{"fc.weight", file.floats({1, 2, 3, 4}, {2, 2})},
                  {"fc.codes", file.qtensor("QInt8Storage", "\1\2", {2},
                                            tuple({global("torch", "per_tensor_affine"), real(0.5),
                                                   num(3)}))}});
}
// A state dict of two tensors; a checkpoint of two state dicts.
void write_files(const TempDir& dir) {
  TorchFile file, both;
  spill(dir / "w.pth", file.zip(fc_state(file)));
  const std::string ema = ordered({{"e", both.floats({7}, {1})}});
  spill(dir / "both.ckpt", both.zip(dict({{"model", fc_state(both)}, {"ema", ema}})));
}

TEST(CliWeights, ConvertWritesPyTorchsWeightsAsSafetensors) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  write_files(dir);
  const RunResult r = run_octet({"convert", dir / "w.pth", dir / "w.safetensors"});
  expect_success(r);
  EXPECT_TRUE(contains(r.out, "w.safetensors: 2 tensors (")) << r.out;
  const auto state = load_state_dict(dir / "w.safetensors");
  EXPECT_TRUE(equal(state.at("fc.weight"), Tensor::from<float>({1, 2, 3, 4}).reshape({2, 2})));
  EXPECT_EQ(state.at("fc.codes").dtype(), DType::qint8);
  EXPECT_EQ(state.at("fc.codes").q_zero_point(), 3);
  // again, over what octet wrote
  expect_success(run_octet({"convert", dir / "w.pth", dir / "w.safetensors"}));
}

TEST(CliWeights, ConvertTakesModelsAndDirectoriesOfShards) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  save_model(dir / "fc.octet", *nn::make<nn::Linear>(3, 2));
  expect_success(run_octet({"convert", dir / "fc.octet", dir / "fc.safetensors"}));
  EXPECT_EQ(read_safetensors(dir / "fc.safetensors").tensors.size(), 2u);
  std::filesystem::create_directory(dir / "shards");
  for (const char* name : {"a", "b"})
    write_safetensors(dir / ("shards/" + std::string(name) + ".safetensors"),
                      {{name, Tensor::ones({2})}});
  expect_success(run_octet({"convert", dir / "shards", dir / "one.safetensors"}));
  EXPECT_EQ(read_safetensors(dir / "one.safetensors").tensors.size(), 2u);
}

TEST(CliWeights, InspectListsNamesAndTypes) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  write_files(dir);
  const RunResult r = run_octet({"inspect", dir / "w.pth"});
  expect_success(r);
  EXPECT_EQ(r.out,
            "fc.codes  QInt8(2) scale=0.5 zero_point=3\n"
            "fc.weight Float(2, 2)\n"
            "# 2 tensors, 6 numbers, 18 B\n");
  const auto json = json_of(run_octet({"inspect", dir / "w.pth", "--json"}));
  const nlohmann::json expected{{"name", "fc.weight"},
                                {"type", "Float(2, 2)"},
                                {"dtype", "float32"},
                                {"shape", {2, 2}},
                                {"bytes", 16}};
  EXPECT_EQ(json["tensors"][1], expected);
  EXPECT_EQ(json["numbers"], 6);
  EXPECT_EQ(json["bytes"], 18);
}

TEST(CliWeights, KeyNamesOneOfSeveralStateDictsAndANoteSaysWhichWasRead) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  write_files(dir);
  const RunResult r = run_octet({"inspect", dir / "both.ckpt"});
  EXPECT_EQ(r.code, 0);
  EXPECT_TRUE(contains(r.out, "fc.weight"));
  EXPECT_TRUE(contains(r.err, "octet: note: ")) << r.err;
  EXPECT_TRUE(contains(r.err, "read is 'model'; it also holds the state dicts ema")) << r.err;
  const RunResult named = run_octet({"inspect", dir / "both.ckpt", "--key", "ema"});
  expect_success(named);
  EXPECT_TRUE(contains(named.out, "e Float(1)")) << named.out;
  expect_success(run_octet({"convert", dir / "both.ckpt", dir / "e.safetensors", "--key", "ema"}));
  EXPECT_EQ(load_state_dict(dir / "e.safetensors").at("e").item(), 7);
}

TEST(CliWeights, WhatCannotBeDoneIsOneLine) {
  OCTET_NEED_PROGRAM();
  TempDir dir;
  write_files(dir);
  TorchFile file;
  spill(dir / "module.pt", file.zip(global("__main__", "Net") + ")\x81" + dict({}) + "b"));
  spill(dir / "text.safetensors", "not safetensors, but somebody's text");
  std::filesystem::create_directory(dir / "empty");
  struct Case {
    std::vector<std::string> args, parts;
    int code = 1;
  };
  const std::string out = dir / "out.safetensors";
  const Case cases[] = {
      {{"convert", dir / "module.pt", out}, {"module.pt", "class __main__.Net", "state_dict()"}},
      {{"inspect", dir / "module.pt"}, {"module.pt", "class __main__.Net"}},
      {{"convert", dir / "none.pt", out}, {"none.pt: no such file"}},
      {{"convert", dir / "empty", out}, {"a directory without weights"}},
      {{"convert", dir / "w.pth", dir / "w.octet"}, {"w.pth: is no network", ".safetensors"}},
      {{"convert", kNet, out}, {"is a network", "write .onnx or .octet"}},
      {{"convert", dir / "w.pth", dir / "text.safetensors"}, {"is no file of octet's", "--force"}},
      {{"convert", dir / "both.ckpt", out, "--key", "emma"}, {"no key 'emma'", "ema, model"}},
      {{"convert", kNet, dir / "x.octet", "--key", "ema"}, {"--key is for weights"}, 2},
      {{"inspect", kNet, "--key", "ema"}, {"--key is for weights"}, 2},
      {{"convert", dir / "w.pth", dir / "w.pt"}, {"of weights in .safetensors"}, 2},
  };
  for (const Case& c : cases) expect_failure(run_octet(c.args), c.code, c.parts);
  EXPECT_FALSE(std::filesystem::exists(out)) << "nothing was written";
}

}  // namespace
}  // namespace octet::testing
