// What torch.save wrote, from bytes made here (tests/io/torch_bytes.h); from PyTorch itself:
// pytorch_golden_test.cpp.
#include "octet/io/pytorch_file.h"

#include <gtest/gtest.h>

#include "octet/io/state_dict.h"
#include "octet/nn/linear.h"
#include "tests/expect_error.h"
#include "tests/io/torch_bytes.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using namespace testing;  // NOLINT: the opcodes
using State = std::map<std::string, Tensor>;
using Notes = std::vector<std::string>;

// The state dict of a file of these bytes.
State read_bytes(const std::string& bytes, const std::string& key = "", Notes* notes = nullptr) {
  TempDir dir;
  spill(dir / "weights.pt", bytes);
  return read_pytorch(dir / "weights.pt", key, notes);
}
void expect_refused(ErrorCode code, const std::vector<std::string>& parts, const std::string& bytes,
                    const std::string& key = "") {
  expect_error(code, parts, [&] { read_bytes(bytes, key); });
}
Notes names(const State& state) {
  Notes result;
  for (const auto& [name, tensor] : state) result.push_back(name);
  return result;
}
const std::string kPerTensor = global("torch", "per_tensor_affine"),
                  kPerChannel = global("torch", "per_channel_affine"),
                  kParameter = global("torch._utils", "_rebuild_parameter");

TEST(PyTorchFile, TensorsOfAStateDictHaveTheirNamesTypesAndNumbers) {
  TorchFile file;
  const std::string state =
      ordered({{"fc.weight", file.floats({1, 2, 3, 4, 5, 6}, {2, 3})},
               {"fc.bias", file.floats({-1, 0.5}, {2})},
               {"steps", file.tensor("LongStorage", TorchFile::raw<int64_t>({7}), {})},
               {"none", kNone},
               {"empty", file.floats({}, {0, 3})}});
  // _metadata, which PyTorch puts on the dict
  const State got = read_bytes(file.zip(state + dict({{"_metadata", ordered({})}}) + "b"));
  EXPECT_EQ(names(got), (Notes{"empty", "fc.bias", "fc.weight", "steps"}));
  EXPECT_TRUE(equal(got.at("fc.weight"), Tensor::from<float>({1, 2, 3, 4, 5, 6}).reshape({2, 3})));
  EXPECT_TRUE(equal(got.at("fc.bias"), Tensor::from<float>({-1, 0.5})));
  EXPECT_TRUE(equal(got.at("steps"), Tensor::scalar(7, DType::int64)));
  EXPECT_TRUE(equal(got.at("empty"), Tensor::zeros({0, 3})));
}

TEST(PyTorchFile, EveryClassOfStoragesIsADType) {
  struct Case {
    const char* storage;
    DType dtype;
    std::string bytes;
    double value;
  };
  const Case cases[] = {
      {"FloatStorage", DType::float32, TorchFile::raw<float>({1.5}), 1.5},
      {"DoubleStorage", DType::float64, TorchFile::raw<double>({1.5}), 1.5},
      {"HalfStorage", DType::float16, TorchFile::raw<uint16_t>({0x3e00}), 1.5},
      {"BFloat16Storage", DType::bfloat16, TorchFile::raw<uint16_t>({0x3fc0}), 1.5},
      {"LongStorage", DType::int64, TorchFile::raw<int64_t>({-5}), -5},
      {"IntStorage", DType::int32, TorchFile::raw<int32_t>({-5}), -5},
      {"ShortStorage", DType::int16, TorchFile::raw<int16_t>({-5}), -5},
      {"CharStorage", DType::int8, TorchFile::raw<int8_t>({-5}), -5},
      {"ByteStorage", DType::uint8, TorchFile::raw<uint8_t>({250}), 250},
      {"BoolStorage", DType::bool_, TorchFile::raw<uint8_t>({1}), 1}};
  for (const Case& c : cases) {
    TorchFile file;
    const State got = read_bytes(file.zip(dict({{"x", file.tensor(c.storage, c.bytes, {1})}})));
    EXPECT_EQ(got.at("x").dtype(), c.dtype);
    EXPECT_EQ(got.at("x").to(DType::float64).item(), c.value) << c.storage;
  }
}

TEST(PyTorchFile, ViewsKeepTheirStridesAndShareTheirStorage) {
  TorchFile file;
  std::vector<float> values(24);
  for (size_t i = 0; i < 24; ++i) values[i] = static_cast<float>(i);
  const std::string all = file.storage("FloatStorage", TorchFile::raw(values), 24);
  const std::string again = file.storage_again(0, "FloatStorage", 24);
  TempDir dir;
  spill(dir / "a.pt", file.zip(dict({{"rows", TorchFile::view(all, 0, {4, 6}, {6, 1})},
                                     {"turned", TorchFile::view(again, 0, {6, 4}, {1, 6})},
                                     {"part", TorchFile::view(again, 4, {3}, {2})},
                                     {"repeated", TorchFile::view(again, 23, {2, 2}, {0, 0})}})));
  const std::string before = slurp(dir / "a.pt");
  State got = read_pytorch(dir / "a.pt");
  const Tensor rows = Tensor::from(values, {4, 6});
  EXPECT_TRUE(equal(got.at("rows"), rows));
  EXPECT_TRUE(equal(got.at("turned"), rows.transpose(0, 1)));
  EXPECT_EQ(got.at("turned").strides(), (std::vector<int64_t>{1, 6}));
  EXPECT_TRUE(equal(got.at("part"), Tensor::from<float>({4, 6, 8})));
  EXPECT_TRUE(equal(got.at("repeated"), Tensor::full({2, 2}, 23)));
  got.at("rows").data<float>()[4] = 100;
  EXPECT_EQ(got.at("part").at({0}), 100) << "one memory";
  EXPECT_EQ(slurp(dir / "a.pt"), before) << "not the file's";
}

