// Quantized recurrent networks on sequences of different lengths: what they give for every sequence
// alone, bit for bit.
#include "octet/nn/packed_sequence.h"

#include <gtest/gtest.h>

#include "octet/base/random.h"
#include "octet/nn/rnn.h"
#include "octet/ops/functional.h"
#include "octet/quant/modules/recurrent.h"
#include "octet/quant/modules/stubs.h"
#include "octet/quant/workflow/eager.h"
#include "tests/expect_error.h"
#include "tests/sqnr.h"

namespace octet::quant {
namespace {

using nn::RecurrentOptions;
using nn::utils::PackedOutput;
using nn::utils::PackedSequence;

const std::vector<int64_t> kLengths = {2, 6, 1, 4};

// Of different ranges: what is quantized over the batch would change the others.
std::vector<Tensor> sequences() {
  std::vector<Tensor> xs;
  for (size_t n = 0; n < kLengths.size(); ++n)
    xs.push_back(Tensor::randn({kLengths[n], 3}, n + 1) *
                 (n == 2 ? 50.0 : 0.3 * static_cast<double>(n + 1)));
  return xs;
}

void expect_alone(nn::Module& network, const std::vector<Tensor>& xs, bool cell) {
  for (bool sorted : {false, true}) {
    std::vector<Tensor> given = xs;
    if (sorted)
      std::stable_sort(given.begin(), given.end(),
                       [](const Tensor& a, const Tensor& b) { return a.size(0) > b.size(0); });
    PackedOutput out = network(nn::utils::pack_sequence(given, sorted));
    auto [y, lengths] = nn::utils::pad_packed_sequence(out.output);
    for (size_t n = 0; n < given.size(); ++n) {
      const auto at = static_cast<int64_t>(n);
      const std::vector<Tensor> alone = network(std::vector<Tensor>{given[n]});
      EXPECT_TRUE(equal(y.select(1, at).slice(0, 0, given[n].size(0)), alone[0]))
          << nn::to_string(network);
      EXPECT_TRUE(equal(out.h_n.select(1, at), alone[1])) << nn::to_string(network);
      if (cell) {
        EXPECT_TRUE(equal(out.c_n.select(1, at), alone[2])) << nn::to_string(network);
      }
    }
  }
}

TEST(QuantizedPackedSequence, DynamicNetworksGiveWhatTheyGiveForEverySequenceAlone) {
  for (DType dtype : {DType::qint8, DType::float16})
    for (bool both : {false, true}) {
      const RecurrentOptions o{.num_layers = 2, .bidirectional = both};
      auto lstm = quantize_dynamic<nn::Module>(nn::make<nn::LSTM>(3, 8, o), {}, dtype);
      ASSERT_EQ(lstm->type_name(), "DynamicQuantizedLSTM");
      expect_alone(*lstm, sequences(), true);
      expect_alone(*quantize_dynamic<nn::Module>(nn::make<nn::GRU>(3, 8, o), {}, dtype),
                   sequences(), false);
      expect_alone(*quantize_dynamic<nn::Module>(nn::make<nn::RNN>(3, 8, o), {}, dtype),
                   sequences(), false);
    }
  auto projected = nn::make<nn::LSTM>(3, 8, RecurrentOptions{.proj_size = 4});
  expect_alone(*quantize_dynamic<nn::Module>(projected), sequences(), true);
}

struct SequenceNet : nn::Module {
  nn::Slot quant = slot("quant", QuantStub());
  nn::Slot lstm = slot("lstm", nn::LSTM(3, 8, {.num_layers = 2, .bidirectional = true}));
  nn::Slot dequant = slot("dequant", DeQuantStub());
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    PackedSequence x = nn::Value<PackedSequence>::from(inputs);
    x.data = quant(x.data);
    PackedOutput out = lstm(x);
    out.output.data = dequant(out.output.data);
    return out.output;
  }
};

TEST(QuantizedPackedSequence, TheStaticLstmToo) {
  manual_seed(1);
  auto net = nn::make<SequenceNet>();
  net->eval();
  net->qconfig = get_default_qconfig();
  const std::vector<Tensor> xs = sequences();
  const PackedSequence packed = nn::utils::pack_sequence({xs[0], xs[1], xs[3]}, false);
  auto prepared = prepare(net);
  ASSERT_EQ(prepared->lstm->type_name(), "QuantizableLSTM");
  const Tensor want = (*net)(packed).at(0).detach();
  EXPECT_TRUE(allclose((*prepared)(packed).at(0), want, 1e-4, 1e-5)) << "in float it is the LSTM";
  auto int8 = convert(prepared);
  ASSERT_EQ(int8->lstm->type_name(), "QuantizedLSTM");
  EXPECT_GT(testing::sqnr(want, (*int8)(packed).at(0)), 15);
  std::vector<Tensor> codes;
  for (const Tensor& x : {xs[0], xs[1], xs[3]}) codes.push_back(int8->quant(x));
  expect_alone(*int8->lstm, codes, true);
}

}  // namespace
}  // namespace octet::quant
