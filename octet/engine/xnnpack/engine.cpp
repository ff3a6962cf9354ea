// XNNPACK: the operators on codes whose results are octet's to the bit, and no others.
//
// Left out are those of its operators that round otherwise. On random codes and qparams, on a CPU
// with AVX-512, its results differ from docs/numerics.md
//   add                          by one step in 1.4 % of the results: a fixed-point sum
//   avg_pool2d, same qparams     by one step in 9 %: ties go up, octet's to even
//   global average pools         by one step in 0.3 %: its multiplier has one division less
//   max_pool2d with dilation     by up to 254 steps: taps in the padding become other pixels
// and on Arm mul, layers whose weights have zero points, and layers with a weight of -128
// (xnnpack_impl.h).
// Its float operators sum in an order of their own, not in octet's chain of multiply-adds.
#include "octet/engine/registry.h"
#include "octet/engine/xnnpack/xnnpack_impl.h"

namespace octet::xnnpack {

Engine make_engine() {
  Engine e("xnnpack", {"qnnpack"}, "XNNPACK, on codes, one thread");
  e.add({"conv2d"}, make_conv);
  e.add({"linear"}, make_linear);
  e.add({"mul"}, make_mul);
  e.add({"relu", "relu6", "clamp"}, make_clamp);
  e.add({"max_pool2d"}, make_max_pool);
  return e;
}

}  // namespace octet::xnnpack
