#include "octet/quant/algorithms/step_team.h"

#include "octet/autograd/autograd.h"

namespace octet::quant {
namespace {

// The leaves' gradients, taken away from them; zeros where there are none.
std::vector<float> taken_gradients(const std::vector<Tensor>& leaves) {
  std::vector<float> all;
  for (const Tensor& leaf : leaves) {
    const Tensor g = autograd::grad(leaf);
    const std::vector<float> values =
        g.defined() ? g.to_vector<float>()
                    : std::vector<float>(static_cast<size_t>(leaf.numel()), 0.0F);
    all.insert(all.end(), values.begin(), values.end());
    autograd::zero_grad(leaf);
  }
  return all;
}

}  // namespace

void backward_together(StepTeam& team, const std::vector<Tensor>& leaves,
                       const std::function<Tensor(int64_t part)>& loss) {
  std::vector<std::vector<float>> parts;
  for (const Tensor& leaf : leaves) autograd::zero_grad(leaf);
  for (int64_t part = 0; part < team.parts(); ++part) {
    if (!team.is_mine(part)) continue;
    if (const Tensor of_part = loss(part); of_part.defined()) autograd::backward(of_part);
    parts.push_back(taken_gradients(leaves));
  }
  for (size_t s = 1; s < parts.size(); s *= 2)
    for (size_t i = 0; i + s < parts.size(); i += 2 * s)
      for (size_t j = 0; j < parts[i].size(); ++j) parts[i][j] += parts[i + s][j];
  std::vector<float>& all = parts.at(0);
  team.sum(all);
  auto at = all.begin();
  for (const Tensor& leaf : leaves) {
    const auto end = at + leaf.numel();
    autograd::set_grad(leaf, Tensor::from(std::vector<float>(at, end), leaf.shape()));
    at = end;
  }
}

}  // namespace octet::quant
