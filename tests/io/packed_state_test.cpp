// State dicts with tables of 4-bit codes and float qparams.
#include <gtest/gtest.h>

#include "octet/io/state_dict.h"
#include "tests/temp_dir.h"

namespace octet {
namespace {

TEST(PackedState, ComesBackAsItWas) {
  testing::TempDir dir;
  Tensor x = Tensor::randn({3, 5}, 1);
  std::map<std::string, Tensor> state{
      {"bytes",
       quantize_per_channel_float(x, {0.1, 0.25, 1.0 / 3}, {1.5, -3, 0.1}, 0, DType::quint8)},
      {"nibbles",
       quantize_per_channel_float(x, {0.1, 0.25, 1.0 / 3}, {1.5, -3, 7.25}, 0, DType::quint4x2)},
      {"signed", quantize_per_tensor(x, 0.25, -1, DType::qint4x2)}};
  save_state_dict(dir / "a.safetensors", state);
  auto back = load_state_dict(dir / "a.safetensors");
  ASSERT_EQ(back.size(), state.size());
  for (const auto& [name, tensor] : state) EXPECT_TRUE(equal(back.at(name), tensor)) << name;
}

}  // namespace
}  // namespace octet