TEST(PyTorchFile, DataThatIsNotAlignedOrIsCompressedIsCopied) {
  TorchFile file;
  const std::string state = dict({{"x", file.floats({1, 2, 3}, {3})}});
  for (const size_t alignment : {1, 2, 3, 8})
    EXPECT_TRUE(equal(read_bytes(zip_of(file.members(state), alignment)).at("x"),
                      Tensor::from<float>({1, 2, 3})));
}

TEST(PyTorchFile, ParametersAndLaterFormsOfTensors) {
  TorchFile file;
  const std::string untyped = file.storage("UntypedStorage", TorchFile::raw<float>({8, 9}), 8);
  auto floats = [&](float value) { return file.floats({value}, {1}); };
  const std::string storage = file.storage("FloatStorage", TorchFile::raw<float>({5}), 1);
  const State got = read_bytes(file.zip(dict({
      {"parameter", reduce(kParameter, {floats(1), kTrue, ordered({})})},
      {"with state", reduce(global("torch._utils", "_rebuild_parameter_with_state"),
                            {floats(2), kTrue, ordered({}), dict({})})},
      {"v3", reduce(global("torch._utils", "_rebuild_tensor_v3"),
                    {untyped, num(0), numbers({2}), numbers({1}), kFalse, ordered({}),
                     global("torch", "float32"), kNone})},
      {"class",
       reduce(
           global("torch._tensor", "_rebuild_from_type_v2"),
           {global("torch._utils", "_rebuild_tensor_v2"), global("torch.nn.parameter", "Parameter"),
            tuple({storage, num(0), numbers({1}), numbers({1}), kTrue, ordered({})}), dict({})})},
  })));
  EXPECT_EQ(got.at("parameter").item(), 1);
  EXPECT_EQ(got.at("with state").item(), 2);
  EXPECT_TRUE(equal(got.at("v3"), Tensor::from<float>({8, 9})));
  EXPECT_EQ(got.at("class").item(), 5);
}

TEST(PyTorchFile, QuantizedTensorsBecomeOctets) {
  TorchFile file;
  const std::string scales = file.tensor("DoubleStorage", TorchFile::raw<double>({0.5, 0.25}), {2}),
                    zeros = file.tensor("LongStorage", TorchFile::raw<int64_t>({1, -1}), {2}),
                    halves = file.floats({0.5, 1.5}, {2});
  const State got = read_bytes(file.zip(dict({
      {"a", file.qtensor("QUInt8Storage", "\1\2\xff", {3}, tuple({kPerTensor, real(0.1), num(3)}))},
      {"b", file.qtensor("QInt8Storage", "\1\2\3\xff", {2, 2},
                         tuple({kPerChannel, scales, zeros, num(1)}))},
      {"c", file.qtensor("QInt32Storage", TorchFile::raw<int32_t>({1, -70000}), {2},
                         tuple({kPerTensor, real(1), num(0)}))},
      {"lists", file.qtensor("QInt8Storage", "\1\2", {2, 1},
                             tuple({kPerChannel, list({real(1), real(2)}), list({num(0), num(3)}),
                                    num(0)}))},
      // PyTorch writes per_channel_affine beside float zero points.
      {"rows",
       file.qtensor("QUInt8Storage", "\1\2", {2, 1}, tuple({kPerChannel, scales, halves, num(0)}))},
  })));
  auto codes = [](std::vector<int8_t> values, const Shape& shape) {
    return Tensor::from(values, shape);
  };
  EXPECT_TRUE(equal(got.at("a"), make_quantized(Tensor::from<uint8_t>({1, 2, 255}),
                                                Quantizer::per_tensor(0.1, 3, DType::quint8))));
  EXPECT_TRUE(equal(got.at("b"),
                    make_quantized(codes({1, 2, 3, -1}, {2, 2}),
                                   Quantizer::per_channel({0.5, 0.25}, {1, -1}, 1, DType::qint8))));
  EXPECT_TRUE(equal(got.at("c"), make_quantized(Tensor::from<int32_t>({1, -70000}),
                                                Quantizer::per_tensor(1, 0, DType::qint32))));
  EXPECT_TRUE(equal(got.at("lists"),
                    make_quantized(codes({1, 2}, {2, 1}),
                                   Quantizer::per_channel({1, 2}, {0, 3}, 0, DType::qint8))));
  EXPECT_TRUE(equal(
      got.at("rows"),
      make_quantized(Tensor::from<uint8_t>({1, 2}).reshape({2, 1}),
                     Quantizer::per_channel_float({0.5, 0.25}, {0.5, 1.5}, 0, DType::quint8))));
}

TEST(PyTorchFile, CodesOfFourBitsLieTwoToAByte) {
  TorchFile file;
  auto rows = [&](const std::vector<int64_t>& shape, const std::string& bytes) {
    const std::string storage =
        file.storage("QUInt4x2Storage", bytes, static_cast<int64_t>(bytes.size()));
    return file.zip(
        dict({{"x", reduce(global("torch._utils", "_rebuild_qtensor"),
                           {storage, num(0), numbers(shape), numbers(TorchFile::row_major(shape)),
                            tuple({kPerTensor, real(0.5), num(1)}), kFalse, ordered({})})}}));
  };
  const State got = read_bytes(rows({2, 2}, "\x21\x43"));
  EXPECT_TRUE(equal(got.at("x").int_repr(), Tensor::from<uint8_t>({1, 2, 3, 4}).reshape({2, 2})));
  expect_refused(ErrorCode::unsupported, {"'x'", "an even last size"}, rows({2, 3}, "1234"));
}

