#include "octet/io/octet_file.h"

#include <gtest/gtest.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "octet/base/random.h"
#include "octet/io/byte_order_impl.h"
#include "octet/io/safetensors.h"
#include "octet/quant/workflow/fx.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"
#include "tests/io/old_file.h"
#include "tests/temp_dir.h"

namespace octet::io {
namespace {

using graph::Graph;
using graph::Node;
using graph::NodeKind;
using graph::ValueId;
using testing::expect_error;
using testing::slurp;
using testing::spill;
using testing::TempDir;
using Json = nlohmann::ordered_json;

void expect_same(const Graph& a, const Graph& b) {
  EXPECT_EQ(graph::print(a, {.full = true}), graph::print(b, {.full = true}));
  EXPECT_EQ(a.metadata, b.metadata);
  ASSERT_EQ(a.nodes().size(), b.nodes().size());
  for (size_t i = 0; i < a.nodes().size(); ++i)
    if (a.nodes()[i].kind == NodeKind::constant) {
      EXPECT_TRUE(equal(a.nodes()[i].value, b.nodes()[i].value))
          << a.value(a.nodes()[i].outputs[0]).name;
    }
}

// Every dtype, qparams of every kind, names that collide with those of qparams.
Graph constants_graph() {
  Graph g;
  g.name = "all \"dtypes\"\n";
  g.metadata = {{"producer", "test"}, {"", "empty key"}, {"newline\n", "\xc3\xa9"}};
  ValueId x = g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3)}));
  for (DType dtype : {DType::float32, DType::float64, DType::float16, DType::bfloat16, DType::int64,
                      DType::int32, DType::int16, DType::int8, DType::uint8, DType::bool_})
    g.add_constant(to_string(dtype), Tensor::rand({3, 5}, 1, 0, 3).to(dtype));
  g.add_constant("scalar", Tensor::scalar(2.5));
  g.add_constant("empty", Tensor::empty({0, 4}));
  Tensor w = Tensor::randn({3, 4}, 2);
  g.add_constant("w", quantize_per_tensor(w, 0.1, 3, DType::quint8));
  g.add_constant("w.scale", Tensor::ones({1}));
  g.add_constant("w.zero_point", Tensor::ones({2}));
  g.add_constant("w.scale_", quantize_per_tensor(w, 0.25, -3, DType::qint8));
  g.add_constant("channels",
                 quantize_per_channel(w, {0.1, 0.2, 1.0 / 3}, {0, -128, 127}, 0, DType::qint8));
  g.add_constant("channels1",
                 quantize_per_channel(w, {0.5, 0.25, 1, 2}, {0, 0, 0, 1}, 1, DType::quint8));
  g.add_constant("bias", quantize_per_tensor(w, 1e-6, 2147483647, DType::qint32));
  g.add_constant("strided", w.transpose(0, 1));
  ValueId q = g.add_call("q", "quantize", {x}, {},
                         ops::QType{DType::quint8, Quantizer::per_tensor(0.1, 9, DType::quint8)},
                         "s \"c\" \\");
  g.add_input("p", TensorType(DType::qint8, {Dim(2), Dim("M")},
                              Quantizer::per_channel({0.1, 0.5}, {1, 2}, 0, DType::qint8)));
  g.add_constant("bytes", quantize_per_channel_float(Tensor::randn({2, 3}, 2), {0.1, 0.5},
                                                     {1.25, -2}, 0, DType::quint8));
  g.add_constant("packed", quantize_per_channel_float(Tensor::randn({2, 3}, 3), {0.1, 0.5},
                                                      {1.25, -2}, 0, DType::quint4x2));
  g.add_constant("packed_signed",
                 quantize_per_tensor(Tensor::randn({3, 3}, 4), 0.25, -1, DType::qint4x2));
  g.node(g.value(q).producer).note = "note\nof two lines";
  auto top = g.add_calls("top", "topk", {x}, {{"k", int64_t{2}}});
  ValueId n =
      g.add_call("n", "layer_norm", {x, graph::kNone, *g.find("scalar") == 0 ? x : graph::kNone},
                 {{"eps", 0.1}});
  ValueId i = g.add_call("i", "clamp", {n}, {{"min", -0.0}});
  g.set_outputs({top[1], q, i, q});
  return g;
}

