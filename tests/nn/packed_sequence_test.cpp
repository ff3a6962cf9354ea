// Sequences of different lengths: packing and padding, and recurrent networks on them.
#include "octet/nn/packed_sequence.h"

#include <gtest/gtest.h>

#include "octet/autograd/autograd.h"
#include "octet/graph/trace.h"
#include "octet/nn/containers.h"
#include "octet/nn/rnn.h"
#include "octet/ops/functional.h"
#include "octet/ops/op.h"
#include "tests/expect_error.h"

namespace octet::nn {
namespace {

using testing::expect_error;
using utils::PackedOutput;
using utils::PackedSequence;
using Ints = std::vector<int64_t>;

Ints ints(const Tensor& t) { return t.to_vector<int64_t>(); }

// (T, N) of one feature: 10*n + t.
Tensor numbered(int64_t steps, int64_t count) {
  std::vector<float> values;
  for (int64_t t = 0; t < steps; ++t)
    for (int64_t n = 0; n < count; ++n) values.push_back(static_cast<float>(10 * n + t));
  return Tensor::from(values, {steps, count});
}

TEST(PackedSequence, HoldsTheStepsOfAllSequencesInTurn) {
  PackedSequence p = utils::pack_padded_sequence(numbered(4, 3), {4, 2, 1});
  EXPECT_EQ(p.data.to_vector<float>(), (std::vector<float>{0, 10, 20, 1, 11, 2, 3}));
  EXPECT_EQ(ints(p.batch_sizes), (Ints{3, 2, 1, 1}));
  EXPECT_FALSE(p.sorted_indices.defined());
  EXPECT_FALSE(p.unsorted_indices.defined());
  auto [y, lengths] = utils::pad_packed_sequence(p, false, -1);
  EXPECT_EQ(y.shape(), (Shape{4, 3}));
  EXPECT_EQ(y.to_vector<float>(), (std::vector<float>{0, 10, 20, 1, 11, -1, 2, -1, -1, 3, -1, -1}));
  EXPECT_EQ(ints(lengths), (Ints{4, 2, 1}));
}

TEST(PackedSequence, SortsAndPutsBackWhatIsNotSorted) {
  const Tensor x = numbered(4, 3).transpose(0, 1);  // (N, T)
  PackedSequence p = utils::pack_padded_sequence(x, Tensor::from<int64_t>({1, 3, 3}), true, false);
  EXPECT_EQ(ints(p.sorted_indices), (Ints{1, 2, 0}));
  EXPECT_EQ(ints(p.unsorted_indices), (Ints{2, 0, 1}));
  EXPECT_EQ(p.data.to_vector<float>(), (std::vector<float>{10, 20, 0, 11, 21, 12, 22}));
  EXPECT_EQ(ints(p.batch_sizes), (Ints{3, 2, 2}));
  auto [y, lengths] = utils::pad_packed_sequence(p, true, 0, 5);
  EXPECT_EQ(y.shape(), (Shape{3, 5}));
  EXPECT_EQ(y.to_vector<float>(),
            (std::vector<float>{0, 0, 0, 0, 0, 10, 11, 12, 0, 0, 20, 21, 22, 0, 0}));
  EXPECT_EQ(ints(lengths), (Ints{1, 3, 3}));
}

TEST(PackedSequence, OfSequencesEachItsOwn) {
  const Tensor a = Tensor::from<float>({1, 2, 3}), b = Tensor::from<float>({4, 5}),
               c = Tensor::from<float>({6});
  EXPECT_EQ(utils::pad_sequence({b, a}, true, 9).to_vector<float>(),
            (std::vector<float>{4, 5, 9, 1, 2, 3}));
  PackedSequence p = utils::pack_sequence({a, b, c});
  EXPECT_EQ(p.data.to_vector<float>(), (std::vector<float>{1, 4, 6, 2, 5, 3}));
  PackedSequence q = utils::pack_sequence({b, c, a}, false);
  EXPECT_EQ(q.data.to_vector<float>(), p.data.to_vector<float>());
  EXPECT_EQ(ints(q.sorted_indices), (Ints{2, 0, 1}));
  // Codes, too: the padding is a code of the same scale.
  const Tensor codes = quantize_per_tensor(Tensor::rand({3, 2, 4}, 1), 0.01, 3, DType::quint8);
  PackedSequence packed = utils::pack_padded_sequence(codes, {3, 2});
  auto [y, lengths] = utils::pad_packed_sequence(packed);
  EXPECT_TRUE(equal(y.slice(0, 0, 2), codes.slice(0, 0, 2)));
  EXPECT_EQ(y.at({2, 1, 0}), 0);
}

TEST(PackedSequence, Errors) {
  const Tensor x = Tensor::zeros({4, 3, 2});
  expect_error(ErrorCode::invalid_argument, {"pack_padded_sequence", "increase", "enforce_sorted"},
               [&] {
                 utils::pack_padded_sequence(x, {1, 2, 3});
               });
  expect_error(ErrorCode::invalid_argument, {"pack_padded_sequence", "length 0"}, [&] {
    utils::pack_padded_sequence(x, {2, 1, 0});
  });
  expect_error(ErrorCode::invalid_argument, {"pack_padded_sequence", "length 5", "1 to 4"}, [&] {
    utils::pack_padded_sequence(x, {5, 1, 1});
  });
  expect_error(ErrorCode::invalid_argument, {"pack_padded_sequence", "2 lengths"}, [&] {
    utils::pack_padded_sequence(x, {2, 1});
  });
  expect_error(ErrorCode::invalid_argument, {"pack_padded_sequence", "lengths", "int64"},
               [&] { utils::pack_padded_sequence(x, Tensor::ones({3})); });
  expect_error(ErrorCode::invalid_argument, {"pack_sequence", "(2, 3)"}, [] {
    utils::pack_sequence({Tensor::zeros({2, 3}), Tensor::zeros({2, 4})});
  });
  PackedSequence p = utils::pack_padded_sequence(x, {4, 2, 1});
  expect_error(ErrorCode::invalid_argument, {"total_length=3", "4"},
               [&] { utils::pad_packed_sequence(p, false, 0, 3); });
  PackedSequence broken = p;
  broken.batch_sizes = Tensor::from<int64_t>({2, 3, 2});
  expect_error(ErrorCode::invalid_argument, {"pad_packed_sequence", "batch_sizes"},
               [&] { utils::pad_packed_sequence(broken); });
  broken = p;
  broken.sorted_indices = Tensor::from<int64_t>({0, 1, 1});
  expect_error(ErrorCode::invalid_argument, {"sorted_indices"},
               [&] { utils::pad_packed_sequence(broken); });
  LSTM lstm(2, 3);
  expect_error(ErrorCode::invalid_argument, {"LSTM", "state 1", "(1, 2, 3)", "3 sequences"}, [&] {
    lstm.forward(p.with(Tensor::zeros({1, 3, 3}), Tensor::zeros({1, 2, 3})));
  });
  expect_error(ErrorCode::invalid_argument, {"GRU", "2 states"}, [&] {
    GRU(2, 3).forward(p.with(Tensor::zeros({1, 3, 3}), Tensor::zeros({1, 3, 3})));
  });
  expect_error(ErrorCode::invalid_argument, {"PackedOutput", "3 results"},
               [&] { PackedOutput out(lstm.forward(std::vector{x})); });
}

// What the network gives for every sequence alone, in every form, packed sorted or not, with states
// or without.
template <typename M>
void expect_alone(const M& made, bool has_cell) {
  auto network = make<M>(made);
  const Ints lengths{2, 5, 1, 5, 3};
  const int64_t count = network->options.num_layers * network->directions();
  const Tensor x = Tensor::randn({5, 5, 3}, 1);
  for (bool sorted : {false, true}) {
    Ints order{0, 1, 2, 3, 4};
    if (sorted)
      std::stable_sort(order.begin(), order.end(),
                       [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
    std::vector<Tensor> sequences;
    for (int64_t n : order) sequences.push_back(x.select(1, n).slice(0, 0, lengths[n]));
    const PackedSequence packed = utils::pack_sequence(sequences, sorted);
    for (bool states : {false, true}) {
      const Tensor h0 = states ? Tensor::randn({count, 5, network->output_size()}, 2) : Tensor(),
                   c0 = states && has_cell ? Tensor::randn({count, 5, network->hidden_size}, 3)
                                           : Tensor();
      const PackedOutput out = states ? (*network)(packed.with(h0, c0)) : (*network)(packed);
      auto [y, given] = utils::pad_packed_sequence(out.output, true);
      for (size_t n = 0; n < sequences.size(); ++n) {
        const auto at = static_cast<int64_t>(n);
        std::vector<Tensor> one{sequences[n]};
        if (states) one.push_back(h0.select(1, at));
        if (states && has_cell) one.push_back(c0.select(1, at));
        const std::vector<Tensor> alone = (*network)(one);
        ASSERT_EQ(given.at({at}), static_cast<double>(sequences[n].size(0)));
        EXPECT_TRUE(
            equal(y.detach().select(0, at).slice(0, 0, sequences[n].size(0)), alone[0].detach()))
            << to_string(*network);
        EXPECT_TRUE(equal(out.h_n.detach().select(1, at), alone[1].detach()))
            << to_string(*network);
        EXPECT_EQ(out.c_n.defined(), has_cell);
        if (has_cell) {
          EXPECT_TRUE(equal(out.c_n.detach().select(1, at), alone[2].detach()))
              << to_string(*network);
        }
      }
    }
  }
}

TEST(PackedSequence, NetworksGiveWhatTheyGiveForEverySequenceAlone) {
  for (int bits = 0; bits < 8; ++bits) {
    const RecurrentOptions o{.num_layers = bits & 1 ? 2 : 1,
                             .batch_first = (bits & 2) != 0,
                             .bidirectional = (bits & 4) != 0};
    expect_alone(LSTM(3, 4, o), true);
    expect_alone(GRU(3, 4, o), false);
    expect_alone(RNN(3, 4, o), false);
  }
  expect_alone(LSTM(3, 4, {.num_layers = 2, .bias = false, .bidirectional = true, .proj_size = 2}),
               true);
  expect_alone(RNN(3, 4, {.nonlinearity = "relu"}), false);
}

struct Tagger : Module {
  Slot gru = slot("gru", GRU(3, 4, {.bidirectional = true}));
  Tensor run(const Tensor& x, const Ints& lengths) {
    PackedOutput out = gru(utils::pack_padded_sequence(x, lengths, false, false));
    return utils::pad_packed_sequence(out.output).first;
  }
  Tensor forward(Tensor x) override { return run(x, {2, 4, 3}); }
};

TEST(PackedSequence, GradientsAreThoseOfTheSequencesAlone) {
  auto model = make<Tagger>();
  const Tensor x = Tensor::randn({4, 3, 3}, 1);
  autograd::backward(functional::sum(model->run(x, {2, 4, 3}).pow(2)));
  std::vector<Tensor> packed;
  for (const Tensor& p : model->parameters()) packed.push_back(autograd::grad(p).clone());
  model->zero_grad();
  const Ints lengths{2, 4, 3};
  for (int64_t n = 0; n < 3; ++n)
    autograd::backward(functional::sum(model->gru(x.select(1, n).slice(0, 0, lengths[n])).pow(2)));
  for (size_t i = 0; i < packed.size(); ++i)
    EXPECT_TRUE(allclose(packed[i], autograd::grad(model->parameters()[i]), 1e-4, 1e-5)) << i;
}

struct Wrapped : Module {
  Slot lstm = slot("lstm", LSTM(3, 4));
  std::vector<Tensor> forward(std::vector<Tensor> inputs) override {
    return {PackedOutput(lstm(inputs)).h_n};
  }
};

TEST(PackedSequence, TracingSaysThatItCannot) {
  const Tensor x = Tensor::randn({4, 3, 3}, 1);
  expect_error(ErrorCode::unsupported, {"pack_padded_sequence", "cannot be traced", "leaf"},
               [&] { graph::trace(*make<Tagger>(), {x}); });
  const PackedSequence p = utils::pack_padded_sequence(x, {4, 2, 1}, false, false);
  expect_error(ErrorCode::unsupported, {"LSTM", "PackedSequence", "cannot be traced"},
               [&] { graph::trace(*make<Wrapped>(), p); });
  // As a leaf it is called, not followed.
  auto model = make<Sequential>(Tagger(), Tagger());
  (*model)[1].as<Tagger>().gru.set(make<GRU>(8, 4));
  auto traced = graph::trace(*model, {x}, {.leaf_modules = {"0", "1"}});
  EXPECT_TRUE(equal((*traced)(x).detach(), (*model)(x).detach()));
}

TEST(PackedSequence, FlowsThroughModulesAsAValue) {
  struct Scale : ValueModule<PackedSequence> {
    PackedSequence forward_value(PackedSequence x) override {
      x.data = x.data * 2;
      return x;
    }
  };
  struct Holder : Module {
    Slot scale = slot("scale", Scale());
  };
  auto holder = make<Holder>();
  const PackedSequence p = utils::pack_padded_sequence(numbered(2, 2), {2, 1});
  const PackedSequence twice = holder->scale.call<PackedSequence>(p);
  EXPECT_EQ(twice.data.to_vector<float>(), (std::vector<float>{0, 20, 2}));
  EXPECT_TRUE(equal(twice.batch_sizes, p.batch_sizes));
}

}  // namespace
}  // namespace octet::nn
