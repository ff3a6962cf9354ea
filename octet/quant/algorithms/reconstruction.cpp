#include <algorithm>
#include <cmath>
#include <numeric>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/base/random.h"
#include "octet/quant/algorithms/reconstruction_impl.h"

namespace octet::quant {

namespace {

constexpr int64_t kBlock = 64;  // of columns, in factorizations
constexpr int64_t kRowsAtOnce = 4096;

// A convolution of up to three dimensions, as one of three.
struct RowWindow {
  int64_t in[3] = {1, 1, 1}, out[3] = {1, 1, 1}, kernel[3] = {1, 1, 1}, stride[3] = {1, 1, 1},
          pad[3] = {0, 0, 0}, dilation[3] = {1, 1, 1};

  RowWindow(const PreparedLayer& layer, const Shape& x, const Shape& weight) {
    const size_t spatial = x.size() - 2, first = 3 - spatial;
    const auto &s = layer.attrs.get_ints("stride"), &p = layer.attrs.get_ints("padding"),
               &d = layer.attrs.get_ints("dilation");
    for (size_t i = 0; i < spatial; ++i) {
      in[first + i] = x[i + 2];
      kernel[first + i] = weight[i + 2];
      stride[first + i] = s[i];
      pad[first + i] = p[i];
      dilation[first + i] = d[i];
      out[first + i] =
          (x[i + 2] + p[i] + p[i + spatial] - d[i] * (weight[i + 2] - 1) - 1) / s[i] + 1;
    }
  }
  int64_t positions() const { return out[0] * out[1] * out[2]; }
};

int64_t row_count(const PreparedLayer& layer, const Tensor& x, const Shape& weight) {
  if (layer.op == "linear") return x.numel() / weight[1];
  return x.size(0) * RowWindow(layer, x.shape(), weight).positions();
}

// a (m, k) times b (k, n), all row-major.
Tensor product(const Tensor& a, const Tensor& b) { return ops::call("matmul", {a, b}); }

}  // namespace

bool has_rows(const PreparedLayer& layer) { return !layer.transposed; }

std::vector<std::vector<int64_t>> choose_rows(const LayerStep& step, int64_t count) {
  std::vector<int64_t> of_batch;
  for (size_t b = 0; b < step.batches; ++b)
    of_batch.push_back(row_count(step.layer, step.quantized_input(b), step.weight.shape()));
  const int64_t all = std::accumulate(of_batch.begin(), of_batch.end(), int64_t{0});
  std::vector<std::vector<int64_t>> rows;
  Random random(step.index + 1);
  for (int64_t n : of_batch) {
    auto& chosen = rows.emplace_back();
    const int64_t want = all <= count ? n : std::max<int64_t>(1, n * count / all);
    for (int64_t i = 0; i < want; ++i) {
      const double at = (static_cast<double>(i) + (want < n ? random.uniform() : 0)) *
                        static_cast<double>(n) / static_cast<double>(want);
      chosen.push_back(std::min(n - 1, static_cast<int64_t>(at)));
    }
  }
  return rows;
}

Tensor gather_rows(const PreparedLayer& layer, const Tensor& x, const Shape& weight, int64_t group,
                   const std::vector<int64_t>& rows) {
  const Tensor dense = x.contiguous();
  const float* from = dense.data<float>();
  const int64_t k = numel({weight.begin() + 1, weight.end()});
  Tensor result = Tensor::empty({std::ssize(rows), k});
  float* to = result.data<float>();
  if (layer.op == "linear") {
    for (size_t r = 0; r < rows.size(); ++r)
      std::copy_n(from + rows[r] * k, k, to + static_cast<int64_t>(r) * k);
    return result;
  }
  const RowWindow w(layer, x.shape(), weight);
  const int64_t channels = weight[1], positions = w.positions(),
                plane = w.in[0] * w.in[1] * w.in[2];
  parallel_ranges(std::ssize(rows), 64, [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t image = rows[static_cast<size_t>(r)] / positions;
      int64_t at = rows[static_cast<size_t>(r)] % positions;
      int64_t start[3];
      for (int d = 2; d >= 0; --d) {
        start[d] = at % w.out[d] * w.stride[d] - w.pad[d];
        at /= w.out[d];
      }
      float* row = to + r * k;
      for (int64_t c = 0; c < channels; ++c) {
        const float* p = from + (image * x.size(1) + group * channels + c) * plane;
        for (int64_t a = 0; a < w.kernel[0]; ++a)
          for (int64_t b = 0; b < w.kernel[1]; ++b)
            for (int64_t e = 0; e < w.kernel[2]; ++e) {
              const int64_t i = start[0] + a * w.dilation[0], j = start[1] + b * w.dilation[1],
                            l = start[2] + e * w.dilation[2];
              const bool inside =
                  i >= 0 && i < w.in[0] && j >= 0 && j < w.in[1] && l >= 0 && l < w.in[2];
              *row++ = inside ? p[(i * w.in[1] + j) * w.in[2] + l] : 0.F;
            }
      }
    }
  });
  return result;
}

