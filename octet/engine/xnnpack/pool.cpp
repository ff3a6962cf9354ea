// max_pool2d on codes.
#include "octet/engine/geometry_impl.h"
#include "octet/engine/xnnpack/xnnpack_impl.h"

namespace octet::xnnpack {

std::unique_ptr<Kernel> make_max_pool(const OpSpec& spec) {
  const TensorType &x = spec.inputs[0], &y = spec.outputs[0];
  const bool is_signed = x.dtype == DType::qint8;
  if ((!is_signed && x.dtype != DType::quint8) || x.dtype != y.dtype || x.dim() != 4 ||
      x.quantizer->is_per_channel() || *x.quantizer != *y.quantizer || !x.dims[1].known())
    return nullptr;
  const engine_detail::Window v = engine_detail::pool_window(spec);
  // XNNPACK moves taps outside the image to the nearest pixel. That is one of the window's only if
  // the window is not dilated and reaches into the image.
  if (v.dh != 1 || v.dw != 1 || v.ph >= v.kh || v.ph_end >= v.kh || v.pw >= v.kw ||
      v.pw_end >= v.kw || spec.attrs.get_bool("ceil_mode"))
    return nullptr;
  auto make = [&]<typename T>(auto create_operator, T least, T most) {
    auto u32 = [](int64_t n) { return static_cast<uint32_t>(n); };
    const auto channels = static_cast<size_t>(x.dims[1].size());
    return create(create_operator, u32(v.ph), u32(v.pw_end), u32(v.ph_end), u32(v.pw), u32(v.kh),
                  u32(v.kw), u32(v.sh), u32(v.sw), u32(1), u32(1), channels, channels, channels,
                  least, most, 0);
  };
  Operator op = is_signed ? make(xnn_create_max_pooling2d_nhwc_s8, int8_t{-128}, int8_t{127})
                          : make(xnn_create_max_pooling2d_nhwc_u8, uint8_t{0}, uint8_t{255});
  if (!op) return nullptr;  // a window of one pixel, say
  return std::make_unique<XnnKernel>(
      XnnKernel::Traits{.name = "max_pool2d",
                        .input = Layout::channels_last,
                        .output = Layout::channels_last,
                        .description = {.arithmetic = KernelDescription::Arithmetic::moves}},
      std::move(op),
      [is_signed](const std::vector<Shape>& in, const std::vector<Shape>&) -> XnnKernel::Setup {
        const auto n = static_cast<size_t>(in[0][0]), h = static_cast<size_t>(in[0][2]),
                   w = static_cast<size_t>(in[0][3]);
        return [=](xnn_operator_t o, const std::vector<const void*>& from, void* to) {
          return is_signed ? xnn_setup_max_pooling2d_nhwc_s8(o, n, h, w,
                                                             static_cast<const int8_t*>(from[0]),
                                                             static_cast<int8_t*>(to), nullptr)
                           : xnn_setup_max_pooling2d_nhwc_u8(o, n, h, w,
                                                             static_cast<const uint8_t*>(from[0]),
                                                             static_cast<uint8_t*>(to), nullptr);
        };
      });
}

}  // namespace octet::xnnpack
