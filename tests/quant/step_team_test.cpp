// Learning by several processes together: here by threads, each with a network of its own.
#include "octet/quant/algorithms/step_team.h"

#include <gtest/gtest.h>

#include <barrier>
#include <thread>

#include "octet/autograd/autograd.h"
#include "octet/ops/functional.h"
#include "octet/quant/algorithms/adaround.h"
#include "octet/quant/algorithms/distill.h"
#include "tests/quant/few_bits.h"

namespace octet::testing {
namespace {

using graph::Graph;
using graph::ValueId;
using quant::StepTeam;

// What members have in common.
struct Meeting {
  explicit Meeting(int64_t n) : values(static_cast<size_t>(n)), all_here(n) {}
  std::vector<std::vector<float>*> values;
  std::barrier<> all_here;
};

class Member final : public StepTeam {
 public:
  Member(Meeting& meeting, int64_t rank, int64_t parts)
      : meeting_(meeting), rank_(rank), parts_(parts) {}
  int64_t parts() const override { return parts_; }
  bool is_mine(int64_t part) const override {
    return part / (parts_ / std::ssize(meeting_.values)) == rank_;
  }
  void sum(std::vector<float>& values) override {
    meeting_.values[static_cast<size_t>(rank_)] = &values;
    meeting_.all_here.arrive_and_wait();
    if (rank_ == 0) {
      auto& all = meeting_.values;
      for (size_t s = 1; s < all.size(); s *= 2)
        for (size_t i = 0; i + s < all.size(); i += 2 * s)
          for (size_t j = 0; j < values.size(); ++j) (*all[i])[j] += (*all[i + s])[j];
    }
    meeting_.all_here.arrive_and_wait();
    if (rank_ > 0) values = *meeting_.values[0];
    meeting_.all_here.arrive_and_wait();
  }

 private:
  Meeting& meeting_;
  int64_t rank_, parts_;
};

// fn(team) of each of n members; what they gave.
template <typename Fn>
auto together(int64_t n, int64_t parts, Fn&& fn) {
  Meeting meeting(n);
  std::vector<decltype(fn(std::declval<StepTeam&>()))> results(static_cast<size_t>(n));
  std::vector<std::thread> threads;
  for (int64_t rank = 0; rank < n; ++rank)
    threads.emplace_back([&, rank] {
      Member member(meeting, rank, parts);
      results[static_cast<size_t>(rank)] = fn(member);
    });
  for (std::thread& t : threads) t.join();
  return results;
}

Graph small_net() {
  Graph g;
  const ValueId x =
      g.add_input("x", TensorType(DType::float32, {Dim("N"), Dim(3), Dim(6), Dim(6)}));
  const auto conv = [&](const char* name, ValueId in, int64_t out, int64_t channels) {
    Tensor w = Tensor::randn({out, channels, 3, 3}, static_cast<uint64_t>(out));
    for (int64_t i = 0; i < w.numel(); ++i) w.data<float>()[i] *= 0.2F;
    return g.add_call(name, "conv2d", {in, g.add_constant(std::string(name) + ".weight", w)},
                      {{"padding", std::vector<int64_t>{1, 1, 1, 1}}});
  };
  const ValueId a = g.add_call("ra", "relu", {conv("a", x, 8, 3)});
  g.set_outputs({conv("b", g.add_call("s", "add", {conv("c", a, 8, 8), a}), 4, 8)});
  return g;
}

using Weights = std::vector<std::vector<float>>;
Weights weights_of(const quant::ObservedGraphModule& prepared) {
  Weights all;
  const Graph g = prepared.watched().graph;
  for (size_t v = 0; v < g.values().size(); ++v)
    if (const auto id = static_cast<ValueId>(v);
        g.is_constant(id) && g.type(id).dtype == DType::float32)
      all.push_back(g.constant(id).to_vector<float>());
  return all;
}

// What `learn` makes of the weights with 4 parts of a step must be the same for 1, 2 and 4 members,
// and other weights than there were.
void expect_same_bits(
    const std::function<void(quant::ObservedGraphModule&, const Batches&, StepTeam*)>& learn) {
  const Graph g = small_net();
  const Batches samples = mixed({40, 3, 6, 6}, 5);
  const auto weights = [&](StepTeam* team) {
    auto prepared = prepared_with_bits(g, samples, 3);
    learn(*prepared, samples, team);
    return weights_of(*prepared);
  };
  const Weights one = together(1, 4, [&](StepTeam& team) { return weights(&team); })[0];
  EXPECT_NE(one, weights_of(*prepared_with_bits(g, samples, 3)));
  for (const int64_t n : {2, 4})
    for (const Weights& of_member : together(n, 4, [&](StepTeam& t) { return weights(&t); }))
      EXPECT_EQ(of_member, one) << n << " members";
}

}  // namespace

TEST(StepTeam, GradientsAddUpToThoseOfTheWhole) {
  const Tensor x = Tensor::randn({8, 5}, 1);
  Tensor w = Tensor::randn({5, 1}, 2);
  autograd::set_requires_grad(w);
  const auto loss = [&](int64_t begin, int64_t end) {
    const Tensor y = functional::matmul(x.slice(0, begin, end), w);
    return functional::sum(y * y);
  };
  autograd::backward(loss(0, 8));
  const Tensor whole = autograd::grad(w);
  for (const int64_t n : {1, 2}) {
    const auto gradients = together(n, 4, [&](StepTeam& team) {
      const autograd::GradMode recording(true);
      Tensor own = w.detach().clone();
      autograd::set_requires_grad(own);
      quant::backward_together(team, {own}, [&](int64_t part) {
        const Tensor y = functional::matmul(x.slice(0, 2 * part, 2 * part + 2), own);
        return functional::sum(y * y);
      });
      return autograd::grad(own);
    });
    for (const Tensor& g : gradients) EXPECT_TRUE(allclose(g, whole, 1e-5, 1e-5)) << n;
  }
}

TEST(StepTeam, APartWithoutALossCountsNothing) {
  Tensor w = Tensor::ones({3});
  autograd::set_requires_grad(w);
  Meeting meeting(1);
  Member alone(meeting, 0, 2);
  quant::backward_together(
      alone, {w}, [&](int64_t part) { return part == 0 ? functional::sum(w * 2.0) : Tensor(); });
  EXPECT_TRUE(equal(autograd::grad(w), Tensor::full({3}, 2)));
}

TEST(StepTeam, RoundingByBlocksIsTheSameForAnyNumberOfMembers) {
  expect_same_bits(
      [](quant::ObservedGraphModule& prepared, const Batches& samples, StepTeam* team) {
        quant::adaround(prepared, samples,
                        {.blocks = true, .iterations = 25, .batch = 16, .team = team});
      });
}

TEST(StepTeam, RoundingByBlocksWithLearnedScalesIsTheSameToo) {
  expect_same_bits(
      [](quant::ObservedGraphModule& prepared, const Batches& samples, StepTeam* team) {
        quant::adaround(
            prepared, samples,
            {.blocks = true, .iterations = 10, .batch = 16, .learn_scales = true, .team = team});
      });
}

TEST(StepTeam, DistillationIsTheSameForAnyNumberOfMembers) {
  expect_same_bits(
      [](quant::ObservedGraphModule& prepared, const Batches& samples, StepTeam* team) {
        quant::distill(prepared, samples, {.iterations = 20, .batch = 16, .team = team});
      });
}

}  // namespace octet::testing
