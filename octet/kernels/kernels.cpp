#include "octet/kernels/kernels.h"

#include <atomic>

#include "octet/kernels/isa/tables_impl.h"
#include "octet/kernels/prefetch_impl.h"

namespace octet::kernels {

const int64_t g_prefetch_tiles = cpu_supports(Isa::avxvnni) ? 20 : 4;

const KernelTable& table(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return scalar_table;
#if defined(__x86_64__)
    case Isa::avx2:
      return avx2_table;
    case Isa::avxvnni:
      return avxvnni_table;
    case Isa::avx512vnni:
      return avx512vnni_table;
#elif defined(__aarch64__)
    case Isa::neon:
      return neon_table;
    case Isa::dotprod:
      return dotprod_table;
    case Isa::i8mm:
      return i8mm_table;
#endif
    default:
      break;
  }
  return scalar_table;
}

namespace {
std::atomic<const KernelTable*> g_other{nullptr};
}  // namespace

const KernelTable& table() {
  const KernelTable* other = g_other.load(std::memory_order_acquire);
  return other ? *other : table(current_isa());
}
void use_table(const KernelTable* table) { g_other.store(table, std::memory_order_release); }

}  // namespace octet::kernels