Graph quantized_graph() {
  Graph g = testing::random_net(4, true);
  auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
  prepared->forward({Tensor::randn({2, 3, 6, 6}, 1)});
  return quant::convert_fx(prepared)->graph();
}

// A small file and its parts.
Graph small_graph() {
  return graph::parse(
      "graph small {\n%x: Float(N, 2) = input\n%q: QUInt8(N, 2) scale=0.5 zero_point=3 = "
      "quantize(%x)  @ s  # n\n"
      "%w: QInt8(3, 2) axis=0 scale=[0.5, 0.25, 1] zero_point=0 = constant\n%b: Float(3) = "
      "constant [1, 2, 3]\n"
      "%y: QUInt8(N, 3) scale=0.25 zero_point=1 = linear(%q, %w, %b, activation=\"relu\")\nreturn "
      "(%y)\n}");
}

struct Parts {
  SafetensorsFile file;
  Json json;
  explicit Parts(const std::filesystem::path& path)
      : file(read_safetensors(path)), json(Json::parse(file.metadata.at("octet.graph"))) {}
  void write(const std::filesystem::path& path) {
    file.metadata["octet.graph"] = json.dump();
    write_safetensors(path, file.tensors, file.metadata);
  }
};

}  // namespace

TEST(OctetFile, SavedAndLoadedGraphsAreTheSame) {
  TempDir dir;
  std::vector<Graph> graphs{constants_graph(), quantized_graph(), small_graph(), Graph()};
  for (uint64_t seed = 0; seed < 20; ++seed) graphs.push_back(testing::random_net(seed, seed % 2));
  for (const Graph& g : graphs) {
    save_octet(g, dir / "a.octet");
    Graph back = load_octet(dir / "a.octet");
    expect_same(g, back);
    save_octet(back, dir / "b.octet");
    EXPECT_EQ(slurp(dir / "a.octet"), slurp(dir / "b.octet"))
        << "saving again gives the same bytes";
  }
}

TEST(OctetFile, OpensAsPlainSafetensors) {
  TempDir dir;
  save_octet(small_graph(), dir / "a.octet");
  SafetensorsFile file = read_safetensors(dir / "a.octet");
  EXPECT_EQ(file.metadata.at("format"), "octet");
  EXPECT_EQ(file.tensors.at("w").dtype(), DType::int8);
  EXPECT_EQ(file.tensors.at("w").shape(), (Shape{3, 2}));
  EXPECT_TRUE(equal(file.tensors.at("b"), Tensor::from<float>({1, 2, 3})));
  EXPECT_EQ(file.tensors.size(), 4u);
}

TEST(OctetFile, QparamsTakeHalfTheRoomWhereThatIsExact) {
  TempDir dir;
  save_octet(constants_graph(), dir / "a.octet");
  auto tensors = read_safetensors(dir / "a.octet").tensors;
  EXPECT_EQ(tensors.at("channels1.scale").dtype(), DType::float32);
  EXPECT_EQ(tensors.at("channels.scale").dtype(), DType::float64) << "0.1 is no float32";
  for (const char* name : {"channels.zero_point", "channels1.zero_point", "bias.zero_point"})
    EXPECT_EQ(tensors.at(name).dtype(), DType::int32);
}

// A weight of 3 x 101 codes, an odd number of them, from `least` to `least` + 15.
Graph narrow_graph(DType dtype, int64_t least) {
  Graph g;
  const auto lo = static_cast<float>(least);
  const Tensor w = Tensor::rand({3, 101}, 1, lo, lo + 15);
  const Tensor q = quantize_per_channel(w, {1, 1, 1}, {0, 0, 0}, 0, dtype);
  g.set_outputs({g.add_call("y", "dequantize", {g.add_constant("w", q)})});
  return g;
}

