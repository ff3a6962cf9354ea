#pragma once
// Training steps whose batch is cut into chunks, for several ranks (docs/scaling.md): each chunk
// has its own forward and backward pass, and what they give is added in one fixed order, so that
// the bits do not depend on how many ranks share the chunks. Rank r of n does chunks / n of them,
// from number r * chunks / n on; chunks / n is a power of two, which makes the ranks' parts whole
// branches of the tree of sums.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "octet/autograd/autograd.h"
#include "octet/dist/team.h"
#include "octet/nn/module.h"
#include "octet/quant/algorithms/step_team.h"

namespace octet::cli {

class ChunkedStep {
 public:
  // A batch has `chunks` of equal size. WrongUsage unless each rank's are a power of two.
  ChunkedStep(nn::Module& module, int64_t chunks, dist::Team& team);
  bool is_mine(int64_t chunk) const { return chunk / own_ == team_.rank(); }

  // Before the step, and before each chunk of it: observers and running statistics are what they
  // were before the step.
  void begin();
  void begin_chunk();
  // After backward() of chunk / chunks times its loss: takes the gradients away. Those of a rank's
  // last chunk were sent while backward() went on to earlier layers.
  void end_chunk(double loss);
  // After the chunks. The module's gradients are those of the batch, on all ranks; the ranges of
  // observers are what the whole batch would have given; running statistics are the means over the
  // chunks. The mean loss.
  double finish();

 private:
  // What a chunk gives, and what some of them give together.
  struct Node {
    std::vector<std::vector<float>> gradients;  // by parameter; empty: none, or sent
    std::vector<float> statistics;              // running ones
    std::vector<float> least, most;             // of observers
    double loss = 0;
    void add(const Node& other);
    // The ranges and the loss, for the other ranks.
    std::string to_bytes() const;
    void from_bytes(const std::string& bytes);
  };
  using State = std::map<std::string, Tensor>;
  void send(size_t parameter);
  void put(size_t parameter, const std::vector<float>& gradient);
  void send_bucket();
  void give(const Node& all, const std::vector<std::vector<float>>& sums);

  dist::Team& team_;
  nn::Module& module_;
  int64_t chunks_, own_;
  std::vector<Tensor> parameters_;
  int64_t done_ = 0;         // own chunks of this step
  std::vector<Node> nodes_;  // sums of 8, 4, 2, 1 chunks, as the bits of done_ say
  std::vector<std::unique_ptr<autograd::GradientHook>> hooks_;  // during the last own chunk
  std::vector<float> bucket_;  // gradients that wait to be sent together
  size_t begun_ = 0;           // sums of this step
  struct Place {
    size_t parameter, sum, offset;
  };
  std::vector<Place> sent_;                 // where the gradients are
  std::map<std::string, State> observers_;  // before the step, by path
  std::vector<Tensor> statistics_;          // likewise: float buffers
};

// The ranks as those who learn rounding or distill together.
class LearningTeam final : public quant::StepTeam {
 public:
  // WrongUsage as above.
  LearningTeam(int64_t chunks, dist::Team& team);
  int64_t parts() const override { return chunks_; }
  bool is_mine(int64_t part) const override { return part / own_ == team_.rank(); }
  void sum(std::vector<float>& values) override;

 private:
  dist::Team& team_;
  int64_t chunks_, own_;
};

}  // namespace octet::cli
