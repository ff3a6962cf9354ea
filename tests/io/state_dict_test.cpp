#include "octet/io/state_dict.h"

#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>

#include "octet/base/random.h"
#include "octet/io/safetensors.h"
#include "octet/nn/activation.h"
#include "octet/nn/conv.h"
#include "octet/nn/linear.h"
#include "octet/nn/norm.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "octet/quant/workflow/fuse.h"
#include "tests/data.h"
#include "tests/expect_error.h"
#include "tests/io/damage.h"
#include "tests/io/old_file.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::expect_error;
using testing::slurp;
using testing::spill;
using testing::TempDir;
using Json = nlohmann::ordered_json;
using State = std::map<std::string, Tensor>;

void expect_same(const State& a, const State& b) {
  std::vector<std::string> names, others;
  for (const auto& [name, tensor] : a) names.push_back(name);
  for (const auto& [name, tensor] : b) others.push_back(name);
  ASSERT_EQ(names, others);
  for (const auto& [name, tensor] : a) {
    EXPECT_EQ(to_string(tensor.type()), to_string(b.at(name).type())) << name;
    EXPECT_TRUE(equal(tensor, b.at(name))) << name;
  }
}

State all_dtypes() {
  State state;
  for (DType dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::int64,
                      DType::int32, DType::int16, DType::int8, DType::uint8, DType::bool_})
    state[to_string(dtype)] = Tensor::rand({3, 5}, 1, 0, 3).to(dtype);
  Tensor w = Tensor::randn({3, 4}, 2);
  state["quint8"] = quantize_per_tensor(w, 0.1, 3, DType::quint8);
  state["qint8"] = quantize_per_tensor(w, 0.25, -3, DType::qint8);
  state["qint32"] = quantize_per_tensor(w, 1e-6, 2147483647, DType::qint32);
  state["channels"] = quantize_per_channel(w, {0.1, 0.2, 1.0 / 3}, {0, -128, 127}, 0, DType::qint8);
  state["axis 1"] = quantize_per_channel(w, {0.5, 0.25, 1, 2}, {0, 0, 0, 1}, 1, DType::quint8);
  state["strided"] =
      quantize_per_channel(w, {0.5, 0.25, 1}, {0, 0, 0}, 0, DType::qint8).transpose(0, 1);
  state["rows"] = quantize(
      w, Quantizer::per_channel_float({0.1, 0.25, 1}, {0.5, 1.0 / 3, -7}, 0, DType::quint8),
      DType::quint8);
  for (DType dtype : {DType::quint4x2, DType::qint4x2}) {
    state[to_string(dtype)] = quantize_per_tensor(Tensor::randn({3, 5}, 3), 0.2, 1, dtype);
    state[to_string(dtype) + " rows"] =
        quantize(w, Quantizer::per_channel_float({0.1, 0.25, 1}, {0.5, 0.25, -7}, 0, dtype), dtype);
    state[to_string(dtype) + " turned"] = quantize_per_tensor(w, 0.2, 1, dtype).transpose(0, 1);
  }
  state["scalar"] = Tensor::scalar(2.5);
  state["empty"] = Tensor::zeros({0, 4});
  return state;
}

State small() {
  return {{"conv.weight",
           quantize_per_channel(Tensor::randn({2, 3}, 1), {0.5, 0.25}, {0, 1}, 0, DType::qint8)},
          {"conv.bias", Tensor::ones({2})},
          {"x", quantize_per_tensor(Tensor::randn({4}, 2), 0.5, 3, DType::quint8)},
          {"y", quantize_per_tensor(Tensor::randn({3}, 2), 0.5, 3, DType::quint4x2)}};
}

struct Net : nn::Module {
  nn::Slot quant = slot("quant", quant::QuantStub());
  nn::Slot conv = slot("conv", nn::Conv2d(2, 4, 3));
  nn::Slot bn = slot("bn", nn::BatchNorm2d(4));
  nn::Slot relu = slot("relu", nn::ReLU());
  nn::Slot fc = slot("fc", nn::Linear(16, 3));
  nn::Slot dequant = slot("dequant", quant::DeQuantStub());
  Tensor forward(Tensor x) override { return dequant(fc(relu(bn(conv(quant(x)))).flatten(1))); }
};

Tensor batch(uint64_t seed) { return Tensor::randn({3, 2, 4, 4}, seed); }

std::shared_ptr<Net> float_net() {
  auto net = nn::make<Net>();
  net->eval();
  return net;
}
std::shared_ptr<Net> prepared_net(uint64_t seed) {
  auto net = float_net();
  net->qconfig = quant::get_default_qconfig();
  auto prepared = quant::prepare(quant::fuse_modules(net, {{"conv", "bn", "relu"}}));
  prepared->forward(batch(seed));
  return prepared;
}

}  // namespace

