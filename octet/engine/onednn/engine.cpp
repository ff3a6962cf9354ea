// oneDNN: which operators it has kernels for, on floats and, where the results are octet's to the
// bit, on codes.
#include "octet/engine/engines_impl.h"
#include "octet/engine/onednn/onednn_impl.h"

namespace octet::onednn {
namespace {

void add_training(Engine& e) {
  e.add({"conv_backward_data", "conv_backward_weight", "linear_backward_data",
         "linear_backward_weight"},
        make_training);
}

}  // namespace

Engine make_engine() {
  Engine e("onednn", {}, "oneDNN, codes too; last bits of floats differ by machine");
  e.add({"conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d"}, make_conv);
  e.add({"conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d"},
        make_int8_conv);
  e.add({"linear"}, make_linear);
  e.add({"linear", "linear_dynamic"}, make_int8_linear);
  e.add({"matmul"}, make_matmul);
  e.add({"matmul"}, make_int8_matmul);
  e.add({"max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d", "adaptive_max_pool2d",
         "adaptive_max_pool3d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"},
        make_pool);
  e.add({"add", "mul"}, make_binary);
  e.add({"relu", "relu6", "clamp"}, make_clip);
  add_training(e);
  return e;
}

Engine make_training_engine() {
  Engine e("onednn");
  add_training(e);
  return e;
}

}  // namespace octet::onednn
