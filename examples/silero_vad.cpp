// A voice activity detector, loaded from its weights and quantized dynamically: convolutions and
// the LSTM cell multiply in int8.
//   silero_vad [silero_vad_16k.safetensors sound.wav]
#include <chrono>
#include <cmath>
#include <filesystem>
#include <iostream>

#include "examples/models/silero_vad.h"

using namespace octet;

int main(int argc, char** argv) {
  const char* data = std::getenv("OCTET_DATA");
  std::string models = std::string(data ? data : "../shared/data") + "/models/";
  std::string weights = argc > 1 ? argv[1] : models + "silero_vad_16k.safetensors",
              wav = argc > 2 ? argv[2] : models + "silero_test.wav";
  if (!std::filesystem::exists(weights) || !std::filesystem::exists(wav)) {
    std::cout << "usage: silero_vad silero_vad_16k.safetensors sound.wav (16-bit mono, 16 kHz)\n";
    return argc > 1;
  }
  try {
    auto model = nn::make<silero::SileroVad>();
    model->eval();
    model->load_state_dict(load_state_dict(weights));
    auto quantized = silero::quantized(model);

    auto sound = silero::read_wav(wav);
    auto timed = [&](nn::Module& m, double& seconds) {
      auto start = std::chrono::steady_clock::now();
      auto p = silero::speech_probabilities(m, sound);
      seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
      return p;
    };
    double float_seconds = 0, int8_seconds = 0;
    auto expected = timed(*model, float_seconds), got = timed(*quantized, int8_seconds);
    double sum = 0, most = 0;
    int speech = 0, same = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      double d = std::abs(static_cast<double>(got[i]) - expected[i]);
      sum += d;
      most = std::max(most, d);
      speech += expected[i] > 0.5f;
      same += (expected[i] > 0.5f) == (got[i] > 0.5f);
    }
    double pieces = static_cast<double>(got.size());
    std::cout << nn::to_string(*quantized) << "\n"
              << got.size() << " pieces of 32 ms, " << speech << " of them speech; int8 agrees on "
              << same << "\n"
              << "probabilities differ by " << sum / pieces << " on average, " << most
              << " at most\n"
              << "float " << 1e3 * float_seconds / pieces << " ms, int8 "
              << 1e3 * int8_seconds / pieces << " ms for each piece\n";
    return sum / pieces <= 0.01 ? 0 : 1;
  } catch (const Error& e) {
    std::cerr << "silero_vad: " << e.what() << "\n";
    return 1;
  }
}
