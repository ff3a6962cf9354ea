// libFuzzer's entry points: the fuzzer that OCTET_FUZZER names.
#include <sanitizer/common_interface_defs.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "fuzz/fuzz.h"
#include "octet/base/parallel.h"
#include "tests/temp_dir.h"

extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*malloc_hook)(const volatile void*,
                                                                             size_t),
                                                         void (*free_hook)(const volatile void*));
extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace octet::fuzz {
namespace {

const Target* g_target = nullptr;
std::atomic<size_t> g_most{0};  // bytes of an allocation; 0: no run

void on_allocation(const volatile void*, size_t bytes) {
  const size_t most = g_most.load(std::memory_order_relaxed);
  if (most == 0 || bytes <= most) return;
  g_most = 0;
  std::fprintf(stderr, "FINDING: an allocation of %zu bytes, where %zu are the most\n", bytes,
               most);
  __sanitizer_print_stack_trace();
  std::abort();
}
void on_free(const volatile void*) {}

[[noreturn]] void usage() {
  std::fprintf(stderr, "OCTET_FUZZER must be one of:");
  for (const auto& [name, target] : targets()) std::fprintf(stderr, " %s", name.c_str());
  std::fprintf(stderr, "\n");
  std::exit(2);
}

void initialize() {
  work_directory();
  set_num_threads(1);
  const char* name = std::getenv("OCTET_FUZZER");
  const auto it = targets().find(name ? name : "");
  if (it == targets().end()) usage();
  g_target = &it->second;
  __sanitizer_install_malloc_and_free_hooks(on_allocation, on_free);
}

}  // namespace
}  // namespace octet::fuzz

using namespace octet::fuzz;

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  initialize();
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  g_most = kAllocationFactor * size + g_target->free_bytes;
  run(*g_target, data, size);  // what is thrown here ends the process, as a finding
  g_most = 0;
  return 0;
}

extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  return g_target->mutate ? g_target->mutate(data, size, max_size, seed)
                          : LLVMFuzzerMutate(data, size, max_size);
}