TEST(OctetFile, CodesOf4BitsLieTwoToAByte) {
  TempDir dir;
  for (const auto& [dtype, least] :
       {std::pair{DType::qint8, -8}, {DType::quint8, 0}, {DType::qint4x2, -8}}) {
    SCOPED_TRACE(octet::to_string(dtype));
    const Graph g = narrow_graph(dtype, least);
    save_octet(g, dir / "a.octet");
    expect_same(g, load_octet(dir / "a.octet"));
    Parts parts(dir / "a.octet");
    EXPECT_EQ(parts.json["format"], 3);
    const Tensor stored = parts.file.tensors.at("w");
    EXPECT_EQ(stored.type(), TensorType(DType::uint8, Shape{152}));
    const auto codes = g.nodes()[0].value.int_repr().to(DType::int64).to_vector<int64_t>();
    EXPECT_EQ(stored.to_vector<uint8_t>()[1], (codes[2] & 15) | (codes[3] & 15) << 4);
  }
}

TEST(OctetFile, OneCodeOf5BitsAndAllLieInBytes) {
  TempDir dir;
  save_octet(narrow_graph(DType::qint8, -7), dir / "a.octet");
  const Parts parts(dir / "a.octet");
  EXPECT_EQ(parts.json["format"], 2) << "an older octet reads it";
  EXPECT_EQ(parts.file.tensors.at("w").shape(), (Shape{3, 101}));
}

TEST(OctetFile, PackedCodesThatDoNotFitAreAnError) {
  TempDir dir;
  save_octet(narrow_graph(DType::qint8, -8), dir / "a.octet");
  const Parts good(dir / "a.octet");
  for (const Tensor& bad : {Tensor::zeros({151}, DType::uint8), Tensor::zeros({152}, DType::int8),
                            Tensor::zeros({2, 76}, DType::uint8)}) {
    Parts parts = good;
    parts.file.tensors["w"] = bad;
    parts.write(dir / "b.octet");
    expect_error(ErrorCode::corrupt, {"packed codes", "two codes to a byte"},
                 [&] { load_octet(dir / "b.octet"); });
  }
}

TEST(OctetFile, WideQparamsAreReadToo) {
  TempDir dir;
  save_octet(small_graph(), dir / "a.octet");
  Parts parts(dir / "a.octet");
  parts.file.tensors["w.scale"] = parts.file.tensors["w.scale"].to(DType::float64);
  parts.file.tensors["w.zero_point"] = parts.file.tensors["w.zero_point"].to(DType::int64);
  parts.write(dir / "b.octet");
  expect_same(load_octet(dir / "b.octet"), small_graph());
}

TEST(OctetFile, WritesAtomically) {
  TempDir dir;
  save_octet(small_graph(), dir / "a.octet");
  Graph loaded = load_octet(dir / "a.octet");  // mapped: replacing the file must not change it
  save_octet(constants_graph(), dir / "a.octet");
  expect_same(loaded, small_graph());
  expect_same(load_octet(dir / "a.octet"), constants_graph());
  EXPECT_EQ(testing::count_files(dir.path()), 1u) << "no temporary file stays";
  expect_error(ErrorCode::io, {"missing"},
               [&] { save_octet(small_graph(), dir / "missing" / "a.octet"); });
}

TEST(OctetFile, WeightsLieInTheMappedFile) {
  if (io::kBigEndian) GTEST_SKIP() << "their numbers are turned round";
  TempDir dir;
  Graph g;
  ValueId x = g.add_input("x", TensorType(DType::float32, Shape{1}));
  g.set_outputs({g.add_call("y", "add", {x, g.add_constant("big", Tensor::zeros({1 << 22}))})});
  save_octet(g, dir / "a.octet");
  auto resident = [] {
    std::ifstream in("/proc/self/statm");
    long size = 0, pages = 0;
    in >> size >> pages;
    return pages * 4096L;
  };
  long before = resident();
  Graph back = load_octet(dir / "a.octet");
  EXPECT_LT(resident() - before, 8 << 20) << "16 MB of weights were read";
  EXPECT_EQ(back.constant(*back.find("big")).to_vector<float>()[12345], 0);
}