// -- factorization --------------------------------------------------------------------------------

Tensor cholesky(const Tensor& h) {
  const int64_t n = h.size(0);
  Tensor l = h.clone();
  float* a = l.data<float>();
  for (int64_t k0 = 0; k0 < n; k0 += kBlock) {
    const int64_t k1 = std::min(n, k0 + kBlock);
    // What the columns before have not taken off this block of columns yet.
    if (k0 > 0) {
      const Tensor panel = l.slice(0, k0, n).slice(1, 0, k0).contiguous();
      const Tensor top = panel.slice(0, 0, k1 - k0).transpose(0, 1).contiguous();
      const Tensor part = product(panel, top);
      const float* p = part.data<float>();
      for (int64_t i = k0; i < n; ++i)
        for (int64_t j = k0; j < k1; ++j) a[i * n + j] -= *p++;
    }
    for (int64_t j = k0; j < k1; ++j) {
      double pivot = a[j * n + j];
      for (int64_t t = k0; t < j; ++t)
        pivot -= static_cast<double>(a[j * n + t]) * static_cast<double>(a[j * n + t]);
      OCTET_CHECK(pivot > 0, internal, "cholesky: the matrix is not positive definite");
      const double root = std::sqrt(pivot);
      a[j * n + j] = static_cast<float>(root);
      parallel_ranges(n - j - 1, 512, [&](int64_t begin, int64_t end) {
        for (int64_t i = j + 1 + begin; i < j + 1 + end; ++i) {
          double sum = a[i * n + j];
          for (int64_t t = k0; t < j; ++t)
            sum -= static_cast<double>(a[i * n + t]) * static_cast<double>(a[j * n + t]);
          a[i * n + j] = static_cast<float>(sum / root);
        }
      });
    }
  }
  for (int64_t i = 0; i < n; ++i) std::fill(a + i * n + i + 1, a + (i + 1) * n, 0.F);
  return l;
}

