// Convolutions, plain and transposed. Their kernels are the engines'; an engine answers every float32 call, so no eval
// stands here, but for the 1-d ones, which are 2-d ones on images of height 1.
//
// Quantized: acc = sum (q_x - z_x)(q_w - z_w) in int32, bias in int32, then requantized (docs/numerics.md).
#include "octet/ops/conv_impl.h"

namespace octet::ops {

// Cross-correlation over (N, C, H, W); weight (O, C/groups, KH, KW); padding is [top, left, bottom, right].
OCTET_OP(conv2d,
         "conv2d(x, weight, bias?, *, stride=[1, 1], padding=[0, 0, 0, 0], dilation=[1, 1], groups=1, "
         "activation=\"none\") -> y",
         QRule::own, Doc{"2-d convolution with fused activation (none, relu, relu6); padding is [top, left, bottom, right]"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 2}); }))

// The same over (N, C, L).
OCTET_OP(conv1d,
         "conv1d(x, weight, bias?, *, stride=[1], padding=[0, 0], dilation=[1], groups=1, activation=\"none\") -> y",
         QRule::own, Doc{"1-d convolution with fused activation; padding is [left, right]"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 1}); }),
         eval([](const Call& c) { return as_conv2d(c, "conv2d"); }),
         quantized([](const Call& c) { return as_conv2d(c, "conv2d"); }))

// The same over (N, C, D, H, W).
OCTET_OP(conv3d,
         "conv3d(x, weight, bias?, *, stride=[1, 1, 1], padding=[0, 0, 0, 0, 0, 0], dilation=[1, 1, 1], groups=1, "
         "activation=\"none\") -> y",
         QRule::own, Doc{"3-d convolution with fused activation; padding is [front, top, left, back, bottom, right]"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 3}); }))

// Every element of x adds weight * x to the window of y at element * stride: the gradient of conv2d by its input.
// weight (C, O/groups, KH, KW), as PyTorch has it; y's size is (in-1)*stride - padding + dilation*(k-1) + output_padding + 1.
OCTET_OP(conv_transpose2d,
         "conv_transpose2d(x, weight, bias?, *, stride=[1, 1], padding=[0, 0, 0, 0], output_padding=[0, 0], "
         "dilation=[1, 1], groups=1, activation=\"none\") -> y",
         QRule::own, Doc{"2-d transposed convolution; weight is (in, out/groups, height, width), per channel along axis 1"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 2, .transposed = true}); }))

OCTET_OP(conv_transpose1d,
         "conv_transpose1d(x, weight, bias?, *, stride=[1], padding=[0, 0], output_padding=[0], dilation=[1], groups=1, "
         "activation=\"none\") -> y",
         QRule::own, Doc{"1-d transposed convolution; weight is (in, out/groups, length), per channel along axis 1"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 1, .transposed = true}); }),
         eval([](const Call& c) { return as_conv2d(c, "conv_transpose2d"); }),
         quantized([](const Call& c) { return as_conv2d(c, "conv_transpose2d"); }))

OCTET_OP(conv_transpose3d,
         "conv_transpose3d(x, weight, bias?, *, stride=[1, 1, 1], padding=[0, 0, 0, 0, 0, 0], output_padding=[0, 0, 0], "
         "dilation=[1, 1, 1], groups=1, activation=\"none\") -> y",
         QRule::own, Doc{"3-d transposed convolution; weight is (in, out/groups, depth, height, width), per channel along axis 1"},
         infer([](const Types& t) { return infer_conv(t, {.spatial = 3, .transposed = true}); }))

}  // namespace octet::ops
