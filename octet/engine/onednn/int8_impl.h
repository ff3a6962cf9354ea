#pragma once
// Products of codes through oneDNN. It computes the sums of products of unsigned by signed bytes as
// whole numbers of 32 bits; zero points, bias and the way to codes are octet's (KernelTable's
// gemm_finish), so that results are the same bits as every other engine's.
//
// Not all of oneDNN's sums are whole: what is left out here, docs/numerics.md lists.

#include <cstdint>
#include <limits>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "octet/engine/integer_weights_impl.h"
#include "octet/engine/onednn/onednn_impl.h"

namespace octet::onednn {

// What a weight's codes can make of unsigned activations.
struct CodeSums {
  CodeSums(const engine_detail::WeightCodes& weights, const OpSpec& spec);
  std::vector<int32_t> taps;  // [tap][output channel]: the sum of the codes over input channels
  int64_t farthest = 0;       // the largest magnitude that a sum of products can have
  // No two products of a channel add up to more than 16 bits hold. Only found out where that
  // matters, false otherwise (sums_in_32_bits).
  bool pairs_fit = false;
};

// Whether oneDNN's kernels for this machine multiply bytes without sums of 16 bits in between
// (VNNI, AMX). Without, two neighbouring products are added in 16 bits, which saturate.
bool sums_in_32_bits();

// oneDNN's implementations whose sums are exact, by what they may be trusted with.
struct Trust {
  bool pairs_fit = false;   // the weights' products fit 16 bits in pairs: kernels without VNNI too
  bool fits_float = false;  // no sum is larger than kExactInFloat
  bool only_gemm = false;   // the others are wrong for some shapes
};
// Whole numbers up to this one are float32 values. The sums of oneDNN's convolutions pass through
// float32, as do those of its plainest implementations ("ref").
inline constexpr int64_t kExactInFloat = int64_t{1} << 24;
// Its products of matrices add in 32 bits on x86; elsewhere it has the plainest only.
#if defined(__x86_64__)
inline constexpr int64_t kExactInProducts = std::numeric_limits<int32_t>::max();
#else
inline constexpr int64_t kExactInProducts = kExactInFloat;
#endif
// Moves on to the first implementation that may be trusted. Throws dnnl::error if there is none.
// The operation's descriptor that `pd` was made of has to be alive still: next_impl reads it.
template <typename Desc>
void take_exact(Desc& pd, const Trust& trust) {
  const auto exact = [&] {
    const std::string_view name = pd.impl_info_str();
    auto says = [&](const char* part) { return name.find(part) != std::string_view::npos; };
    if (says("ref")) return trust.fits_float;
    if (says("gemm:jit") || says("gemm_s8u8s32")) return true;
    // On a machine with VNNI it also has kernels for AVX2.
    return !trust.only_gemm && (trust.pairs_fit || says("vnni") || says("amx"));
  };
  while (!exact())
    if (!pd.next_impl()) throw dnnl::error(dnnl_unimplemented, "no implementation adds up exactly");
}

// What its kernels say of themselves (KernelDescription).
KernelDescription describe_sums(std::string epilogue, bool weight = true);

// A primitive of codes and a second operand, constant or not, that gives int32 sums.
class SumsPrimitive {
 public:
  SumsPrimitive() = default;
  template <typename Desc>
  SumsPrimitive(const Desc& pd, dnnl::primitive primitive, memory weights)
      : primitive_(std::move(primitive)),
        x_(pd.src_desc(), cpu(), nullptr),
        weights_(std::move(weights)),
        sums_(pd.dst_desc(), cpu(), nullptr),
        scratch_(pd.scratchpad_desc(), cpu(), nullptr),
        arguments_{{DNNL_ARG_SRC, x_},
                   {DNNL_ARG_WEIGHTS, weights_},
                   {DNNL_ARG_DST, sums_},
                   {DNNL_ARG_SCRATCHPAD, scratch_}} {}
  size_t sums_bytes() const { return sums_.get_desc().get_size(); }
  size_t scratch_bytes() const { return scratch_.get_desc().get_size(); }
  void point_weights(const void* data) { weights_.set_data_handle(const_cast<void*>(data)); }
  void run(const void* x, int32_t* sums, void* scratch) {
    x_.set_data_handle(const_cast<void*>(x));
    sums_.set_data_handle(sums);
    scratch_.set_data_handle(scratch);
    primitive_.execute(stream(), arguments_);
    stream().wait();
  }

 private:
  dnnl::primitive primitive_;
  memory x_, weights_, sums_, scratch_;
  std::unordered_map<int, memory> arguments_;
};

}  // namespace octet::onednn