Tensor solve_cholesky(const Tensor& l, const Tensor& b) {
  const int64_t n = l.size(0), rows = b.size(0);
  const float* t = l.data<float>();
  Tensor x = b.clone();
  float* p = x.data<float>();
  const auto take_off = [&](int64_t k0, int64_t k1, const Tensor& known, const Tensor& factor) {
    const Tensor part = product(known.contiguous(), factor.contiguous());
    const float* q = part.data<float>();
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t j = k0; j < k1; ++j) p[r * n + j] -= *q++;
  };
  // z l^T = b, from the first column on.
  for (int64_t k0 = 0; k0 < n; k0 += kBlock) {
    const int64_t k1 = std::min(n, k0 + kBlock);
    if (k0 > 0)
      take_off(k0, k1, x.slice(1, 0, k0), l.slice(0, k0, k1).slice(1, 0, k0).transpose(0, 1));
    parallel_ranges(rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        for (int64_t j = k0; j < k1; ++j) {
          double sum = p[r * n + j];
          for (int64_t i = k0; i < j; ++i)
            sum -= static_cast<double>(p[r * n + i]) * static_cast<double>(t[j * n + i]);
          p[r * n + j] = static_cast<float>(sum / static_cast<double>(t[j * n + j]));
        }
    });
  }
  // x l = z, from the last on.
  for (int64_t k1 = n; k1 > 0; k1 = (k1 - 1) / kBlock * kBlock) {
    const int64_t k0 = (k1 - 1) / kBlock * kBlock;
    if (k1 < n) take_off(k0, k1, x.slice(1, k1, n), l.slice(0, k1, n).slice(1, k0, k1));
    parallel_ranges(rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r)
        for (int64_t j = k1 - 1; j >= k0; --j) {
          double sum = p[r * n + j];
          for (int64_t i = j + 1; i < k1; ++i)
            sum -= static_cast<double>(p[r * n + i]) * static_cast<double>(t[i * n + j]);
          p[r * n + j] = static_cast<float>(sum / static_cast<double>(t[j * n + j]));
        }
    });
  }
  return x;
}

// -- the problem ----------------------------------------------------------------------------------

namespace {

// Sums over rows, in double.
struct RowSums {
  std::vector<double> xx, yx, x, y;
  double count = 0;

  RowSums(int64_t outputs, int64_t k)
      : xx(static_cast<size_t>(k * k)),
        yx(static_cast<size_t>(outputs * k)),
        x(static_cast<size_t>(k)),
        y(static_cast<size_t>(outputs)) {}

  static void add(std::vector<double>& sums, const Tensor& part) {
    const float* p = part.data<float>();
    for (double& s : sums) s += static_cast<double>(*p++);
  }

  // The same without operators, for few columns: many groups at once.
  void add_plainly(const Tensor& of_x, const Tensor& of_float, const Tensor& w) {
    const size_t k = x.size();
    const float *p = of_x.data<float>(), *f = of_float.data<float>(), *weights = w.data<float>();
    for (int64_t r = 0; r < of_x.size(0); ++r, p += k, f += k) {
      for (size_t i = 0; i < k; ++i) {
        x[i] += static_cast<double>(p[i]);
        double* of_pairs = xx.data() + i * k;
        for (size_t j = i; j < k; ++j)
          of_pairs[j] += static_cast<double>(p[i]) * static_cast<double>(p[j]);
      }
      for (size_t o = 0; o < y.size(); ++o) {
        const float* row = weights + o * k;
        double result = 0;
        for (size_t j = 0; j < k; ++j)
          result += static_cast<double>(f[j]) * static_cast<double>(row[j]);
        y[o] += result;
        for (size_t j = 0; j < k; ++j) yx[o * k + j] += result * static_cast<double>(p[j]);
      }
    }
    for (size_t i = 0; i < k; ++i)
      for (size_t j = 0; j < i; ++j) xx[i * k + j] = xx[j * k + i];
    count += static_cast<double>(of_x.size(0));
  }

