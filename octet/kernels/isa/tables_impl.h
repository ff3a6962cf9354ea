#pragma once
// The tables that the files of this folder define, one each; a build has those of its
// architecture. Only kernels.cpp reads them. They are
// constants, so nothing of an ISA's file runs before the CPU was checked.

#include "octet/kernels/kernels.h"

namespace octet::kernels {

extern const KernelTable scalar_table;
extern const KernelTable avx2_table;
extern const KernelTable avxvnni_table;
extern const KernelTable avx512vnni_table;
extern const KernelTable neon_table;
extern const KernelTable dotprod_table;
extern const KernelTable i8mm_table;

}  // namespace octet::kernels
