// The reference engine: the definitions of docs/numerics.md in the plainest loops, row-major, one
// thread. It is the oracle of every other engine, so nothing in this folder is clever.
#include "octet/engine/reference/reference_impl.h"
#include "octet/engine/registry.h"

namespace octet::reference {

Engine make_engine() {
  // It does not fall back: where it has no kernel the operator's own evaluation is the definition.
  Engine e("reference", {}, "plain and slow, to check the others by", false);
  e.add({"linear", "linear_dynamic", "linear_weight_only"}, make_linear);
  e.add({"linear_backward_data", "linear_backward_weight"}, make_linear_gradient);
  e.add({"matmul"}, make_matmul);
  e.add({"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
         "conv1d_dynamic", "conv2d_dynamic", "conv3d_dynamic", "conv_transpose1d_dynamic",
         "conv_transpose2d_dynamic", "conv_transpose3d_dynamic"},
        make_conv);
  e.add({"conv_backward_data", "conv_backward_weight"}, make_conv_gradient);
  e.add({"max_pool1d", "max_pool2d", "max_pool3d", "avg_pool1d", "avg_pool2d", "avg_pool3d",
         "adaptive_max_pool1d", "adaptive_max_pool2d", "adaptive_max_pool3d", "adaptive_avg_pool1d",
         "adaptive_avg_pool2d", "adaptive_avg_pool3d"},
        make_pool);
  return e;
}

}  // namespace octet::reference
