// How a tensor prints: PyTorch's form, `tensor([[1., 2.]], size=..., dtype=..., scale=...)`.
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/tensor/tensor.h"

namespace octet {
namespace {

constexpr int64_t kThreshold = 1000;  // more elements than this are abridged
constexpr int64_t kEdge = 3;          // to this many at each end of a dimension

std::string number(const Tensor& t, const std::vector<int64_t>& index) {
  double v = t.at(index);
  if (t.dtype() == DType::bool_) return v != 0 ? "true" : "false";
  if (!is_floating(t.dtype()) && !t.is_quantized()) return fmt::format("{:.0f}", v);
  std::string text = fmt::format("{:.4f}", v);
  if (std::abs(v) < 1e6 && v == std::trunc(v))
    text = fmt::format("{:.0f}.", v);
  else if (std::abs(v) >= 1e5 || (v != 0 && std::abs(v) < 1e-3))
    text = fmt::format("{:.4e}", v);
  return text;
}

void values(const Tensor& t, std::vector<int64_t>& index, bool abridge, std::string& out) {
  auto d = static_cast<int64_t>(index.size());
  if (d == t.dim()) {
    out += number(t, index);
    return;
  }
  bool innermost = d + 1 == t.dim();
  out += "[";
  int64_t n = t.shape()[d];
  for (int64_t i = 0; i < n; ++i) {
    if (i) out += innermost ? ", " : ",\n" + std::string(8 + d, ' ');
    if (abridge && n > 2 * kEdge && i == kEdge) {
      out += "...";
      i = n - kEdge - 1;
      continue;
    }
    index.push_back(i);
    values(t, index, abridge, out);
    index.pop_back();
  }
  out += "]";
}

}  // namespace

std::string to_string(const Tensor& t) {
  if (!t.defined()) return "tensor(undefined)";
  std::string out = "tensor(";
  std::vector<int64_t> index;
  if (t.numel() == 0)
    out += "[]";
  else
    values(t, index, t.numel() > kThreshold, out);
  if (t.dtype() == DType::float32)
    return out + (t.numel() ? ")" : fmt::format(", size={})", to_string(t.shape())));
  out += fmt::format(", size={}, dtype={}", to_string(t.shape()), to_string(t.dtype()));
  if (t.quantizer())
    out += fmt::format(", {}, {}", to_string(t.qscheme()), to_string(*t.quantizer()));
  return out + ")";
}

}  // namespace octet