TEST(StateDict, EveryDtypeAndSchemeSurvives) {
  TempDir dir;
  for (const State& state : {all_dtypes(), small(), State()}) {
    save_state_dict(dir / "a.safetensors", state);
    State back = load_state_dict(dir / "a.safetensors");
    expect_same(state, back);
    save_state_dict(dir / "b.safetensors", back);
    EXPECT_EQ(slurp(dir / "a.safetensors"), slurp(dir / "b.safetensors"))
        << "saving again gives the same bytes";
  }
}

TEST(StateDict, AnySafetensorsReaderSeesCodesScalesAndZeroPoints) {
  TempDir dir;
  save_state_dict(dir / "a.safetensors", small());
  SafetensorsFile file = read_safetensors(dir / "a.safetensors");
  EXPECT_EQ(file.tensors.size(), 10u);
  EXPECT_TRUE(equal(file.tensors.at("conv.weight"), small().at("conv.weight").int_repr()));
  EXPECT_TRUE(equal(file.tensors.at("conv.weight.scale"), Tensor::from<float>({0.5, 0.25})));
  EXPECT_TRUE(equal(file.tensors.at("conv.weight.zero_point"), Tensor::from<int32_t>({0, 1})));
  EXPECT_EQ(file.tensors.at("x.scale").shape(), Shape{});
  Json entry = Json::parse(file.metadata.at("octet.state"));
  EXPECT_EQ(entry["quantized"][0]["axis"], 0);
  EXPECT_EQ(entry["quantized"][0]["qscheme"], "per_channel_affine");
}

TEST(StateDict, CodesOfFourBitsLieTwoToAByte) {
  TempDir dir;
  Tensor w = quantize_per_tensor(Tensor::randn({3, 5}, 3), 0.2, 1, DType::quint4x2);
  save_state_dict(dir / "a.safetensors", {{"w", w}});
  SafetensorsFile file = read_safetensors(dir / "a.safetensors");
  EXPECT_EQ(file.tensors.at("w").shape(), Shape{8});
  for (const char* shape : {"[3,6]", "[-3,-5]", "[4611686018427387904,4]", "15", "[]", "[3.0,5.0]",
                            "[true,15]", "[3,\"5\"]"}) {
    Json entry = Json::parse(file.metadata.at("octet.state"));
    entry["quantized"][0]["shape"] = Json::parse(shape);
    write_safetensors(dir / "b.safetensors", file.tensors, {{"octet.state", entry.dump()}});
    expect_error(ErrorCode::corrupt, {"b.safetensors", "'w'"},
                 [&] { load_state_dict(dir / "b.safetensors"); });
  }
}

TEST(StateDict, NamesThatLookLikeQparamsAreKept) {
  TempDir dir;
  State state = small();
  state["x.scale"] = Tensor::ones({3});
  state["x.zero_point"] = quantize_per_tensor(Tensor::ones({3}), 0.5, 3, DType::quint8);
  state["x.zero_point.scale"] = Tensor::zeros({1});
  save_state_dict(dir / "a.safetensors", state);
  expect_same(state, load_state_dict(dir / "a.safetensors"));
}

TEST(StateDict, PlainFilesOfOtherToolsLoadAsTheyAre) {
  TempDir dir;
  State state{{"w", Tensor::randn({2, 2}, 1)}, {"w.scale", Tensor::ones({1})}};
  write_safetensors(dir / "a.safetensors", state, {{"format", "pt"}});
  expect_same(state, load_state_dict(dir / "a.safetensors"));
}

TEST(StateDict, LoadedTensorsMayBeWrittenTo) {
  TempDir dir;
  save_state_dict(dir / "a.safetensors", small());
  State back = load_state_dict(dir / "a.safetensors");
  back.at("conv.bias").data<float>()[0] = 7;
  expect_same(small(), load_state_dict(dir / "a.safetensors"));
}

TEST(StateDict, WritesAtomically) {
  TempDir dir;
  save_state_dict(dir / "a.safetensors", small());
  // mapped: replacing the file must not change it
  State loaded = load_state_dict(dir / "a.safetensors");
  save_state_dict(dir / "a.safetensors", all_dtypes());
  expect_same(loaded, small());
  EXPECT_EQ(testing::count_files(dir.path()), 1u) << "no temporary file stays";
  expect_error(ErrorCode::invalid_argument, {"'z'", "undefined"}, [&] {
    save_state_dict(dir / "a.safetensors", {{"z", Tensor()}});
  });
  expect_same(load_state_dict(dir / "a.safetensors"), all_dtypes());
  expect_error(ErrorCode::invalid_argument, {"UTF-8"}, [&] {
    save_state_dict(dir / "a.safetensors",
                    {{"\xff", quantize_per_tensor(Tensor::ones({1}), 1, 0, DType::qint8)}});
  });
  expect_error(ErrorCode::not_found, {"nothing.safetensors"},
               [&] { load_state_dict(dir / "nothing.safetensors"); });
}