TEST(OctetFile, MissingAndForeignFilesAreErrors) {
  TempDir dir;
  expect_error(ErrorCode::not_found, {"none.octet"}, [&] { load_octet(dir / "none.octet"); });
  write_safetensors(dir / "plain.safetensors", {{"a", Tensor::ones({1})}});
  expect_error(ErrorCode::corrupt, {"plain.safetensors", "octet.graph"},
               [&] { load_octet(dir / "plain.safetensors"); });
  spill(dir / "text", "hello");
  expect_error(ErrorCode::corrupt, {"text"}, [&] { load_octet(dir / "text"); });
}

TEST(OctetFile, TextThatIsNotUtf8IsAnErrorThatSaysWhere) {
  TempDir dir;
  Graph g = small_graph();
  g.node(1).scope = "\xff";
  expect_error(ErrorCode::invalid_argument, {"%q", "UTF-8"},
               [&] { save_octet(g, dir / "a.octet"); });
  g = small_graph();
  g.metadata["k"] = "\xff";
  expect_error(ErrorCode::invalid_argument, {"metadata", "UTF-8"},
               [&] { save_octet(g, dir / "a.octet"); });
}

TEST(OctetFile, NewerFormatsAreRefused) {
  TempDir dir;
  save_octet(small_graph(), dir / "a.octet");
  Parts parts(dir / "a.octet");
  parts.json["format"] = 4;
  parts.json["nodes"] = "whatever a newer one has";
  parts.write(dir / "a.octet");
  expect_error(ErrorCode::unsupported, {"a.octet", "format 4", "update octet"},
               [&] { load_octet(dir / "a.octet"); });
}

