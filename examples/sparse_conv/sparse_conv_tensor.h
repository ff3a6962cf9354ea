#pragma once
// A value type of a user's own: an image of which only the active sites are stored. octet knows
// nothing of it but what nn::Value says below: of which tensors it is made.

#include <octet/nn/module.h>

#include <string>
#include <vector>

namespace sparse {

using octet::Tensor;

struct SparseConvTensor {
  Tensor features;       // (rows, channels) float32, quint8 or qint8: one row for each active site
  Tensor indices;        // (rows, 3) int32: image in the batch, y, x; no site twice
  Tensor spatial_shape;  // (2) int64: height, width
  Tensor batch_size;     // (1) int64

  SparseConvTensor replace_feature(Tensor new_features) const {
    return {std::move(new_features), indices, spatial_shape, batch_size};
  }
};

// The sites of a float image (batch, channels, height, width) at which any channel is not 0, in
// row-major order.
SparseConvTensor from_dense(const Tensor& image);

// (batch, channels, height, width), 0 where no site is active; quantized if the features are.
// Differentiable. Error for indices outside of the image and for a site that is there twice.
Tensor dense(const SparseConvTensor& x);

// The shape as numbers: batch, height, width. Error unless the tensors have the dtypes and shapes
// above.
struct Extent {
  int64_t batch, height, width;
};
Extent extent(const SparseConvTensor& x);

// For each position of the batch's images, in row-major order, the row of its site, or -1. Error as
// dense().
std::vector<int64_t> site_grid(const SparseConvTensor& x);

}  // namespace sparse

template <>
struct octet::nn::Value<sparse::SparseConvTensor> {
  static std::vector<Tensor> tensors(const sparse::SparseConvTensor& x) {
    return {x.features, x.indices, x.spatial_shape, x.batch_size};
  }
  static sparse::SparseConvTensor from(const std::vector<Tensor>& t) {
    return {t.at(0), t.at(1), t.at(2), t.at(3)};
  }
  static std::vector<std::string> names() {
    return {"features", "indices", "spatial_shape", "batch_size"};
  }
};
