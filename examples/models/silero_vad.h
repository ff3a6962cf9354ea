#pragma once
// Silero VAD (github.com/snakers4/silero-vad, MIT), 16 kHz: the probability that a piece of sound
// is speech.

#include <octet/octet.h>

#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace silero {

using namespace octet;

// samples per step: new ones, and the last of the step before
inline constexpr int64_t kNew = 512, kContext = 64;

// Inputs: sound (1, 576) in -1..1, and the LSTM's states h and c (1, 128). Results: probability (1,
// 1), h and c.
struct SileroVad : nn::Module {
  // A short-time Fourier transform as a convolution: 129 cosines and 129 sines of 256 samples.
  nn::Slot stft_conv = slot("stft_conv", nn::Conv1d(1, 258, 256, {.stride = 128, .bias = false}));
  nn::Slot conv1 = slot("conv1", nn::Conv1d(129, 128, 3, {.padding = 1}));
  nn::Slot conv2 = slot("conv2", nn::Conv1d(128, 64, 3, {.stride = 2, .padding = 1}));
  nn::Slot conv3 = slot("conv3", nn::Conv1d(64, 64, 3, {.stride = 2, .padding = 1}));
  nn::Slot conv4 = slot("conv4", nn::Conv1d(64, 128, 3, {.padding = 1}));
  nn::Slot lstm_cell = slot("lstm_cell", nn::LSTMCell(128, 128));
  nn::Slot final_conv = slot("final_conv", nn::Conv1d(128, 1, 1));

  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    Tensor x = functional::pad(inputs[0], {0, 64}, "reflect").unsqueeze(1);
    Tensor spectrum = stft_conv(x);
    Tensor re = spectrum.slice(1, 0, 129), im = spectrum.slice(1, 129, 258);
    x = functional::sqrt(re * re + im * im);
    for (const nn::Slot* conv : {&conv1, &conv2, &conv3, &conv4}) x = functional::relu((*conv)(x));
    std::vector<Tensor> state = lstm_cell(std::vector<Tensor>{x.squeeze(2), inputs[1], inputs[2]});
    Tensor p = functional::sigmoid(final_conv(functional::relu(state[0]).unsqueeze(2)));
    return {p.squeeze(2), state[0], state[1]};
  }
};

// Convolutions and the LSTM cell multiply in int8. The first convolution stays float: it is a
// Fourier transform, whose results span many powers of ten, and what 8 bits lose of the sound would
// drown the soft ones.
inline std::shared_ptr<SileroVad> quantized(const std::shared_ptr<SileroVad>& model) {
  return quant::quantize_dynamic(model,
                                 quant::QConfigSpec()
                                     .set_type<nn::Conv1d>(quant::per_channel_dynamic_qconfig())
                                     .set_type<nn::LSTMCell>(quant::default_dynamic_qconfig())
                                     .set("stft_conv", std::nullopt));
}

// The samples of a 16-bit mono .wav file at 16 kHz, in -1..1. Error for others.
inline std::vector<float> read_wav(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(in)), {});
  auto number = [&](size_t at, int size) {
    uint32_t value = 0;
    std::memcpy(&value, bytes.data() + at, static_cast<size_t>(size));
    return value;
  };
  bool wave =
      bytes.size() > 44 && bytes.compare(0, 4, "RIFF") == 0 && bytes.compare(8, 8, "WAVEfmt ") == 0;
  if (!wave || number(20, 2) != 1 || number(22, 2) != 1 || number(24, 4) != 16000 ||
      number(34, 2) != 16)
    fail(ErrorCode::corrupt, path + ": expected a 16-bit mono .wav of 16 kHz");
  size_t data = bytes.find("data", 36);
  if (data == std::string::npos || data + 8 > bytes.size())
    fail(ErrorCode::corrupt, path + ": has no sound");
  size_t count = std::min<size_t>(number(data + 4, 4), bytes.size() - data - 8) / 2;
  std::vector<float> samples(count);
  for (size_t i = 0; i < count; ++i)
    samples[i] = static_cast<float>(static_cast<int16_t>(number(data + 8 + 2 * i, 2))) / 32768.f;
  return samples;
}

// The probability of speech in each piece of 512 samples.
inline std::vector<float> speech_probabilities(nn::Module& model, const std::vector<float>& sound) {
  autograd::NoGrad no_grad;
  std::vector<float> probabilities, piece(kContext + kNew, 0.f);
  Tensor h = Tensor::zeros({1, 128}), c = Tensor::zeros({1, 128});
  for (size_t at = 0; at + kNew <= sound.size(); at += kNew) {
    std::copy(piece.end() - kContext, piece.end(), piece.begin());
    std::copy_n(sound.begin() + static_cast<std::ptrdiff_t>(at), kNew, piece.begin() + kContext);
    auto results = model(std::vector<Tensor>{Tensor::from(piece, {1, kContext + kNew}), h, c});
    probabilities.push_back(static_cast<float>(results[0].item()));
    h = results[1];
    c = results[2];
  }
  return probabilities;
}

}  // namespace silero