  void add(const Tensor& of_x, const Tensor& of_y) {
    add(xx, ops::call_all("linear_backward_weight", {of_x, of_x}, {{"bias", false}})[0]);
    const auto cross = ops::call_all("linear_backward_weight", {of_x, of_y}, {{"bias", true}});
    add(yx, cross[0]);
    add(y, cross[1]);
    const float* p = of_x.data<float>();
    for (int64_t r = 0; r < of_x.size(0); ++r)
      for (double& s : x) s += static_cast<double>(*p++);
    count += static_cast<double>(of_x.size(0));
  }
};

LayerProblem solve(const RowSums& sums, const Tensor& w, double damping) {
  const int64_t outputs = w.size(0), k = w.size(1);
  // Centred, damped towards the float weight.
  LayerProblem problem{outputs, k, Tensor::empty({outputs, k}), Tensor::empty({k, k})};
  const double n = std::max(sums.count, 1.0);
  double trace = 0;
  std::vector<double> h(sums.xx.size());
  const auto size = static_cast<size_t>(k);
  for (size_t i = 0; i < size; ++i) {
    for (size_t j = 0; j < size; ++j)
      h[i * size + j] = sums.xx[i * size + j] / n - sums.x[i] / n * (sums.x[j] / n);
    trace += std::max(0.0, h[i * size + i]);
  }
  const double extra = trace > 0 ? damping * trace / static_cast<double>(k) : 1;
  for (size_t i = 0; i < size; ++i) h[i * size + i] = std::max(0.0, h[i * size + i]) + extra;
  std::copy(h.begin(), h.end(), problem.h.data<float>());
  // w + (E[y x'] - w h + extra w) h^-1, which is small where nothing was lost.
  Tensor difference = product(w, problem.h);
  float* d = difference.data<float>();
  const float* plain = w.data<float>();
  for (size_t o = 0; o < static_cast<size_t>(outputs); ++o)
    for (size_t j = 0; j < size; ++j) {
      const double yx = sums.yx[o * size + j] / n - sums.y[o] / n * (sums.x[j] / n);
      const size_t at = o * size + j;
      d[at] = static_cast<float>(yx + extra * static_cast<double>(plain[at]) -
                                 static_cast<double>(d[at]));
    }
  problem.w = ops::call("add", {w, solve_cholesky(cholesky(problem.h), difference)});
  return problem;
}

}  // namespace

std::vector<LayerProblem> make_problems(const LayerStep& step,
                                        const std::vector<std::vector<int64_t>>& rows,
                                        double damping) {
  const PreparedLayer& layer = step.layer;
  const int64_t outputs = layer.channels / layer.groups, k = step.weight.numel() / layer.channels;
  const Tensor weight = step.weight.contiguous().reshape({layer.channels, k});
  std::vector<Tensor> weights;
  for (int64_t i = 0; i < layer.groups; ++i)
    weights.push_back(weight.slice(0, i * outputs, (i + 1) * outputs).contiguous());
  const bool plainly = layer.groups > 1 && k <= 64 && outputs <= 8;
  std::vector<RowSums> sums(static_cast<size_t>(layer.groups), RowSums(outputs, k));
  for (size_t b = 0; b < step.batches; ++b) {
    const Tensor x = step.quantized_input(b).contiguous(), xf = step.float_input(b).contiguous();
    for (size_t begin = 0; begin < rows[b].size(); begin += kRowsAtOnce) {
      const auto first = rows[b].begin() + static_cast<std::ptrdiff_t>(begin);
      const std::vector<int64_t> part(
          first, first + std::min<std::ptrdiff_t>(kRowsAtOnce, rows[b].end() - first));
      const auto add_group = [&](int64_t group) {
        const auto i = static_cast<size_t>(group);
        const Tensor of_x = gather_rows(layer, x, step.weight.shape(), group, part);
        const Tensor of_float = gather_rows(layer, xf, step.weight.shape(), group, part);
        if (plainly)
          sums[i].add_plainly(of_x, of_float, weights[i]);
        else
          sums[i].add(of_x, ops::call("linear", {of_float, weights[i], Tensor()}));
      };
      // Threads must not call oneDNN at once: its own wait for each other.
      if (plainly)
        parallel_for(layer.groups, add_group);
      else
        for (int64_t group = 0; group < layer.groups; ++group) add_group(group);
    }
  }
  std::vector<LayerProblem> problems;
  for (size_t i = 0; i < sums.size(); ++i) problems.push_back(solve(sums[i], weights[i], damping));
  return problems;
}

}  // namespace octet::quant
