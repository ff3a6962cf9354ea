#include "sparse_conv_tensor.h"

#include <octet/ops/functional.h>
#include <octet/ops/op.h>

#include <algorithm>

namespace sparse {

using octet::DType;
using octet::ErrorCode;
using octet::Shape;

SparseConvTensor from_dense(const Tensor& image) {
  if (image.dim() != 4 || image.dtype() != DType::float32)
    octet::fail(ErrorCode::invalid_argument,
                "from_dense: got " + to_string(image.type()) +
                    "; expected float32 (batch, channels, height, width)");
  const int64_t batch = image.size(0), channels = image.size(1), height = image.size(2),
                width = image.size(3);
  const Tensor nhwc = image.detach().permute({0, 2, 3, 1}).contiguous();
  const float* p = nhwc.data<float>();
  std::vector<float> features;
  std::vector<int32_t> indices;
  for (int64_t at = 0; at < batch * height * width; ++at, p += channels) {
    if (std::all_of(p, p + channels, [](float v) { return v == 0; })) continue;
    features.insert(features.end(), p, p + channels);
    for (int64_t i : {at / (height * width), at / width % height, at % width})
      indices.push_back(static_cast<int32_t>(i));
  }
  const auto rows = static_cast<int64_t>(indices.size() / 3);
  return {Tensor::from(features, {rows, channels}), Tensor::from(indices, {rows, 3}),
          Tensor::from<int64_t>({height, width}), Tensor::from<int64_t>({batch})};
}

Extent extent(const SparseConvTensor& x) {
  auto expect = [](const Tensor& t, const char* name, bool fits, const char* expected) {
    if (!fits)
      octet::fail(ErrorCode::invalid_argument, std::string("SparseConvTensor: ") + name + " is " +
                                                   to_string(t.type()) + "; expected " + expected);
  };
  expect(x.features, "features", x.features.dim() == 2, "(rows, channels)");
  expect(x.indices, "indices",
         x.indices.dtype() == DType::int32 && x.indices.shape() == Shape{x.features.size(0), 3},
         "int32 (rows, 3) with as many rows as the features");
  expect(x.spatial_shape, "spatial_shape",
         x.spatial_shape.dtype() == DType::int64 && x.spatial_shape.shape() == Shape{2},
         "int64 (2)");
  expect(x.batch_size, "batch_size",
         x.batch_size.dtype() == DType::int64 && x.batch_size.numel() == 1, "int64 (1)");
  const std::vector<int64_t> size = x.spatial_shape.to_vector<int64_t>();
  return {static_cast<int64_t>(x.batch_size.item()), size[0], size[1]};
}

std::vector<int64_t> site_grid(const SparseConvTensor& x) {
  const Extent e = extent(x);
  std::vector<int64_t> grid(static_cast<size_t>(e.batch * e.height * e.width), -1);
  const std::vector<int32_t> at = x.indices.to_vector<int32_t>();
  for (size_t row = 0; row < at.size() / 3; ++row) {
    const int64_t n = at[3 * row], iy = at[3 * row + 1], ix = at[3 * row + 2];
    auto invalid = [&](const std::string& what) {
      octet::fail(ErrorCode::invalid_argument, "SparseConvTensor: the site (" + std::to_string(n) +
                                                   ", " + std::to_string(iy) + ", " +
                                                   std::to_string(ix) + ") is " + what);
    };
    if (n < 0 || n >= e.batch || iy < 0 || iy >= e.height || ix < 0 || ix >= e.width)
      invalid("outside of " + std::to_string(e.batch) + " images of " + std::to_string(e.height) +
              " x " + std::to_string(e.width));
    int64_t& place = grid[static_cast<size_t>((n * e.height + iy) * e.width + ix)];
    if (place >= 0) invalid("there twice");
    place = static_cast<int64_t>(row);
  }
  return grid;
}

Tensor dense(const SparseConvTensor& x) {
  const Extent e = extent(x);
  const std::vector<int64_t> grid = site_grid(x);
  // A row of zeros behind the others: -1 counts from the end.
  const Tensor rows = octet::functional::pad(x.features, {0, 0, 0, 1});
  const Tensor image = octet::ops::call(
      "index_select", {rows, Tensor::from(grid, {static_cast<int64_t>(grid.size())})},
      {{"dim", int64_t{0}}});
  return image.reshape({e.batch, e.height, e.width, x.features.size(1)}).permute({0, 3, 1, 2});
}

}  // namespace sparse
