// State dicts in several files.
#include <gtest/gtest.h>

#include "octet/io/safetensors.h"
#include "octet/io/state_dict.h"
#include "tests/expect_error.h"
#include "tests/io/damage.h"
#include "tests/io/torch_bytes.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

using testing::expect_error;
using testing::spill;
using testing::TempDir;
using testing::TorchFile;
using State = std::map<std::string, Tensor>;

constexpr const char* kIndex = "model.safetensors.index.json";

std::string shard(int i, int of) {
  return "model-0000" + std::to_string(i) + "-of-0000" + std::to_string(of) + ".safetensors";
}
std::string index_of(const std::vector<std::pair<std::string, std::string>>& map) {
  std::string text = R"({"metadata": {"total_size": 8}, "weight_map": {)";
  for (const auto& [name, file] : map)
    text += (text.ends_with('{') ? "" : ", ") + ("\"" + name + "\": \"" + file + "\"");
  return text + "}}\n";
}
// a and b in the first of two shards, c in the second.
void write_shards(const TempDir& dir) {
  write_safetensors(dir / shard(1, 2), {{"a", Tensor::ones({2})}, {"b", Tensor::zeros({1})}});
  write_safetensors(dir / shard(2, 2), {{"c", Tensor::full({3}, 3)}});
}
void write_index(const TempDir& dir, const std::string& extra_name = "",
                 const std::string& extra_file = "") {
  std::vector<std::pair<std::string, std::string>> map{
      {"a", shard(1, 2)}, {"b", shard(1, 2)}, {"c", shard(2, 2)}};
  if (!extra_name.empty()) map.emplace_back(extra_name, extra_file);
  spill(dir / kIndex, index_of(map));
}

TEST(Shards, AnIndexOrItsDirectoryIsOneStateDict) {
  TempDir dir;
  write_shards(dir);
  write_index(dir);
  for (const auto& path : {dir / kIndex, dir.path()}) {
    const State state = load_state_dict(path);
    ASSERT_EQ(state.size(), 3u);
    EXPECT_TRUE(equal(state.at("a"), Tensor::ones({2})));
    EXPECT_TRUE(equal(state.at("c"), Tensor::full({3}, 3)));
  }
  std::filesystem::rename(dir / kIndex, dir / "unet.safetensors.index.json");
  EXPECT_EQ(load_state_dict(dir.path()).size(), 3u);
  spill(dir / "vae.safetensors.index.json", index_of({}));
  expect_error(ErrorCode::invalid_argument,
               {"several indexes", "unet.safetensors.index.json, vae."},
               [&] { load_state_dict(dir.path()); });
}

TEST(Shards, WhatIsMissingIsNamedInOneError) {
  TempDir dir;
  write_shards(dir);
  write_index(dir, "d", shard(1, 2));
  expect_error(ErrorCode::not_found,
               {kIndex, "1 tensors are missing", "d (in model-00001-of-00002"},
               [&] { load_state_dict(dir.path()); });
  std::filesystem::remove(dir / shard(2, 2));
  expect_error(ErrorCode::not_found,
               {kIndex, "1 of 2 files are missing: model-00002-of-00002.safetensors; 1 tensors are",
                "d (in model-00001-of-00002"},
               [&] { load_state_dict(dir.path()); });
}

TEST(Shards, TensorsThatTheIndexDoesNotNameArePassedOver) {
  TempDir dir;
  write_shards(dir);
  spill(dir / kIndex, index_of({{"a", shard(1, 2)}, {"c", shard(2, 2)}}));
  std::vector<std::string> notes;
  EXPECT_EQ(load_state_dict(dir.path(), &notes).size(), 2u);
  ASSERT_EQ(notes.size(), 1u);
  EXPECT_NE(notes[0].find("b (in model-00001-of-00002.safetensors)"), notes[0].npos);
}

TEST(Shards, OnlyFilesBesideTheIndexAreRead) {
  TempDir dir;
  write_safetensors(dir / "x.safetensors", {{"a", Tensor::ones({2})}});
  std::filesystem::create_directory(dir / "sub");
  for (const std::string file :
       {"../x.safetensors", "/etc/passwd", "..", ".", "", "a\\\\b", "x.safetensors\\u0000"}) {
    spill(dir / "sub/i.json", index_of({{"a", file}}));
    expect_error(ErrorCode::corrupt, {"i.json", "'a'", "a name without a directory"},
                 [&] { load_state_dict(dir / "sub/i.json"); });
  }
}

TEST(Shards, ADamagedIndexNamesTheField) {
  TempDir dir;
  const std::pair<const char*, const char*> cases[] = {
      {"{", "not valid JSON"},
      {"{}", "'weight_map' is missing"},
      {R"({"weight_map": []})", "'weight_map' is not an object"},
      {R"({"weight_map": {"a": 3}})", "the file of tensor 'a' is 3"},
  };
  for (const auto& [text, part] : cases) {
    spill(dir / "i.json", std::string(text) + "        ");
    expect_error(ErrorCode::corrupt, {"i.json", part}, [&] { load_state_dict(dir / "i.json"); });
  }
}

TEST(Shards, ADirectoryWithoutAnIndexIsTheFilesInIt) {
  TempDir dir;
  expect_error(ErrorCode::not_found, {"a directory without weights", "model.safetensors"},
               [&] { load_state_dict(dir.path()); });
  write_shards(dir);
  spill(dir / "README.md", "weights");
  EXPECT_EQ(load_state_dict(dir.path()).size(), 3u);
  write_safetensors(dir / "other.safetensors", {{"a", Tensor::ones({2})}});
  expect_error(ErrorCode::corrupt, {"other.safetensors", "'a' is in another file too"},
               [&] { load_state_dict(dir.path()); });
  std::filesystem::remove(dir / "other.safetensors");
  std::filesystem::remove(dir / shard(1, 2));
  expect_error(ErrorCode::not_found, {"1 shards are missing: model-00001-of-00002.safetensors"},
               [&] { load_state_dict(dir.path()); });
  save_state_dict(dir / "model.safetensors", {{"whole", Tensor::ones({1})}});
  EXPECT_EQ(load_state_dict(dir.path()).count("whole"), 1u) << "before any shards";
}

TEST(Shards, PyTorchsShardsAreReadToo) {
  TempDir dir;
  TorchFile one, two;
  spill(dir / "pytorch_model-00001-of-00002.bin",
        one.zip(testing::dict({{"a", one.floats({1}, {1})}})));
  spill(dir / "pytorch_model-00002-of-00002.bin",
        two.zip(testing::dict({{"b", two.floats({2}, {1})}})));
  spill(dir / "pytorch_model.bin.index.json",
        index_of({{"a", "pytorch_model-00001-of-00002.bin"},
                  {"b", "pytorch_model-00002-of-00002.bin"}}));
  const State state = load_state_dict(dir.path());
  EXPECT_EQ(state.at("a").item(), 1);
  EXPECT_EQ(state.at("b").item(), 2);
}

TEST(FuzzShards, DamagedIndexesAreErrorsOrTensors) {
  TempDir dir;
  write_shards(dir);
  write_index(dir);
  EXPECT_GT(testing::damage_file(dir / kIndex, 1500,
                                 [](const std::filesystem::path& path) { load_state_dict(path); }),
            700);
}

}  // namespace
}  // namespace octet
