#pragma once
// Learning by several processes together (docs/scaling.md).

#include <cstdint>
#include <functional>
#include <vector>

#include "octet/tensor/tensor.h"

namespace octet::quant {

// Processes that take the steps of a training together: each makes the same calls with the same
// arguments and gets the same result. The samples of a step are cut into parts; each process
// computes the gradients of some of them, which are added in one order, so that the bits depend on
// the number of parts and not on that of processes.
class StepTeam {
 public:
  virtual ~StepTeam() = default;
  // Of a step: 1, 2, 4, 8, ... for each process.
  virtual int64_t parts() const = 0;
  // A process has neighbours, as many as the others.
  virtual bool is_mine(int64_t part) const = 0;
  // The sums over all processes, everywhere: a branch of the tree in which neighbours are added,
  // then neighbours of those, is a process's.
  virtual void sum(std::vector<float>& values) = 0;
};

// The gradients of `leaves` by the sum of loss(part) over all parts: of those of this process by
// itself, of the others from their processes. An undefined loss counts nothing. The losses must not
// share what autograd has recorded.
void backward_together(StepTeam& team, const std::vector<Tensor>& leaves,
                       const std::function<Tensor(int64_t part)>& loss);

}  // namespace octet::quant