// A quantized Linear's state dict has its weight and bias in one entry, an embedding's its weight.
TEST(PyTorchFile, PackedParametersBecomeWeightAndBias) {
  TorchFile file;
  auto weight = [&] {
    return file.qtensor("QInt8Storage", "\1\2", {1, 2}, tuple({kPerTensor, real(1), num(0)}));
  };
  const std::string qint8 = global("torch", "qint8");
  Notes notes;
  const State got = read_bytes(
      file.zip(ordered({{"fc._packed_params.dtype", qint8},
                        {"fc._packed_params._packed_params",
                         tuple({weight(), reduce(kParameter, {file.floats({3}, {1}), kTrue})})},
                        {"fc.scale", file.floats({0.5}, {})},
                        {"last._packed_params._packed_params", tuple({weight(), kNone})},
                        {"emb._packed_params._packed_weight", weight()},
                        {"_packed_params._packed_params", tuple({weight(), kNone})}})),
      "", &notes);
  EXPECT_EQ(names(got),
            (Notes{"emb.weight", "fc.bias", "fc.scale", "fc.weight", "last.weight", "weight"}));
  EXPECT_EQ(got.at("fc.bias").item(), 3);
  EXPECT_EQ(got.at("fc.weight").dtype(), DType::qint8);
  EXPECT_EQ(notes, Notes());
}

// -- checkpoints ----------------------------------------------------------------------------------

TEST(PyTorchFile, TheStateDictOfACheckpointIsFound) {
  auto value_of = [](const Entries& more, const std::string& key = "", Notes* notes = nullptr) {
    TorchFile file;
    Entries all{{"epoch", num(3)}, {"best", file.floats({0.5}, {})}};
    for (const auto& [name, value] : more)
      all.emplace_back(
          name, value.empty() ? ordered({{"w", file.floats({static_cast<float>(all.size())}, {})}})
                              : value);
    return read_bytes(file.zip(dict(all)), key, notes).at("w").item();
  };
  const std::string adam = dict({{"state", dict({})}, {"param_groups", list({})}}),
                    args =
                        global("argparse", "Namespace") + ")\x81" + dict({{"lr", real(1)}}) + "b";
  Notes notes;
  EXPECT_EQ(value_of({{"net", ""}, {"optimizer", adam}, {"args", args}}, "", &notes), 2);
  EXPECT_EQ(notes, Notes()) << "there is one only";
  EXPECT_EQ(value_of({{"ema", ""}, {"model", ""}}, "", &notes), 3);
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("read is 'model'; it also holds the state dicts ema"), notes[0].npos);
  EXPECT_EQ(value_of({{"model", ""}, {"model_state_dict", ""}, {"state_dict", ""}}), 4);
  EXPECT_EQ(value_of({{"ema", ""}, {"model", ""}}, "ema"), 2);
  // a module's extra state
  EXPECT_EQ(value_of({{"w._extra_state", ""}, {"w", TorchFile().floats({9}, {})}}), 0.5)
      << "storage 0 is the one of 'best'";
  expect_error(ErrorCode::unsupported, {"2 state dicts", "--key", "D, G"}, [&] {
    value_of({{"G", ""}, {"D", ""}});
  });
  expect_error(ErrorCode::not_found, {"no key 'modell'", "did you mean 'model'"}, [&] {
    value_of({{"model", ""}}, "modell");
  });
  expect_error(ErrorCode::unsupported, {"'epoch' is an int, not a state dict; there are: model"},
               [&] {
                 value_of({{"model", ""}}, "epoch");
               });
}

TEST(PyTorchFile, PrefixesOfDataParallelAndCompileAreTakenOff) {
  auto read = [](const std::vector<std::string>& keys, Notes* notes) {
    TorchFile file;
    Entries all;
    for (const std::string& key : keys) all.emplace_back(key, file.floats({1}, {}));
    return names(read_bytes(file.zip(ordered(all)), "", notes));
  };
  Notes notes;
  EXPECT_EQ(read({"module.a.weight", "module.b.weight"}, &notes), (Notes{"a.weight", "b.weight"}));
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("'module.'"), notes[0].npos);
  EXPECT_EQ(read({"_orig_mod.module.a", "_orig_mod.module.b"}, &notes), (Notes{"a", "b"}));
  EXPECT_EQ(read({"module._orig_mod.a"}, &notes), Notes{"a"});
  notes.clear();
  EXPECT_EQ(read({"module.a", "other"}, &notes), (Notes{"module.a", "other"}));
  EXPECT_EQ(read({"module."}, &notes), Notes{"module."});
  EXPECT_EQ(notes, Notes());
}

TEST(PyTorchFile, EntriesThatAreNoTensorsAreNamed) {
  TorchFile file;
  Notes notes;
  const State got =
      read_bytes(file.zip(dict({{"w", file.floats({1}, {})},
                                {"version", num(2)},
                                {"shape", reduce(global("torch", "Size"), {numbers({1, 2})})}})),
                 "", &notes);
  EXPECT_EQ(names(got), Notes{"w"});
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("shape (a torch.Size), version (an int)"), notes[0].npos) << notes[0];
}

