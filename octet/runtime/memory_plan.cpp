#include "octet/runtime/memory_plan.h"

#include <algorithm>
#include <numeric>

#include "octet/base/buffer.h"

namespace octet::runtime {

MemoryPlan plan_memory(const std::vector<Lifetime>& blocks) {
  MemoryPlan plan;
  plan.offsets.assign(blocks.size(), 0);
  std::vector<size_t> order(blocks.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return blocks[a].bytes > blocks[b].bytes; });
  auto padded = [&](size_t i) { return (blocks[i].bytes + kBufferSlack + 63) / 64 * 64; };
  std::vector<size_t> placed;
  for (size_t i : order) {
    if (blocks[i].last < blocks[i].first) continue;  // lives nowhere
    std::vector<size_t> rivals;
    for (size_t p : placed)
      if (blocks[p].first <= blocks[i].last && blocks[i].first <= blocks[p].last)
        rivals.push_back(p);
    std::sort(rivals.begin(), rivals.end(),
              [&](size_t a, size_t b) { return plan.offsets[a] < plan.offsets[b]; });
    size_t at = 0;
    for (size_t p : rivals) {
      if (at + padded(i) <= plan.offsets[p]) break;
      at = std::max(at, plan.offsets[p] + padded(p));
    }
    plan.offsets[i] = at;
    plan.total = std::max(plan.total, at + padded(i));
    placed.push_back(i);
  }
  return plan;
}

}  // namespace octet::runtime