TEST(OctetFile, EveryFieldIsChecked) {
  TempDir dir;
  save_octet(small_graph(), dir / "a.octet");
  const struct {
    const char* pointer;  // JSON pointer
    const char* value;    // JSON; "" removes the field
    std::vector<std::string> parts;
  } cases[] = {
      {"/format", "", {"'format'"}},
      {"/format", "\"1\"", {"'format'"}},
      {"/format", "0", {"'format'", "0"}},
      {"/format", "1.5", {"'format'"}},
      {"/name", "", {"'name'"}},
      {"/name", "7", {"'name'"}},
      {"/metadata", "[]", {"'metadata'"}},
      {"/metadata", "{\"a\": 1}", {"'metadata'"}},
      {"/values", "", {"'values'"}},
      {"/values", "{}", {"'values'"}},
      {"/values/0", "3", {"value 0"}},
      {"/values/0/name", "", {"value 0", "'name'"}},
      {"/values/0/name", "\"q\"", {"%q"}},
      {"/values/0/name", "\"a b\"", {"'a b'"}},
      {"/values/0/dtype", "\"float33\"", {"value 0", "float33"}},
      {"/values/0/dtype", "\"quint8\"", {"%x", "qparams"}},
      {"/values/0/dims", "7", {"value 0", "'dims'"}},
      {"/values/0/dims", "[-1, 2]", {"value 0", "-1"}},
      {"/values/0/dims", "[1.5, 2]", {"1.5"}},
      {"/values/0/dims", "[\"N\", 3]", {"%q"}},
      {"/values/0/dims", "[true, 2]", {"true"}},
      {"/values/0/dims", "[18446744073709551615, 2]", {"values[0].dims[0]", "out of range"}},
      {"/values/1/qscheme", "\"per_row\"", {"value 1", "per_row"}},
      {"/values/1/qscheme", "", {"%q", "qparams"}},
      {"/values/1/scale", "", {"value 1", "'scale'"}},
      {"/values/1/scale", "0", {"value 1", "scale 0"}},
      {"/values/1/scale", "\"0.5\"", {"'scale'"}},
      {"/values/1/scale", "true", {"'scale'"}},
      {"/values/1/scale", "[0.5, 0.5]", {"value 1"}},
      {"/values/1/scale", "1e400", {"octet.graph"}},
      {"/values/1/zero_point", "256", {"value 1", "256"}},
      {"/values/1/zero_point", "1.5", {"'zero_point'"}},
      {"/values/1/zero_point", "[]", {"value 1"}},
      {"/values/2/dims", "[2, 3]", {"%w"}},
      {"/values/2/dims", "[6]", {"node 2"}},
      {"/values/2/dtype", "\"quint8\"", {"node 2"}},
      {"/values/2/dtype", "\"int8\"", {"node 2"}},
      {"/values/3/dims", "[4]", {"%b"}},
      {"/values/4/dims", "[\"N\", 4]", {"%y"}},
      {"/values/4/scale", "0.125", {}},
      {"/values/9",
       "{\"name\": \"lost\", \"dtype\": \"float32\", \"dims\": []}",
       {"value 5", "'lost'"}},
      {"/nodes", "", {"'nodes'"}},
      {"/nodes", "7", {"'nodes'"}},
      {"/nodes/0", "null", {"node 0"}},
      {"/nodes/0/kind", "", {"node 0", "'kind'"}},
      {"/nodes/0/kind", "\"output\"", {"node 0", "output"}},
      {"/nodes/0/kind", "\"constant\"", {"node 0", "'tensor'"}},
      {"/nodes/0/outputs", "", {"node 0", "'outputs'"}},
      {"/nodes/0/outputs", "[]", {"node 0"}},
      {"/nodes/0/outputs", "[5]", {"node 0", "5"}},
      {"/nodes/0/outputs", "[-1]", {"node 0"}},
      {"/nodes/0/outputs", "[-2]", {"node 0", "-2"}},
      {"/nodes/0/outputs", "[4294967296]", {"node 0"}},
      {"/nodes/0/outputs", "[0.0]", {"node 0"}},
      {"/nodes/0/outputs", "[0, 0]", {"node 0"}},
      {"/nodes/1/outputs", "[0]", {"node 1", "made twice"}},
      {"/nodes/0/scope", "[]", {"node 0", "'scope'"}},
      {"/nodes/1/note", "1", {"node 1", "'note'"}},
      {"/nodes/1/op", "", {"node 1", "'op'"}},
      {"/nodes/1/op", "\"quantise\"", {"node 1", "quantise"}},
      {"/nodes/1/op", "\"dequantize\"", {"%q"}},
      {"/nodes/1/inputs", "", {"node 1", "'inputs'"}},
      {"/nodes/1/inputs", "[4]", {"node 1", "4"}},
      {"/nodes/1/inputs", "[1]", {"node 1"}},
      {"/nodes/1/inputs", "[]", {"%q"}},
      {"/nodes/1/inputs", "[-1]", {"%q"}},
      {"/nodes/1/inputs", "\"0\"", {"'inputs'"}},
      {"/nodes/1/attrs", "", {"node 1", "'attrs'"}},
      {"/nodes/1/attrs", "[]", {"'attrs'"}},
      {"/nodes/1/attrs", "{\"k\": \"1\"}", {"node 1", "'k'"}},
      {"/nodes/4/attrs/activation", "1", {"node 4", "'activation'"}},
      {"/nodes/4/attrs/activation", "\"1\"", {"node 4", "activation"}},
      {"/nodes/4/attrs/activation", "\"\\\"relu\"", {"node 4", "activation"}},
      {"/nodes/4/attrs/activation", "\"\"", {"node 4", "activation"}},
      {"/nodes/2/tensor", "\"v\"", {"node 2", "'v'"}},
      {"/nodes/2/tensor", "\"b\"", {"node 2"}},
      {"/nodes/3/tensor", "\"w\"", {"node 3"}},
      {"/nodes/2/tensor", "", {"'tensor'"}},
      {"/nodes/2/qscheme", "", {"node 2"}},
      {"/nodes/2/qscheme", "\"per_tensor_affine\"", {"node 2"}},
      {"/nodes/2/axis", "1", {"node 2", "axis 1"}},
      {"/nodes/2/axis", "-1", {"node 2", "axis"}},
      {"/nodes/2/axis", "7", {"node 2", "axis 7"}},
      {"/nodes/2/axis", "", {"'axis'"}},
      {"/nodes/2/axis", "0.5", {"'axis'"}},
      {"/nodes/2/scale", "\"b\"", {}},
      {"/nodes/2/scale", "\"w\"", {"node 2", "float64"}},
      {"/nodes/2/scale", "\"none\"", {"'none'"}},
      {"/nodes/2/zero_point", "\"b\"", {"node 2"}},
      {"/inputs", "", {"'inputs'"}},
      {"/inputs", "[]", {"'inputs'"}},
      {"/inputs", "[1]", {"'inputs'"}},
      {"/outputs", "", {"'outputs'"}},
      {"/outputs", "[9]", {"'outputs'", "9"}},
      {"/outputs", "[-1]", {"'outputs'"}},
      {"/outputs", "[\"y\"]", {"'outputs'"}},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(std::string(c.pointer) + " = " + c.value);
    Parts parts(dir / "a.octet");
    Json::json_pointer pointer(c.pointer);
    if (!*c.value)
      parts.json.at(pointer.parent_pointer()).erase(pointer.back());
    else if (std::string(c.pointer) == "/values/9")
      parts.json["values"].push_back(Json::parse(c.value));
    else if (std::string(c.value) != "1e400")
      parts.json[pointer] = Json::parse(c.value);
    if (std::string(c.value) == "1e400") {  // not representable, so put in as text
      std::string text = parts.json.dump();
      text.replace(text.find("0.5"), 3, "1e400");
      parts.file.metadata["octet.graph"] = text;
      write_safetensors(dir / "b.octet", parts.file.tensors, parts.file.metadata);
    } else {
      parts.write(dir / "b.octet");
    }
    if (c.parts.empty()) {  // as good as before
      EXPECT_NO_THROW(load_octet(dir / "b.octet"));
      continue;
    }
    std::vector<std::string> expected = c.parts;
    expected.push_back("b.octet");
    expect_error(ErrorCode::corrupt, expected, [&] { load_octet(dir / "b.octet"); });
  }
}

