// Trains a language model of characters and writes what `octet quantize`, `eval` and `tune` take:
//   example_character_transformer OUT_DIRECTORY UPDATES TEXT...
// OUT_DIRECTORY gets text.octet, calibrate.npz and test.npz (characters, and in `labels` what
// follows each). Each twentieth piece of the text is kept for the test. Without arguments, a tiny
// model learns a sentence.
#include <octet/octet.h>

#include <cstdlib>
#include <filesystem>
#include <iostream>

#include "examples/models/character_transformer.h"
#include "octet/base/file.h"
#include "octet/io/npz.h"
#include "octet/io/octet_file.h"

using namespace octet;

namespace {

graph::Graph graph_of(models::CharacterTransformer& model) {
  model.eval();
  return graph::trace(model, {TensorType(DType::int64, {Dim("N"), Dim(model.steps)})},
                      {.into_layers = true, .input_names = {"characters"}})
      ->graph();
}

int learn_a_sentence() {
  std::string text;
  for (int i = 0; i < 50; ++i) text += "the quick brown fox jumps over the lazy dog; ";
  const std::vector<int64_t> codes = models::character_codes(text);
  manual_seed(1);
  auto model = nn::make<models::CharacterTransformer>(
      models::CharacterTransformerOptions{.hidden = 32, .layers = 1, .heads = 2, .steps = 16});
  double last = 0;
  models::train_on_text(*model, codes, 150, 8, 1e-2, [&](int64_t, double loss) { last = loss; });
  std::cout << "perplexity " << std::exp(last) << "\n";
  return std::exp(last) < 2 ? 0 : 1;
}

void write_samples(const std::filesystem::path& path, const std::vector<int64_t>& codes,
                   size_t count, int64_t steps) {
  const auto samples = models::CharacterSamples::spread(codes, count, steps);
  write_npz(path, {{"characters", samples.characters}, {"labels", samples.next}});
}

}  // namespace

int main(int count, char** arguments) {
  if (count == 1) return learn_a_sentence();
  if (count < 4) {
    std::cerr << "usage: example_character_transformer OUT_DIRECTORY UPDATES TEXT...\n";
    return 2;
  }
  const std::filesystem::path out = arguments[1];
  std::filesystem::create_directories(out);
  std::string text;
  for (int i = 3; i < count; ++i) text += read_file(arguments[i]);
  const std::vector<int64_t> codes = models::character_codes(text);
  constexpr size_t kPiece = 2000, kTestEach = 20;
  std::vector<int64_t> training, test;
  for (size_t at = 0; at < codes.size(); ++at)
    (at / kPiece % kTestEach == kTestEach - 1 ? test : training).push_back(codes[at]);

  manual_seed(1);
  auto model = nn::make<models::CharacterTransformer>();
  double mean = 0;
  models::train_on_text(*model, training, std::atoll(arguments[2]), 16, 2e-3,
                        [&](int64_t update, double loss) {
                          mean += loss / 50;
                          if (update % 50 != 49) return;
                          std::cout << update + 1 << ": " << std::exp(mean) << std::endl;
                          mean = 0;
                        });
  io::save_octet(graph_of(*model), out / "text.octet");
  write_samples(out / "calibrate.npz", training, 512, model->steps);
  write_samples(out / "test.npz", test, 512, model->steps);
}
