#include "octet/base/random.h"

#include <mutex>

#include "octet/base/random.h"

namespace octet {
namespace {
std::mutex g_mutex;
Random g_random(0);
}  // namespace

void manual_seed(uint64_t seed) {
  std::lock_guard lock(g_mutex);
  g_random = Random(seed);
}

uint64_t next_seed() {
  std::lock_guard lock(g_mutex);
  return g_random.next();
}

}  // namespace octet