TEST(PyTorchFile, TheLastOfEqualKeysHolds) {
  TorchFile file;
  const State got =
      read_bytes(file.zip(dict({{"w", file.floats({1}, {})}, {"w", file.floats({2}, {})}})));
  EXPECT_EQ(got.at("w").item(), 2);
}

TEST(PyTorchFile, AnEmptyStateDictIsOne) {
  EXPECT_EQ(read_bytes(TorchFile().zip(ordered({}))).size(), 0u);
}

// -- pickles --------------------------------------------------------------------------------------

// The opcodes that protocols 3 to 5 have beside those of protocol 2, and Python 2's strings.
TEST(PyTorchFile, OpcodesOfEveryProtocolAreRead) {
  TorchFile file;
  const std::string w = file.floats({1, 2}, {2});
  auto text = [](const std::string& s) { return "\x8c" + le(s.size(), 1) + s; };
  const std::string junk =
      text("bytes") + "C\3abc" + text("long bytes") + "B" + le(2, 4) + "ab" + text("longer") +
      "\x8e" + le(1, 8) + "a" + text("bytearray") + "\x96" + le(1, 8) + "a" + text("set") +
      "\x8f(K\1K\2\x90" + text("frozen") + "(K\1\x91" + text("list") + "(K\1K\2l" + text("dict") +
      "(" + text("a") + "K\1d" + text("one") + "K\1\x85" + text("two") + "K\1K\2\x86" +
      text("three") + "K\1K\2K\3\x87" + text("longs") + "\x8b" + le(9, 4) + std::string(9, '\1') +
      text("minus") + "\x8a\1\xff" + text("popped") + "K\1K\2" + "0" + text("popped mark") +
      "K\1(K\2K\3" + "1" + text("twice") + "K\1" + "20" + text("append") + "]K\1a" +
      text("object") + global("argparse", "Namespace") + ")}\x92" + "}b" + text("J") +
      "J\xff\xff\xff\xff" + text("M") + "M\1\2" + "U\1sT" + le(1, 4) + "s";
  for (int protocol = 2; protocol <= 5; ++protocol) {
    std::string body = text("collections") + text("OrderedDict") + "\x93\x94)R\x94(" + text("w") +
                       "\x94" + w + "\x94" + junk + "u" + "}" + "X" + le(1, 4) + "k" + "K\1" + "s" +
                       "b" + ".";
    std::string pickle = "\x80" + le(static_cast<uint64_t>(protocol), 1);
    if (protocol >= 4) pickle += "\x95" + le(body.size(), 8);
    auto members = file.members("");
    members[0].contents = pickle + body;
    EXPECT_TRUE(equal(read_bytes(zip_of(members)).at("w"), Tensor::from<float>({1, 2})));
  }
  // the memo, as PyTorch's own pickles use it
  const std::string name = "X" + le(1, 4) + "v";
  const State got = read_bytes(file.zip("}(" + name + "q\5" + w + "r" + le(300, 4) + "X" +
                                        le(1, 4) + "uj" + le(300, 4) + "u"));
  EXPECT_EQ(names(got), (Notes{"u", "v"}));
  // OrderedDict([[key, value]]), as Python 2 wrote it
  EXPECT_EQ(names(read_bytes(file.zip(
                reduce(global("collections", "OrderedDict"), {list({list({str("p"), w})})})))),
            Notes{"p"});
}

TEST(PyTorchFile, NothingThatAFileNamesIsRun) {
  TorchFile file;
  const std::string w = file.floats({1}, {});
  auto call = [&](const std::string& module, const std::string& name) {
    return reduce(global(module, name), {str("touch /tmp/octet-was-here")});
  };
  for (const auto& [module, name] : std::vector<std::pair<std::string, std::string>>{
           {"os", "system"},
           {"posix", "system"},
           {"builtins", "eval"},
           {"__builtin__", "getattr"},
           {"torch._utils", "_rebuild_wrapper_subclass"},
           {"torch.hub", "load"},
           {"subprocess", "Popen"}}) {
    SCOPED_TRACE(name);
    const std::string named = module + "." + name;
    expect_refused(ErrorCode::unsupported, {"weights.pt", named, "octet runs nothing"},
                   file.zip(call(module, name)));
    expect_refused(ErrorCode::unsupported, {named},
                   file.zip(dict({{"w", w}, {"x", call(module, name)}})));
    expect_refused(ErrorCode::unsupported, {named},
                   file.zip(call(module, name) + "0" + dict({{"w", w}})));
  }
  expect_refused(
      ErrorCode::unsupported,
      {"holds a whole module", "class torch.nn.modules.container.Sequential", "state_dict()"},
      file.zip(global("torch.nn.modules.container", "Sequential") + ")\x81" + dict({}) + "b"));
}