TEST(OctetFile, TruncatedAtAnyByteIsAnError) {
  TempDir dir;
  save_octet(small_graph(), dir / "a.octet");
  std::string bytes = slurp(dir / "a.octet");
  for (size_t n = 0; n < bytes.size(); n += n < 64 || n + 64 > bytes.size() ? 1 : 7) {
    spill(dir / "b.octet", bytes.substr(0, n));
    expect_error(ErrorCode::corrupt, {"b.octet"}, [&] { load_octet(dir / "b.octet"); });
  }
}

TEST(FuzzOctetFile, DamagedFilesAreReadOrRefused) {
  TempDir dir;
  Random random(3);
  std::vector<std::string> seeds;
  for (const Graph& g : {small_graph(), testing::random_net(4)}) {
    save_octet(g, dir / "seed.octet");
    seeds.push_back(testing::without_checksums(slurp(dir / "seed.octet")));
  }
  for (int i = 0; i < 3000; ++i) {
    std::string bytes = seeds[i % seeds.size()];
    for (int64_t edits = random.integer(1, 3); edits > 0; --edits) {
      auto at = static_cast<size_t>(random.integer(0, static_cast<int64_t>(bytes.size()) - 1));
      bytes[at] = random.integer(0, 2) ? static_cast<char>(bytes[at] ^ (1 << random.integer(0, 7)))
                                       : "0123456789-,[]{}\"\\ae"[random.integer(0, 19)];
    }
    spill(dir / "b.octet", bytes);
    try {
      load_octet(dir / "b.octet").check();
    } catch (const Error& e) {
      EXPECT_TRUE(e.code() == ErrorCode::corrupt || e.code() == ErrorCode::unsupported) << e.what();
    } catch (const std::exception& e) {
      ADD_FAILURE() << i << ": " << e.what();
    }
  }
}

}  // namespace octet::io
