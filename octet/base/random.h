#pragma once
// Random numbers that are the same on every machine and standard library.

#include <cmath>
#include <cstdint>

namespace octet {

// SplitMix64 (Steele, Lea, Flood 2014): small, seedable with any value, passes BigCrush.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  // [0, 1)
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }
  double uniform(double low, double high) { return low + (high - low) * uniform(); }
  // A whole number from low to high, both included.
  int64_t integer(int64_t low, int64_t high) {
    return low + static_cast<int64_t>(next() % (static_cast<uint64_t>(high - low) + 1));
  }
  // Standard normal (Box and Muller 1958).
  double normal() {
    double u = 1 - uniform(), v = uniform();
    return std::sqrt(-2 * std::log(u)) * std::cos(6.283185307179586 * v);
  }

 private:
  uint64_t state_;
};

// The seed of everything random that is not given one: initial weights, dropout, shuffling. As
// torch.manual_seed: what is drawn afterwards is the same on every machine. Without a call the seed
// is 0.
void manual_seed(uint64_t seed);
// The next seed of that sequence. Thread-safe.
uint64_t next_seed();

}  // namespace octet
