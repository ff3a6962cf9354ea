#include "octet/kernels/kernels.h"

#include "octet/kernels/isa/tables_impl.h"

namespace octet::kernels {

const KernelTable& table(Isa isa) {
  switch (isa) {
    case Isa::scalar:
      return scalar_table;
    case Isa::avx2:
      return avx2_table;
    case Isa::avxvnni:
      return avxvnni_table;
    case Isa::avx512vnni:
      return avx512vnni_table;
  }
  return scalar_table;
}

const KernelTable& table() { return table(current_isa()); }

}  // namespace octet::kernels
