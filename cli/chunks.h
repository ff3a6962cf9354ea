#pragma once
// A training step whose batch is cut into chunks, for several ranks (docs/scaling.md): each chunk
// has its own forward and backward pass, and what they give is added in one fixed order, so that
// the bits do not depend on how many ranks share the chunks.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "octet/dist/team.h"
#include "octet/nn/module.h"

namespace octet::cli {

class ChunkedStep {
 public:
  // A batch has `chunks` of equal size; rank r of n does chunks / n of them, from number
  // r * chunks / n on. WrongUsage unless chunks / n is a power of two, which makes the ranks' parts
  // whole branches of the tree of sums.
  ChunkedStep(nn::Module& module, int64_t chunks, dist::Team& team);
  bool is_mine(int64_t chunk) const { return chunk / own_ == team_.rank(); }

  // Before the step, and before each chunk of it: observers and running statistics are what they
  // were before the step.
  void begin();
  void begin_chunk();
  // After backward() of chunk / chunks times its loss: takes the gradients away.
  void end_chunk(double loss);
  // After the chunks. The module's gradients are those of the batch, on all ranks; the ranges of
  // observers are what the whole batch would have given; running statistics are the means over the
  // chunks. The mean loss.
  double finish();

 private:
  // What a chunk gives, and what some of them give together.
  struct Node {
    std::vector<float> sums;         // gradients, then running statistics
    std::vector<float> least, most;  // of observers
    double loss = 0;
    void add(const Node& other);
    std::string to_bytes() const;
    void from_bytes(const std::string& bytes);
  };
  using State = std::map<std::string, Tensor>;
  Node taken(double loss);
  void give(const Node& all);

  dist::Team& team_;
  nn::Module& module_;
  int64_t chunks_, own_;
  std::vector<Node> nodes_;
  std::map<std::string, State> observers_;  // before the step, by path
  std::vector<Tensor> statistics_;          // likewise: float buffers
  std::vector<bool> has_gradient_;          // by parameter, after a backward pass
};

}  // namespace octet::cli