TEST(PyTorchFile, WhatIsNoStateDictSaysWhatToDo) {
  TorchFile file;
  const std::string w = file.floats({1}, {}), state = dict({{"w", w}});
  auto with = [&](const ZipMember& more) {
    auto members = file.members(state);
    members.push_back(more);
    return zip_of(members);
  };
  struct Case {
    std::string bytes;
    std::vector<std::string> parts;
    ErrorCode code = ErrorCode::unsupported;
  };
  const Case cases[] = {
      {with({"archive/code/__torch__.py", ""}),
       {"TorchScript", "torch.jit.load('weights.pt').state_dict()"}},
      {with({"archive/constants.pkl", ""}), {"TorchScript"}},
      {with({"data.pkl", ""}), {"holds both"}, ErrorCode::corrupt},
      {zip_of({{"x.npy", ""}}), {"zip archive without data.pkl"}},
      {"PK\3\4", {"no end record"}, ErrorCode::corrupt},
      {"some text", {"not a PyTorch file"}, ErrorCode::corrupt},
      {"", {"not a PyTorch file"}, ErrorCode::corrupt},
      {pickled(state), {"a pickle that torch.save did not write"}},
      {file.zip(w), {"holds one tensor, not a state dict"}},
      {file.zip(list({w})), {"holds a list or tuple, not a state dict"}},
      {file.zip(dict({{"epoch", num(1)}})), {"holds no state dict", "(epoch)"}},
      {file.zip("}(K\1" + w + "u"), {"holds no state dict"}},
      {file.zip(dict({{"x", file.tensor("ComplexFloatStorage", std::string(8, 0), {1})}})),
       {"'x'", "is complex64", "expected float32"}},
      {file.zip(dict({{"x", reduce(global("torch._utils", "_rebuild_sparse_tensor"), {})}})),
       {"sparse tensor", "to_dense()"}},
      {file.zip(dict({{"x", global("torch", "ScriptObject") + ")R"}})),
       {"quantized recurrent layer", "torch.ScriptObject"}},
      {file.zip(dict({{"x", reduce(global("torch.storage", "_load_from_bytes"), {})}})),
       {"pickle wrote and not torch.save"}},
      {file.zip(
           dict({{"x", TorchFile::view(file.storage("UntypedStorage", "1234", 4), 0, {1}, {1})}})),
       {"'x'", "is bytes"}},
  };
  for (const Case& c : cases) {
    auto parts = c.parts;
    parts.push_back("weights.pt");
    expect_refused(c.code, parts, c.bytes);
  }
  auto big = file.members(state);
  big[1].contents = "big";
  expect_refused(ErrorCode::unsupported, {"big endian"}, zip_of(big));
}

// -- damage ---------------------------------------------------------------------------------------

TEST(PyTorchFile, DamageNamesFileAndTensor) {
  TorchFile file;
  const std::string four = file.storage("FloatStorage", TorchFile::raw<float>({1, 2, 3, 4}), 4);
  auto again = [&](int64_t elements) { return file.storage_again(0, "FloatStorage", elements); };
  auto view = [&](int64_t offset, const std::vector<int64_t>& shape,
                  const std::vector<int64_t>& strides) {
    return TorchFile::view(four, offset, shape, strides);
  };
  auto made = [&](const Items& args) {
    return reduce(global("torch._utils", "_rebuild_tensor_v2"), args);
  };
  const int64_t huge = int64_t{1} << 62;
  const std::string q = tuple({kPerTensor, real(1), num(0)});
  auto quantized = [&](const std::string& qparams) {
    return file.qtensor("QInt8Storage", "ab", {2}, qparams);
  };
  std::string chain = view(0, {1}, {1});
  for (int i = 0; i < 20; ++i) chain = reduce(kParameter, {chain});
  struct Case {
    std::string tensor, part;
    ErrorCode code = ErrorCode::corrupt;
  };
  const Case cases[] = {
      {view(1, {4}, {1}), "beyond its storage"},
      {view(5, {}, {}), "beyond its storage"},
      {view(5, {0}, {1}), "beyond its storage"},
      {view(0, {3}, {2}), "beyond its storage"},
      {view(0, {2, 2}, {1, huge}), "beyond its storage"},
      {view(0, {huge, huge}, {0, 0}), "beyond its storage"},
      {view(0, {huge, huge, 0}, {0, 0, 0}), "beyond its storage"},
      {view(huge, {1}, {1}), "beyond its storage"},
      {view(0, {int64_t{1} << 40}, {0}), "more than the", ErrorCode::unsupported},
      {view(0, {-1}, {1}), "its shape is -1"},
      {view(0, {1}, {-1}), "its strides is -1"},
      {view(-1, {1}, {1}), "its storage offset is -1"},
      {view(0, {2, 2}, {1}), "shape (2, 2) and strides (1)"},
      {view(0, std::vector<int64_t>(65, 1), std::vector<int64_t>(65, 1)), "65 dimensions",
       ErrorCode::unsupported},
      {TorchFile::view(again(5), 0, {1}, {1}), "5 elements of 4 bytes, the file 16"},
      {TorchFile::view(again(huge), 0, {1}, {1}), "elements of 4 bytes, the file 16"},
      {TorchFile::view(again(-1), 0, {1}, {1}), "its size is none"},
      {TorchFile::view(file.storage_again(99, "FloatStorage", 1), 0, {1}, {1}),
       "its storage '99' is not in the file"},
      {TorchFile::view(num(0), 0, {1}, {1}), "its storage is damaged: it is an int"},
      {TorchFile::view(num(0) + "Q", 0, {1}, {1}), "its storage is damaged"},
      {TorchFile::view(tuple({str("storage")}) + "Q", 0, {1}, {1}), "its storage is damaged"},
      {TorchFile::view(tuple({str("module")}) + "Q", 0, {1}, {1}), "whole module",
       ErrorCode::unsupported},
      {TorchFile::view(
           tuple({str("storage"), global("torch", "float32"), str("0"), str("cpu"), num(1)}) + "Q",
           0, {1}, {1}),
       "its class is none"},
      {made({}), "argument 0 is missing"},
      {made({four}), "argument 1 is missing"},
      {made({four, num(0), num(1), num(1)}), "its shape is an int"},
      {made({four, str("0"), numbers({1}), numbers({1})}), "its storage offset is a str"},
      {made({four, num(0), tuple({str("1")}), numbers({1})}), "its shape is a str"},
      {chain, "a parameter of a parameter"},
      {reduce(kParameter, {num(1)}), "an int is no tensor"},
      {reduce(kParameter, {}), "argument 0 is missing"},
      {TorchFile::view(file.storage("BoolStorage", "\2", 1), 0, {1}, {1}), "a bool is 2"},
      {TorchFile::view(file.storage("QInt8Storage", "\2", 1), 0, {1}, {1}), "without qparams"},
      {file.qtensor("CharStorage", "a", {1}, q), "with qparams"},
      {quantized(num(1)), "argument 0 is missing"},
      {quantized(tuple({kPerTensor, real(0), num(0)})), "scale 0"},
      {quantized(tuple({kPerTensor, real(1), num(128)})), "zero_point 128"},
      {quantized(tuple({kPerTensor, num(1), num(0)})), "its scale or zero point is none"},
      {quantized(tuple({global("torch", "per_tensor_symmetric"), real(1), num(0)})),
       "its qscheme is torch.per_tensor_symmetric", ErrorCode::unsupported},
      {quantized(tuple({kPerChannel, list({real(1)}), list({num(0)}), num(0)})),
       "are not 2 numbers"},
      {quantized(tuple({kPerChannel, list({real(1), num(1)}), list({num(0), num(0)}), num(0)})),
       "are not 2 numbers"},
      {quantized(tuple({kPerChannel, list({}), list({}), num(1)})), "axis 1 of shape (2)"},
      {quantized(tuple({kPerChannel, view(0, {3}, {1}), view(0, {3}, {1}), num(0)})),
       "expected 2 numbers"},
      {quantized(tuple({kPerChannel, num(1), num(1), num(0)})), "are no tensor"},
      {quantized(tuple({kPerChannel, quantized(q), quantized(q), num(0)})), "are no tensor"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.part);
    expect_refused(c.code, {"weights.pt", "'bad'", c.part},
                   file.zip(dict({{"good", view(0, {4}, {1})}, {"bad", c.tensor}})));
  }
  expect_refused(ErrorCode::corrupt, {"control characters"},
                 file.zip(dict({{"a\x1b[2J", view(0, {1}, {1})}})));
  expect_refused(ErrorCode::corrupt, {"1001 bytes"},
                 file.zip(dict({{std::string(1001, 'a'), view(0, {1}, {1})}})));

  auto members = file.members(dict({{"w", view(0, {4}, {1})}}));
  std::string bytes = zip_of(members);
  const size_t data = bytes.find(TorchFile::raw<float>({1, 2, 3, 4}));
  bytes[data] ^= 1;
  expect_refused(ErrorCode::corrupt, {"archive/data/0", "its CRC"}, bytes);
  // Saved without checksums (set_crc32_options)
  for (ZipMember& m : members) m.with_crc = false;
  EXPECT_EQ(read_bytes(zip_of(members)).size(), 1u);
}

