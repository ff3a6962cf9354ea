// Sound: windows, and Fourier transforms as products with matrices of sines and cosines. A
// transform of frames (STFT) is a convolution of the signal with them.
#include <algorithm>
#include <cmath>
#include <numbers>

#include "octet/io/onnx/importer_impl.h"

namespace octet::io::onnx_impl {
namespace {

constexpr int64_t kLongest = 1 << 14;  // of a transform: its matrix has the square of it

// a - b cos(2 pi i / d) + c cos(4 pi i / d), d the size, or one less if not periodic.
void import_window(Importer& im, const NodeView& n, double a, double b, double c) {
  const auto type = static_cast<int32_t>(n.get_int("output_datatype", 1));
  const DType dtype = compute_type(dtype_of(type, n.label()));
  const bool periodic = n.get_int("periodic", 1) != 0;
  ValPtr size = im.in(n, 0);
  if (size->constant.defined()) {
    const std::vector<int64_t> sizes = im.known_ints(n, 0, "the size");
    if (sizes.size() != 1 || sizes[0] < 0 || sizes[0] > int64_t{1} << 24)
      n.fail(ErrorCode::corrupt, "a window of {} elements", fmt::join(sizes, ", "));
    Tensor values = Tensor::zeros({sizes[0]}, DType::float64);
    const double d = static_cast<double>(periodic ? sizes[0] : sizes[0] - 1);
    for (int64_t i = 0; i < sizes[0]; ++i) {
      const double angle = 2 * std::numbers::pi * static_cast<double>(i) / d;
      values.data<double>()[i] = a - b * std::cos(angle) + c * std::cos(2 * angle);
    }
    return im.out(n, 0, constant_val(n.output(0), values.to(dtype)));
  }
  const auto times = [&](const ValPtr& x, double factor) {
    return im.call(n, "mul", {x, im.scalar(n, factor)});
  };
  ValPtr places = im.call(n, "arange", {im.cast(n, size, DType::int64)}, {{"end", FromOperand{0}}});
  ValPtr d = im.cast(n, size, DType::float32);
  if (!periodic) d = im.call(n, "sub", {d, im.scalar(n, 1)});
  ValPtr angle = im.call(n, "div", {im.cast(n, places, DType::float32), d});
  angle = times(angle, 2 * std::numbers::pi);
  ValPtr y = im.call(n, "sub", {im.scalar(n, a), times(im.call(n, "cos", {angle}), b)});
  if (c != 0) y = im.call(n, "add", {y, times(im.call(n, "cos", {times(angle, 2)}), c)});
  im.out(n, 0, im.cast(n, y, dtype));
}

// Frequencies of a transform of `length` elements.
int64_t count_of(int64_t length, bool onesided) { return onesided ? length / 2 + 1 : length; }

int64_t length_of(const NodeView& n, const std::vector<int64_t>& given) {
  if (given.size() != 1 || given[0] < 1 || given[0] > kLongest)
    n.fail(ErrorCode::unsupported, "a transform of length {}; octet has those of 1 to {}",
           fmt::join(given, ", "), kLongest);
  return given[0];
}

struct Waves {
  Tensor cos, sin;  // (rows, count) in double
};

// cos and sin(2 pi row k / length); rows from `length` on are zeros.
Waves waves(int64_t rows, int64_t length, int64_t count) {
  Waves w{Tensor::zeros({rows, count}, DType::float64),
          Tensor::zeros({rows, count}, DType::float64)};
  for (int64_t i = 0; i < std::min(rows, length); ++i)
    for (int64_t k = 0; k < count; ++k) {
      const double angle =
          2 * std::numbers::pi * static_cast<double>(i * k % length) / static_cast<double>(length);
      w.cos.data<double>()[i * count + k] = std::cos(angle);
      w.sin.data<double>()[i * count + k] = std::sin(angle);
    }
  return w;
}

Tensor times(const Tensor& x, double factor) {
  Tensor y = x.clone();
  for (int64_t i = 0; i < y.numel(); ++i) y.data<double>()[i] *= factor;
  return y.to(DType::float32);
}

// x is (..., n, ..., 1) or, with imaginary parts, (..., n, ..., 2); n is at `axis`.
void import_dft(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  const int64_t rank = x->rank();
  if (rank < 2) n.fail(ErrorCode::corrupt, "expected two or more dimensions");
  int64_t axis = n.get_int("axis", 1);
  if (n.opset() >= 20) {
    const std::vector<int64_t> given = im.known_ints(n, 2, "axis");
    axis = given.empty() ? -2 : given.at(0);
  }
  axis = axis_of(n, axis, rank);
  if (axis == rank - 1) n.fail(ErrorCode::corrupt, "the axis {} is that of the parts", axis);
  const bool inverse = n.get_int("inverse", 0) != 0, onesided = n.get_int("onesided", 0) != 0;
  if (inverse && onesided) n.unsupported("an inverse of one side");
  const int64_t rows = known_dim(n, *x, axis, "a Fourier transform"),
                parts = known_dim(n, *x, rank - 1, "a Fourier transform");
  if (parts != 1 && parts != 2) n.fail(ErrorCode::corrupt, "{} parts; expected 1 or 2", parts);
  const int64_t length =
      n.has_input(1) ? length_of(n, im.known_ints(n, 1, "dft_length")) : length_of(n, {rows});
  const Waves w = waves(rows, length, count_of(length, onesided));
  const double scale = inverse ? 1 / static_cast<double>(length) : 1,
               sign = inverse ? -scale : scale;  // of i sin: forward it is e to -i
  const ValPtr cos = constant_val(n.output(0) + ".cos", times(w.cos, scale)),
               sin = constant_val(n.output(0) + ".sin", times(w.sin, sign)),
               minus_sin = constant_val(n.output(0) + ".minus_sin", times(w.sin, -sign));
  std::vector<int64_t> order;  // the axis last; it is its own inverse
  for (int64_t d = 0; d < rank - 1; ++d) order.push_back(d);
  std::swap(order[static_cast<size_t>(axis)], order.back());
  const auto part = [&](int64_t i) {
    ValPtr v = im.call(n, "slice", {x}, {{"dim", rank - 1}, {"start", i}, {"end", i + 1}});
    v = im.call(n, "squeeze", {v}, {{"dim", rank - 1}});
    return axis == rank - 2 ? v : im.call(n, "permute", {v}, {{"dims", order}});
  };
  const ValPtr real = part(0);
  ValPtr re = im.call(n, "matmul", {real, cos}), of_i = im.call(n, "matmul", {real, minus_sin});
  if (parts == 2) {
    const ValPtr imaginary = part(1);
    re = im.call(n, "add", {re, im.call(n, "matmul", {imaginary, sin})});
    of_i = im.call(n, "add", {of_i, im.call(n, "matmul", {imaginary, cos})});
  }
  std::vector<ValPtr> both;
  for (ValPtr v : {re, of_i}) {
    if (axis != rank - 2) v = im.call(n, "permute", {v}, {{"dims", order}});
    both.push_back(im.call(n, "unsqueeze", {v}, {{"dim", rank - 1}}));
  }
  im.out(n, 0, im.call(n, "cat", both, {{"dim", rank - 1}}));
}

// (batch, samples, 1) to (batch, frames, frequencies, 2).
void import_stft(Importer& im, const NodeView& n) {
  ValPtr x = im.in(n, 0);
  const std::vector<int64_t> step = im.known_ints(n, 1, "frame_step");
  if (step.size() != 1 || step[0] < 1) n.fail(ErrorCode::corrupt, "frame_step: expected one");
  Tensor window = im.known(n, 2, "the window");
  if (x->rank() == 3 && known_dim(n, *x, 2, "STFT") != 1) n.unsupported("a complex signal");
  if (x->rank() == 3) x = im.call(n, "squeeze", {x}, {{"dim", int64_t{2}}});
  if (x->rank() != 2) n.fail(ErrorCode::corrupt, "the signal is {}", to_string(x->type));
  int64_t length = window.defined() ? length_of(n, {window.numel()}) : 0;
  if (n.has_input(3)) length = length_of(n, im.known_ints(n, 3, "frame_length"));
  if (length == 0 || (window.defined() && window.numel() != length))
    n.fail(ErrorCode::corrupt, "frames of {} and a window of {}", length,
           window.defined() ? window.numel() : 0);
  const int64_t count = count_of(length, n.get_int("onesided", 1) != 0);
  const Waves w = waves(length, length, count);
  const std::vector<double> weights =
      window.defined() ? window.to(DType::float64).reshape({-1}).to_vector<double>()
                       : std::vector<double>(static_cast<size_t>(length), 1);
  Tensor kernel = Tensor::zeros({2 * count, 1, length});
  for (int64_t k = 0; k < count; ++k)
    for (int64_t i = 0; i < length; ++i) {
      const double weight = weights[static_cast<size_t>(i)];
      kernel.data<float>()[k * length + i] =
          static_cast<float>(weight * w.cos.data<double>()[i * count + k]);
      kernel.data<float>()[(count + k) * length + i] =
          static_cast<float>(-weight * w.sin.data<double>()[i * count + k]);
    }
  ValPtr y = im.call(n, "conv1d",
                     {im.call(n, "unsqueeze", {x}, {{"dim", int64_t{1}}}),
                      constant_val(n.output(0) + ".waves", kernel)},
                     {{"stride", step}});
  // (batch, 2 * frequencies, frames)
  std::vector<ValPtr> both;
  for (const int64_t start : {int64_t{0}, count}) {
    ValPtr v =
        im.call(n, "slice", {y}, {{"dim", int64_t{1}}, {"start", start}, {"end", start + count}});
    both.push_back(im.call(n, "unsqueeze", {v}, {{"dim", int64_t{3}}}));
  }
  y = im.call(n, "cat", both, {{"dim", int64_t{3}}});
  im.out(n, 0, im.call(n, "permute", {y}, {{"dims", std::vector<int64_t>{0, 2, 1, 3}}}));
}

}  // namespace

void add_spectra(Handlers& h) {
  h["HannWindow"] = [](Importer& im, const NodeView& n) { import_window(im, n, 0.5, 0.5, 0); };
  h["HammingWindow"] = [](Importer& im, const NodeView& n) {
    import_window(im, n, 25.0 / 46, 21.0 / 46, 0);
  };
  h["BlackmanWindow"] = [](Importer& im, const NodeView& n) {
    import_window(im, n, 0.42, 0.5, 0.08);
  };
  h["DFT"] = import_dft;
  h["STFT"] = import_stft;
}

}  // namespace octet::io::onnx_impl
