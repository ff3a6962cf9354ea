// The native engine: which operators it has kernels for.
#include "octet/engine/native/native_impl.h"
#include "octet/engine/registry.h"

namespace octet::native {

Engine make_engine() {
  Engine e("native", {"fbgemm", "x86"}, "octet's own kernels");
  // On codes. Where an operator is in both lists each maker looks at the types first, so that their
  // order changes nothing.
  e.add({"conv2d", "conv_transpose2d"}, make_conv);
  e.add({"conv2d", "conv_transpose2d"}, make_codes16_conv);
  e.add({"linear"}, make_linear);
  e.add({"linear"}, make_codes16_linear);
  e.add({"matmul"}, make_matmul);
  e.add({"linear_dynamic", "conv2d_dynamic", "conv_transpose2d_dynamic"}, make_dynamic);
  e.add({"linear_weight_only"}, make_weight_only);
  e.add({"linear_blocks"}, make_linear_blocks);
  e.add({"lstm"}, make_lstm);
  e.add({"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"}, make_pool);
  e.add({"add", "sub", "mul"}, make_binary);
  e.add({"add"}, make_add_floats);
  e.add({"quantize"}, make_quantize);
  e.add({"dequantize"}, make_dequantize);
  e.add({"requantize"}, make_requantize);
  e.add({"cat"}, make_cat);                                            // floats too
  e.add({"permute"}, make_permute);                                    // floats too
  e.add({"slice", "split", "pad", "tile", "interpolate"}, make_move);  // floats too
  e.add({"interpolate"}, make_resize);                                 // floats too
  e.add_for_any(make_lookup);                                          // functions of one code
  // On floats.
  e.add({"conv2d", "conv3d", "conv_transpose2d", "conv_transpose3d"}, make_float_conv);
  e.add({"linear", "matmul"}, make_float_product);
  e.add({"max_pool2d", "max_pool3d", "avg_pool2d", "avg_pool3d", "adaptive_max_pool2d",
         "adaptive_max_pool3d", "adaptive_avg_pool2d", "adaptive_avg_pool3d"},
        make_float_pool);
  e.add({"add", "sub", "mul", "div"}, make_float_binary);
  e.add({"relu", "relu6", "clamp"}, make_float_clamp);
  e.add({"layer_norm", "softmax", "mean"}, make_float_rows);  // of the last dimension
  e.add({"batch_norm", "group_norm", "instance_norm", "softmax"}, make_float_norm);
  e.add({"mean", "sum", "amax", "amin"}, make_reduce);  // codes too
  e.add({"pow"}, make_float_unary);
  e.add_for_any(make_float_unary);  // functions of one number
  return e;
}

}  // namespace octet::native
