// A voice activity detector with an LSTM, quantized dynamically, on a minute of sound.
#include <gtest/gtest.h>

#include <cmath>

#include "examples/models/silero_vad.h"
#include "tests/data.h"

namespace octet::testing {
namespace {

TEST(DataSilero, SpeechProbabilitiesStayWithinAHundredthOnAverage) {
  OCTET_NEED_DATA("models/silero_vad_16k.safetensors");
  OCTET_NEED_DATA("models/silero_test.wav");
  auto model = nn::make<silero::SileroVad>();
  model->eval();
  model->load_state_dict(load_state_dict(data_dir() / "models/silero_vad_16k.safetensors"));
  auto quantized = silero::quantized(model);
  EXPECT_EQ(quantized->lstm_cell->type_name(), "DynamicQuantizedLSTMCell");
  EXPECT_EQ(quantized->conv1->type_name(), "DynamicQuantizedConv1d");
  auto sound = silero::read_wav((data_dir() / "models/silero_test.wav").string());
  auto expected = silero::speech_probabilities(*model, sound),
       got = silero::speech_probabilities(*quantized, sound);
  ASSERT_EQ(got.size(), 1875u);
  double sum = 0, speech = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    sum += std::abs(static_cast<double>(got[i]) - expected[i]);
    speech += expected[i] > 0.5f;
  }
  EXPECT_LE(sum / static_cast<double>(got.size()), 0.01);
  EXPECT_GT(speech, 100) << "the file has speech in it";
  EXPECT_LT(speech, 1800) << "and pauses";
}

}  // namespace
}  // namespace octet::testing