TEST(StateDict, DamageNamesFileAndField) {
  TempDir dir;
  save_state_dict(dir / "a.safetensors", small());
  struct Case {
    const char* what;
    void (*damage)(Json& entry, std::map<std::string, Tensor>& tensors);
    std::vector<std::string> parts;
    ErrorCode code = ErrorCode::corrupt;
  };
  const Case cases[] = {
      {"no list",
       [](Json& j, auto&) { j["quantized"] = 3; },
       {"octet.state", "'quantized' is not a list"}},
      {"no format", [](Json& j, auto&) { j.erase("format"); }, {"'format' is missing"}},
      {"newer",
       [](Json& j, auto&) { j["format"] = 3; },
       {"file format 3", "reads up to 2", "update octet"},
       ErrorCode::unsupported},
      {"no name",
       [](Json& j, auto&) { j["quantized"][0].erase("name"); },
       {"quantized tensor 0", "'name' is missing"}},
      {"unknown dtype",
       [](Json& j, auto&) { j["quantized"][0]["dtype"] = "qint7"; },
       {"'conv.weight'", "qint7"}},
      {"plain dtype",
       [](Json& j, auto&) { j["quantized"][0]["dtype"] = "float32"; },
       {"'conv.weight'", "float32"}},
      {"other dtype",
       [](Json& j, auto&) { j["quantized"][0]["dtype"] = "quint8"; },
       {"'conv.weight'", "int8", "uint8"}},
      {"unknown scheme",
       [](Json& j, auto&) { j["quantized"][0]["qscheme"] = "per_row"; },
       {"'conv.weight'", "per_row"}},
      {"per tensor",
       [](Json& j, auto&) { j["quantized"][0]["qscheme"] = "per_tensor_affine"; },
       {"'conv.weight'", "2 scales"}},
      {"no axis",
       [](Json& j, auto&) { j["quantized"][0].erase("axis"); },
       {"'conv.weight'", "'axis' is missing"}},
      {"bad axis", [](Json& j, auto&) { j["quantized"][0]["axis"] = 1; }, {"'conv.weight'"}},
      {"far axis", [](Json& j, auto&) { j["quantized"][0]["axis"] = 9; }, {"'conv.weight'"}},
      {"negative axis",
       [](Json& j, auto&) { j["quantized"][0]["axis"] = -1; },
       {"'conv.weight'", "axis -1"}},
      {"no scale",
       [](Json&, auto& t) { t.erase("conv.weight.scale"); },
       {"'conv.weight'", "'conv.weight.scale' is not in the file"}},
      {"no codes", [](Json&, auto& t) { t.erase("x"); }, {"'x'", "not in the file"}},
      {"integer scale",
       [](Json&, auto& t) { t["x.scale"] = Tensor::ones({}, DType::int32); },
       {"'x'", "expected float64 or float32"}},
      {"zero scale", [](Json&, auto& t) { t["x.scale"] = Tensor::zeros({}); }, {"'x'", "scale 0"}},
      {"NaN scale",
       [](Json&, auto& t) { t["x.scale"] = Tensor::full({}, std::nan("")); },
       {"'x'", "nan"}},
      {"zero point",
       [](Json&, auto& t) { t["x.zero_point"] = Tensor::full({}, 256, DType::int32); },
       {"'x'", "zero_point 256"}},
      {"missing channel",
       [](Json&, auto& t) { t["conv.weight.scale"] = Tensor::ones({1}); },
       {"'conv.weight'"}},
      {"twice",
       [](Json& j, auto&) { j["quantized"].push_back(j["quantized"][0]); },
       {"'conv.weight' occurs twice"}},
      {"both",
       [](Json& j, auto& t) {
         t["x"] = Tensor::ones({2}, DType::int32);
         j["quantized"][1]["dtype"] = "qint32";
         j["quantized"][0]["zero_point"] = "x";
       },
       {"'x' is both"}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.what);
    SafetensorsFile file = read_safetensors(dir / "a.safetensors");
    Json entry = Json::parse(file.metadata.at("octet.state"));
    c.damage(entry, file.tensors);
    file.metadata["octet.state"] = entry.dump();
    write_safetensors(dir / "bad.safetensors", file.tensors, file.metadata);
    auto parts = c.parts;
    parts.push_back("bad.safetensors");
    expect_error(c.code, parts, [&] { load_state_dict(dir / "bad.safetensors"); });
  }
  SafetensorsFile file = read_safetensors(dir / "a.safetensors");
  file.metadata["octet.state"] = "{";
  write_safetensors(dir / "bad.safetensors", file.tensors, file.metadata);
  expect_error(ErrorCode::corrupt, {"octet.state", "not valid JSON"},
               [&] { load_state_dict(dir / "bad.safetensors"); });
}

