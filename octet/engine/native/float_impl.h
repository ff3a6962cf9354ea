#pragma once
// What the native float layers share: packed weights of one or more groups, and the range of a
// fused activation. Their results are the same bits on every instruction set, batch and thread
// count.

#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "octet/base/check_impl.h"
#include "octet/base/lasting.h"
#include "octet/base/parallel.h"
#include "octet/engine/native/native_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {

// The values a fused activation ("none", "relu", "relu6") clamps a float result to.
struct FloatRange {
  explicit FloatRange(const std::string& activation) {
    if (activation == "relu" || activation == "relu6") lo = 0;
    if (activation == "relu6") hi = 6;
    OCTET_CHECK(lo == 0 || activation == "none", invalid_argument,
                "unknown activation '{}': expected none, relu or relu6", activation);
  }
  float lo = -std::numeric_limits<float>::infinity(), hi = std::numeric_limits<float>::infinity();
  bool any() const { return lo == 0; }
};

inline bool is_float(const OpSpec& spec) {
  for (size_t i = 0; i < spec.inputs.size(); ++i)
    if (spec.has(i) && spec.inputs[i].dtype != DType::float32) return false;
  return spec.outputs.size() == 1 && spec.outputs[0].dtype == DType::float32;
}

// Packs the panels of one product in parallel. `packed` has float_gemm_packed_bytes(shape).
inline void pack_floats(const kernels::KernelTable& table, const kernels::GemmShape& s,
                        const kernels::FloatWeights& w, float* packed) {
  const int64_t nr = table.float_gemm_nr, panels = (s.n + nr - 1) / nr;
  const int64_t panel_floats = nr * s.taps * s.k;
  parallel_ranges(panels, (int64_t{1} << 16) / (panel_floats + 1) + 1, [&](int64_t i0, int64_t i1) {
    const kernels::GemmShape part{std::min(s.n, i1 * nr) - i0 * nr, s.k, s.taps};
    kernels::FloatWeights from = w;
    from.data += i0 * nr * w.n_stride;
    table.float_gemm_pack(part, from, packed + i0 * panel_floats);
  });
}

// The constant part of a float layer: `groups` products of the same shape, one after the other.
struct PackedFloats {
  const kernels::KernelTable* table = &kernels::table();
  kernels::GemmShape shape;  // of one group
  size_t group_bytes = 0;
  Buffer packed;

  PackedFloats(const kernels::GemmShape& s, int64_t groups, const kernels::FloatWeights& w,
               int64_t group_stride)
      : shape(s) {
    group_bytes = (table->float_gemm_packed_bytes(s) + 63) / 64 * 64;
    packed = allocate_lasting(std::max<size_t>(64, group_bytes * static_cast<size_t>(groups)));
    for (int64_t g = 0; g < groups; ++g) {
      kernels::FloatWeights from = w;
      from.data += g * group_stride;
      pack_floats(*table, s, from, group(g));
    }
  }
  float* group(int64_t g) const {
    return reinterpret_cast<float*>(reinterpret_cast<char*>(packed.data()) +
                                    static_cast<size_t>(g) * group_bytes);
  }
};

inline std::string float_loop(const kernels::KernelTable& table) {
  return fmt::format("float_gemm_{} {}x{}", to_string(table.isa), table.float_gemm_mr,
                     table.float_gemm_nr);
}

// What split_matrix counts is 8-bit products; a product of floats takes about as long as four of
// them.
inline constexpr int64_t kFloatWork = 4;

}  // namespace octet::native