TEST(PyTorchFile, DamagedPicklesSayWhere) {
  TorchFile file;
  auto pickle = [&](const std::string& bytes) {
    auto members = file.members("");
    members[0].contents = bytes;
    return zip_of(members);
  };
  struct Case {
    std::string bytes, part;
    ErrorCode code = ErrorCode::corrupt;
  };
  const Case cases[] = {
      {"", "does not begin"},
      {"}.", "does not begin"},
      {"\x80\x02", "cut short"},
      {"\x80\x02}", "cut short"},
      {"\x80\x02.", "no value where one is needed"},
      {"\x80\x02}}.", "more than one value"},
      {"\x80\x02(}.", "more than one value"},
      {"\x80\x06}.", "protocol 6", ErrorCode::unsupported},
      {"\x80\x01}.", "protocol 1", ErrorCode::unsupported},
      {"\x80\x02i.", "0x69 is no opcode"},
      {"\x80\x02\x97.", "0x97 is no opcode"},
      {"\x80\x02X\xff\xff\xff\xff.", "cut short by 4294967294 bytes"},
      {"\x80\x02\x8d\xff\xff\xff\xff\xff\xff\xff\xff.", "cut short"},
      {"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff.", "a frame of"},
      {"\x80\x02h\1.", "memo entry 1 is not there"},
      {"\x80\x02q\1.", "no value"},
      {"\x80\x02t.", "no mark"},
      {"\x80\x02K\1(\x85.", "no value"},
      {"\x80\x02}(K\1u.", "a key of a dict has no value"},
      {"\x80\x02(K\1d.", "a key of a dict has no value"},
      {"\x80\x02K\1K\2a.", "an int is used as a list"},
      {"\x80\x02](K\1K\2u.", "a list or tuple is used as a dict"},
      {"\x80\x02K\1)R.", "an int is called"},
      {"\x80\x02"
       "ccollections\nOrderedDict\nK\1R.",
       "the arguments are an int"},
      {"\x80\x02" + reduce(global("collections", "OrderedDict"), {list({num(1)})}) + ".",
       "not made of pairs"},
      {"\x80\x02"
       "ctorch\nSize",
       "a name does not end"},
      {"\x80\x02"
       "ctorch\n\n.",
       "is not one"},
      {"\x80\x02"
       "ctorch\nSi\1ze\n.",
       "is not one"},
      {"\x80\x02"
       "c" +
           std::string(2000, 'a') + "\nb\n.",
       "a name does not end"},
      {"\x80\x02K\1K\1\x93.", "is not one"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.part);
    expect_refused(c.code, {"weights.pt: archive/data.pkl", c.part}, pickle(c.bytes));
  }
}

