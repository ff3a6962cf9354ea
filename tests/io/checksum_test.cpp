// Damage to the bytes of a file that octet wrote is an error, whatever was hit.
#include <gtest/gtest.h>

#include "octet/base/random.h"
#include "octet/io/module_file.h"
#include "octet/io/octet_file.h"
#include "octet/io/safetensors.h"
#include "octet/io/state_dict.h"
#include "octet/nn/containers.h"
#include "octet/nn/linear.h"
#include "octet/quant/workflow/fx.h"
#include "tests/expect_error.h"
#include "tests/graph/random_net.h"
#include "tests/io/old_file.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::expect_error;
using testing::slurp;
using testing::spill;
using testing::TempDir;
using testing::without_checksums;

graph::Graph small_int8_network() {
  graph::Graph g = testing::random_net(4, true);
  auto prepared = quant::prepare_fx(g, quant::get_default_qconfig());
  prepared->forward({Tensor::randn({2, 3, 6, 6}, 1)});
  return quant::convert_fx(prepared)->graph();
}

// Flips one bit `rounds` times and expects `read` to refuse the file each time.
template <typename Read>
void expect_flips_are_errors(const std::filesystem::path& file, int rounds, Read read) {
  const std::string whole = slurp(file);
  EXPECT_NO_THROW(read(file));
  Random random(11);
  for (int i = 0; i < rounds; ++i) {
    std::string bytes = whole;
    const size_t at = random.next() % bytes.size(), bit = random.next() % 8;
    bytes[at] = static_cast<char>(bytes[at] ^ 1 << bit);
    spill(file, bytes);
    try {
      read(file);
      ADD_FAILURE() << "bit " << bit << " of byte " << at << " of " << whole.size()
                    << " goes unnoticed";
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(file.filename().string()), std::string::npos)
          << e.what();
    }
  }
}

TEST(Checksum, EveryFlippedBitOfANetworkIsAnError) {
  TempDir dir;
  io::save_octet(small_int8_network(), dir / "a.octet");
  expect_flips_are_errors(dir / "a.octet", 400, [](const auto& path) { io::load_octet(path); });
}

TEST(Checksum, EveryFlippedBitOfAStateDictIsAnError) {
  TempDir dir;
  save_state_dict(dir / "a.safetensors",
                  {{"w", quantize_per_tensor(Tensor::randn({8, 8}, 1), 0.1, 3, DType::qint8)},
                   {"b", Tensor::randn({8}, 2)}});
  expect_flips_are_errors(dir / "a.safetensors", 400,
                          [](const auto& path) { load_state_dict(path); });
}

TEST(Checksum, EveryFlippedBitOfAModelIsAnError) {
  TempDir dir;
  save_model(dir / "a.octet", *nn::make<nn::Sequential>(nn::Linear(3, 4), nn::Linear(4, 2)));
  expect_flips_are_errors(dir / "a.octet", 400, [](const auto& path) { load_model(path); });
}

TEST(Checksum, DamageIsNamed) {
  TempDir dir;
  write_safetensors(dir / "a", {{"first", Tensor::ones({16})}, {"second", Tensor::zeros({3})}},
                    {{"note", "text"}});
  const std::string whole = slurp(dir / "a");
  std::string bad = whole;
  bad.back() = 1;
  spill(dir / "a", bad);
  expect_error(ErrorCode::corrupt, {"a: tensor 'second' is damaged", "checksum", "copy or save"},
               [&] { read_safetensors(dir / "a"); });
  EXPECT_EQ(read_safetensors_metadata(dir / "a").at("note"), "text")
      << "no tensor is read for that";
  bad = whole;
  bad.replace(bad.find("text"), 4, "test");
  spill(dir / "a", bad);
  expect_error(ErrorCode::corrupt, {"a: the header is damaged"},
               [&] { read_safetensors(dir / "a"); });
  expect_error(ErrorCode::corrupt, {"a: the header is damaged"},
               [&] { read_safetensors_metadata(dir / "a"); });
}

TEST(Checksum, IsNoPartOfTheMetadata) {
  TempDir dir;
  const std::map<std::string, std::string> metadata{
      {"a\",\"octet.checksum.header\":\"b", "x"},
      {"k", "{\"octet.checksum.header\":\"0123456789abcdef\"}"}};
  write_safetensors(dir / "a", {{"x", Tensor::ones({2})}}, metadata);
  SafetensorsFile file = read_safetensors(dir / "a");
  EXPECT_EQ(file.metadata, metadata);
  EXPECT_TRUE(file.has_checksums);
  expect_error(ErrorCode::invalid_argument, {"octet.checksum.tensors"}, [&] {
    write_safetensors(dir / "a", {}, {{"octet.checksum.tensors", "{}"}});
  });
}

TEST(Checksum, OlderFilesLoadWithANote) {
  TempDir dir;
  std::vector<std::string> notes;
  graph::Graph g = small_int8_network();
  io::save_octet(g, dir / "g.octet");
  EXPECT_EQ(graph::print(io::load_octet(dir / "g.octet", &notes)), graph::print(g));
  EXPECT_TRUE(notes.empty());
  spill(dir / "g.octet", without_checksums(slurp(dir / "g.octet")));
  EXPECT_EQ(graph::print(io::load_octet(dir / "g.octet", &notes)), graph::print(g));
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("g.octet: is of an older octet and has no checksums"), std::string::npos)
      << notes[0];
  EXPECT_NO_THROW(io::load_octet(dir / "g.octet"));

  save_state_dict(dir / "s.safetensors", {{"x", Tensor::ones({4})}});
  spill(dir / "s.safetensors", without_checksums(slurp(dir / "s.safetensors")));
  EXPECT_EQ(load_state_dict(dir / "s.safetensors", &notes).at("x").to_vector<float>(),
            std::vector<float>(4, 1.0f));
  EXPECT_EQ(notes.size(), 2u);

  save_model(dir / "m.octet", nn::Linear(3, 4));
  spill(dir / "m.octet", without_checksums(slurp(dir / "m.octet")));
  load_model<nn::Linear>(dir / "m.octet", &notes);
  EXPECT_EQ(notes.size(), 3u);
}

TEST(Checksum, FilesThatPromiseThemMustHaveThem) {
  TempDir dir;
  io::save_octet(small_int8_network(), dir / "g.octet");
  spill(dir / "g.octet", without_checksums(slurp(dir / "g.octet"), 2));
  expect_error(ErrorCode::corrupt, {"g.octet: its checksums are missing"},
               [&] { io::load_octet(dir / "g.octet"); });
}

TEST(Checksum, OtherToolsFilesHaveNone) {
  TempDir dir;
  const std::string header = R"({"x":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}})";
  spill(dir / "a",
        std::string(1, static_cast<char>(header.size())) + std::string(7, '\0') + header + "abc");
  std::vector<std::string> notes;
  EXPECT_EQ(load_state_dict(dir / "a", &notes).size(), 1u);
  EXPECT_TRUE(notes.empty());
}

}  // namespace
}  // namespace octet
