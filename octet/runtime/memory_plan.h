#pragma once
// Where each intermediate result of a program lies in one shared block of memory.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace octet::runtime {

// A block that must exist from step `first` to step `last`, both included; never if last < first.
struct Lifetime {
  size_t bytes = 0;
  int first = 0, last = 0;
};

struct MemoryPlan {
  std::vector<size_t> offsets;  // one per block, multiples of 64
  size_t total = 0;
};

// Gives blocks that live at the same time disjoint ranges, with kBufferSlack bytes after each.
// Largest first, each at the lowest offset where it fits: the "greedy by size" of Pisarchyk and
// Lee, "Efficient Memory Management for Deep Neural Net Inference" (2020).
MemoryPlan plan_memory(const std::vector<Lifetime>& blocks);

}  // namespace octet::runtime