// What is small in the file and would be large in memory, or take long.
TEST(PyTorchFile, BombsAreRefusedOrHarmless) {
  TorchFile file;
  file.with_crc = false;
  const std::string w = file.floats({1}, {});
  // A list in a list in a list ...: reading does not recurse.
  std::string deep(2'000'000, ']');
  deep += std::string(deep.size() - 1, 'a');
  EXPECT_EQ(names(read_bytes(file.zip(dict({{"w", w}, {"deep", deep}})))), Notes{"w"});
  // Lists that hold the one before twice: 2^1000 elements if they were copied.
  std::string doubled = "]";
  for (int i = 0; i < 1000; ++i)
    doubled += "q" + le(static_cast<uint64_t>(i % 2), 1) + "h" +
               le(static_cast<uint64_t>(i % 2), 1) + "\x86";
  EXPECT_EQ(names(read_bytes(file.zip(dict({{"w", w}, {"x", doubled}})))), Notes{"w"});
  // A list in itself.
  EXPECT_EQ(names(read_bytes(file.zip(dict({{"w", w}, {"x", "]q\1h\1a"}})))), Notes{"w"});

  expect_refused(ErrorCode::unsupported, {"more than 4194304 values"},
                 file.zip("](" + std::string(4'200'000, 'N') + "e"));
  expect_refused(ErrorCode::unsupported, {"more than 16777216 opcodes"},
                 file.zip("}" + std::string(16'800'000, '2')));
  std::string memo = "}";
  for (uint64_t i = 0; i <= 4'194'304; ++i) memo += "r" + le(i, 4);
  expect_refused(ErrorCode::unsupported, {"more than 4194304 memo entries"}, file.zip(memo));
  // dict(pairs) of one long list, again and again
  std::string pairs = list(Items(100'000, "h\1"));
  std::string copies = "K\1K\1\x86q\1" + ("0" + pairs) + "q\2" + "0](";
  for (int i = 0; i < 1000; ++i) copies += global("collections", "OrderedDict") + "h\2\x85R";
  expect_refused(ErrorCode::unsupported, {"copied values"}, file.zip(copies + "e"));
  // Many views of one storage of a megabyte, each of all of it
  const std::string megabyte = file.storage("ByteStorage", std::string(1 << 20, '\1'), 1 << 20);
  Entries views;
  for (int i = 0; i < 300; ++i)
    views.emplace_back(std::to_string(i), TorchFile::view(megabyte, 0, {1 << 20}, {1}));
  expect_refused(ErrorCode::unsupported, {"more than the 268435456"}, file.zip(dict(views)));
}

// Members of an archive that lie in each other, each of which would be checked and copied.
TEST(PyTorchFile, StoragesThatOverlapAreRefused) {
  TorchFile file;
  const std::string megabyte(1 << 20, '\1');
  Entries views;
  for (int i = 0; i < 5; ++i)
    views.emplace_back(
        std::to_string(i),
        TorchFile::view(file.storage("CharStorage", i ? "" : megabyte, 1 << 20), 0, {1}, {1}));
  std::string bytes = file.zip(dict(views));
  // The four empty ones get the place and the size of the first, as the directory has them.
  const std::string first = "archive/data/0";
  const size_t entry = bytes.rfind(first) - 46;
  for (int i = 1; i < 5; ++i) {
    const size_t other = bytes.rfind("archive/data/" + std::to_string(i)) - 46;
    bytes.replace(other + 16, 12, bytes.substr(entry + 16, 12));  // CRC and sizes
    bytes.replace(other + 42, 4, bytes.substr(entry + 42, 4));    // where
  }
  expect_refused(ErrorCode::corrupt, {"its storages have 2097152 bytes and more"}, bytes);
}

// Texts and storages that are there once in the file and used again and again.
TEST(PyTorchFile, WhatIsUsedAgainAndAgainTakesNoTimeAgainAndAgain) {
  TorchFile file;
  file.with_crc = false;
  const std::string text = str(std::string(20 << 20, 'a')) + "q\1";
  std::string keys = "}(" + text + kNone;
  for (int i = 0; i < 300'000; ++i) keys += "h\1N";
  expect_refused(ErrorCode::corrupt, {"the name of an entry has 20971520 bytes"},
                 file.zip(keys + "u"));
  Entries views;
  const std::string bools = file.storage("BoolStorage", std::string(20 << 20, '\1'), 20 << 20);
  for (int i = 0; i < 20'000; ++i)
    views.emplace_back(std::to_string(i), TorchFile::view(bools, 0, {2}, {(20 << 20) - 1}));
  EXPECT_EQ(read_bytes(file.zip(dict(views))).size(), 20'000u);
}

// What would inflate to more than the limits is refused before anything is inflated.
TEST(PyTorchFile, ZipBombsAreRefused) {
  const std::string packed(400'000, '\0');
  const size_t large = 300 << 20;
  expect_refused(ErrorCode::unsupported,
                 {"data.pkl: has 314572800 bytes; expected at most 100000000"},
                 zip_of({{"a/data.pkl", packed, true, large}}));
  TorchFile file;
  auto members = file.members(dict({{"w", file.tensor("ByteStorage", packed, {large})}}));
  for (ZipMember& m : members)
    if (m.contents.size() == packed.size()) m.inflated = large;
  expect_refused(ErrorCode::unsupported, {"'w'", "more than the 268435456"}, zip_of(members));
  members = file.members(
      dict({{"w", TorchFile::view(file.storage_again(0, "ByteStorage", large), 0, {1}, {1})}}));
  for (ZipMember& m : members)
    if (m.contents.size() == packed.size()) m.inflated = large;
  expect_refused(ErrorCode::unsupported, {"compressed weights of 314572800 bytes"},
                 zip_of(members));
}

// -- files of before PyTorch 1.6 ------------------------------------------------------------------

TEST(PyTorchFile, LegacyFilesAreRead) {
  TorchFile file;
  file.legacy = true;
  const std::string state = ordered({{"a", file.floats({1, 2}, {2})},
                                     {"b", file.tensor("ByteStorage", "xyz", {3})},
                                     {"c", file.floats({3}, {1})}});
  const State got = read_bytes(file.old(state));
  EXPECT_TRUE(equal(got.at("a"), Tensor::from<float>({1, 2})));
  EXPECT_TRUE(equal(got.at("b"), Tensor::from<uint8_t>({'x', 'y', 'z'})));
  EXPECT_TRUE(equal(got.at("c"), Tensor::from<float>({3}))) << "its data is not aligned";
  expect_refused(ErrorCode::unsupported, {"big endian"}, file.old(state, false));
  const std::string whole = file.old(state);
  TempDir dir;
  for (size_t n = 0; n < whole.size(); ++n) {
    spill(dir / "cut", whole.substr(0, n));
    EXPECT_THROW(read_pytorch(dir / "cut"), Error) << n;
  }
}

TEST(PyTorchFile, ViewsOfLegacyStorages) {
  TorchFile file;
  file.legacy = true;
  const std::string all = file.storage("FloatStorage", TorchFile::raw<float>({1, 2, 3, 4}), 4);
  auto part = [&](int64_t first, int64_t size) {
    return tuple({str("storage"), global("torch", "FloatStorage"), str("0"), str("cpu"), num(4),
                  tuple({str("7"), num(first), num(size)})}) +
           "Q";
  };
  const State got =
      read_bytes(file.old(dict({{"all", TorchFile::view(all, 0, {4}, {1})},
                                {"part", TorchFile::view(part(2, 2), 1, {1}, {1})}})));
  EXPECT_EQ(got.at("part").item(), 4);
  expect_refused(ErrorCode::corrupt, {"its view does not fit"},
                 file.old(dict({{"part", TorchFile::view(part(3, 2), 0, {1}, {1})}})));
}

// -- by content -----------------------------------------------------------------------------------

TEST(PyTorchFile, LoadStateDictLooksAtTheContentsNotTheName) {
  TorchFile file;
  TempDir dir;
  spill(dir / "w.safetensors", file.zip(dict({{"w", file.floats({4}, {1})}})));
  EXPECT_EQ(load_state_dict(dir / "w.safetensors").at("w").item(), 4);
  TorchFile old;
  old.legacy = true;
  spill(dir / "old.bin", old.old(dict({{"m", dict({{"w", old.floats({5}, {1})}})}})));
  EXPECT_EQ(load_state_dict(dir / "old.bin").at("w").item(), 5);
  EXPECT_EQ(load_state_dict(dir / "old.bin", nullptr, "m").at("w").item(), 5);
  save_state_dict(dir / "s.pt", {{"w", Tensor::ones({1})}});
  EXPECT_EQ(load_state_dict(dir / "s.pt").at("w").item(), 1);
  expect_error(ErrorCode::invalid_argument, {"s.pt", "no key 'm'"},
               [&] { load_state_dict(dir / "s.pt", nullptr, "m"); });
  spill(dir / "text.pt", "once upon a time there was a file");
  expect_error(ErrorCode::corrupt, {"not a safetensors file, nor one that torch.save wrote"},
               [&] { load_state_dict(dir / "text.pt"); });
}

// The length of a safetensors header may have the bytes that a pickle starts with.
TEST(PyTorchFile, SafetensorsHeadersOfAnyLengthAreNotTakenForPickles) {
  TempDir dir;
  for (const size_t length : {0x280, 0x380, 0x480, 0x580}) {
    std::string header = R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    header.resize(length, ' ');
    spill(dir / "a", le(length, 8) + header + TorchFile::raw<float>({3}));
    EXPECT_EQ(load_state_dict(dir / "a").at("w").item(), 3);
  }
}

TEST(PyTorchFile, ModulesTakeItAndSayAllThatDoesNotFit) {
  TorchFile file;
  TempDir dir;
  spill(dir / "fc.pth", file.zip(ordered({{"weight", file.floats({1, 2, 3, 4, 5, 6}, {2, 3})},
                                          {"bias", file.floats({1, -1}, {2})}})));
  auto fc = nn::make<nn::Linear>(3, 2);
  fc->load_state_dict(load_state_dict(dir / "fc.pth"));
  EXPECT_TRUE(equal(fc->forward(Tensor::ones({1, 3})).detach(),
                    Tensor::from<float>({7, 14}).reshape({1, 2})));
  spill(dir / "bad.pth", file.zip(ordered({{"weight", file.floats({1, 2}, {2})},
                                           {"biass", file.floats({1, -1}, {2})}})));
  expect_error(ErrorCode::invalid_argument,
               {"missing: bias", "unexpected: biass; did you mean 'bias'",
                "weight has shape (2) in the state dict and (2, 3) in the model"},
               [&] { fc->load_state_dict(load_state_dict(dir / "bad.pth")); });
}

}  // namespace
}  // namespace octet