// -- traps.md -------------------------------------------------------------------------------------

TEST(StateDictTraps, SaveAndLoadLosesDtypes) {
  TempDir dir;
  State state = quant::convert(prepared_net(1))->state_dict();
  save_state_dict(dir / "a.safetensors", state);
  State back = load_state_dict(dir / "a.safetensors");
  for (const auto& [name, tensor] : state)
    EXPECT_EQ(to_string(tensor), to_string(back.at(name))) << name;
  EXPECT_EQ(back.at("conv.weight").dtype(), DType::qint8);
  EXPECT_EQ(back.at("conv.weight").qscheme(), QScheme::per_channel_affine);
}

// The users' "Saving and Loading Quantized models": the state of one model in another that was
// prepared and converted anew.
TEST(StateDictTraps, AQuantizedStateDictLoadsIntoAFreshlyConvertedModel) {
  TempDir dir;
  auto original = quant::convert(prepared_net(1));
  save_state_dict(dir / "a.safetensors", original->state_dict());
  auto fresh = quant::convert(prepared_net(77));
  ASSERT_FALSE(equal(fresh->forward(batch(5)), original->forward(batch(5))));
  fresh->load_state_dict(load_state_dict(dir / "a.safetensors"));
  EXPECT_TRUE(equal(fresh->forward(batch(5)), original->forward(batch(5))));
}

TEST(StateDictTraps, LoadingAFloatStateDictIntoAQuantizedModelOrTheReverse) {
  TempDir dir;
  auto net = float_net();
  auto int8 = quant::convert(prepared_net(1));
  save_state_dict(dir / "float.safetensors", net->state_dict());
  save_state_dict(dir / "int8.safetensors", int8->state_dict());
  Tensor before = int8->forward(batch(2));
  expect_error(ErrorCode::invalid_argument,
               {"fc.weight is float32 in the state dict and qint8 in the model",
                "load it before prepare and convert", "fc.scale"},
               [&] { int8->load_state_dict(load_state_dict(dir / "float.safetensors")); });
  EXPECT_TRUE(equal(int8->forward(batch(2)), before)) << "nothing was changed";
  expect_error(ErrorCode::invalid_argument,
               {"fc.weight is qint8 in the state dict and float32 in the model",
                "prepare and convert the model first", "fc.scale"},
               [&] { net->load_state_dict(load_state_dict(dir / "int8.safetensors")); });
}

TEST(StateDictTraps, APreparedStateDictGoesOnWhereCalibrationWas) {
  TempDir dir;
  auto original = prepared_net(1), fresh = prepared_net(77);
  save_state_dict(dir / "a.safetensors", original->state_dict());
  fresh->load_state_dict(load_state_dict(dir / "a.safetensors"));
  for (auto& model : {original, fresh}) model->forward(batch(9));
  expect_same(original->state_dict(), fresh->state_dict());
  EXPECT_TRUE(
      equal(quant::convert(original)->forward(batch(5)), quant::convert(fresh)->forward(batch(5))));
}

// -- other tools, damage --------------------------------------------------------------------------

TEST(DataStateDict, AFileMadeByPyTorchLoads) {
  OCTET_NEED_DATA("models/silero_vad_16k.safetensors");
  State state = load_state_dict(testing::data_dir() / "models/silero_vad_16k.safetensors");
  ASSERT_GT(state.size(), 10u);
  for (const auto& [name, tensor] : state) {
    EXPECT_EQ(tensor.dtype(), DType::float32) << name;
    EXPECT_GT(tensor.numel(), 0) << name;
  }
  TempDir dir;
  save_state_dict(dir / "again.safetensors", state);
  expect_same(state, load_state_dict(dir / "again.safetensors"));
}

TEST(FuzzStateDict, DamagedFilesAreErrorsOrTensors) {
  TempDir dir;
  save_state_dict(dir / "a.safetensors", small());
  testing::spill(dir / "a.safetensors",
                 testing::without_checksums(testing::slurp(dir / "a.safetensors")));
  int refused =
      testing::damage_file(dir / "a.safetensors", 1500, [](const std::filesystem::path& path) {
        for (const auto& [name, tensor] : load_state_dict(path)) to_string(tensor);
      });
  EXPECT_GT(refused, 700);
}

}  // namespace octet
