// Normalizations of floats: batch_norm with constant statistics, group_norm, instance_norm, and
// softmax along other dimensions than the last.
#include <algorithm>
#include <cmath>

#include "octet/base/check_impl.h"
#include "octet/engine/native/float_impl.h"
#include "octet/engine/native/rows_impl.h"
#include "octet/kernels/kernels.h"

namespace octet::native {
namespace {

class NormKernel : public Kernel {
 public:
  NormKernel(std::string op, bool channels_last)
      : op_(std::move(op)), channels_last_(channels_last) {}
  std::string name() const override {
    return fmt::format("{} {}", op_, to_string(kernels::table().isa));
  }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    return described(KernelDescription::Arithmetic::floats);
  }
  Layout input_layout(size_t) const override { return layout(); }
  Layout output_layout(size_t) const override { return layout(); }

 protected:
  Layout layout() const { return channels_last_ ? Layout::channels_last : Layout::row_major; }
  std::string op_;
  bool channels_last_;
};

// -- batch_norm -----------------------------------------------------------------------------------

// y = f(f(x * scale) + shift), one of each per channel.
struct ScaleAndShift {
  std::vector<float> scale, shift;
};

class BatchNormPlan final : public ElementsPlan {
 public:
  BatchNormPlan(const ScaleAndShift& parts, Broadcast broadcast, const Shape& y)
      : ElementsPlan(y), parts_(parts), broadcast_(std::move(broadcast)) {}

 private:
  void range(std::span<const void* const> inputs, void* out, int64_t i0,
             int64_t i1) const override {
    constexpr int64_t kAtOnce = 8192;  // which stay in the cache between the two
    for (int64_t i = i0; i < i1; i += kAtOnce) {
      const int64_t end = std::min(i1, i + kAtOnce);
      step(kernels::Arithmetic::mul, inputs[0], parts_.scale, out, i, end);
      step(kernels::Arithmetic::add, out, parts_.shift, out, i, end);
    }
  }
  void step(kernels::Arithmetic op, const void* x, const std::vector<float>& numbers, void* out,
            int64_t i0, int64_t i1) const {
    auto* y = static_cast<float*>(out);
    broadcast_.each(i0, i1, x, sizeof(float), numbers.data(), sizeof(float),
                    [&](int64_t i, int64_t count, const void* a, int64_t a_step, const void* b,
                        int64_t b_step) {
                      kernels::table().arithmetic(op, static_cast<const float*>(a), a_step,
                                                  static_cast<const float*>(b), b_step, y + i,
                                                  count);
                    });
  }
  const ScaleAndShift& parts_;
  Broadcast broadcast_;
};

class BatchNorm final : public NormKernel {
 public:
  BatchNorm(const ScaleAndShift& parts, bool channels_last)
      : NormKernel("batch_norm", channels_last), parts_(parts) {}
  std::unique_ptr<Kernel> in_channels_last() const override {
    return std::make_unique<BatchNorm>(parts_, true);
  }
  bool in_place() const override { return true; }
  bool packs(size_t i) const override { return i > 0; }
  size_t packed_bytes() const override { return 2 * sizeof(float) * parts_.scale.size(); }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    Shape channels(in[0].size() - 1, 1);
    channels[0] = in[0][1];
    return std::make_unique<BatchNormPlan>(
        parts_, Broadcast(in[0], channels, out[0], channels_last_ && in[0].size() == 4), out[0]);
  }

 private:
  ScaleAndShift parts_;
};

// -- group_norm, instance_norm --------------------------------------------------------------------

class GroupNormPlan final : public KernelPlan {
 public:
  GroupNormPlan(const Shape& x, int64_t groups, double eps)
      : rows_(x[0] * groups), groups_(groups), per_group_(x[1] / groups), plane_(1), eps_(eps) {
    for (size_t d = 2; d < x.size(); ++d) plane_ *= x[d];
  }
  void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
    auto floats = [&](size_t i) {
      return i < inputs.size() ? static_cast<const float*>(inputs[i]) : nullptr;
    };
    const int64_t size = per_group_ * plane_;
    const float *weight = floats(1), *bias = floats(2);
    parallel_ranges(rows_, std::max<int64_t>(1, kGrain / 4 / std::max<int64_t>(1, size)),
                    [&](int64_t r0, int64_t r1) {
                      for (int64_t r = r0; r < r1; ++r)
                        row(floats(0) + r * size, static_cast<float*>(outputs[0]) + r * size,
                            r % groups_ * per_group_, weight, bias);
                    });
  }

 private:
  // The channels from `first` on.
  void row(const float* x, float* y, int64_t first, const float* weight, const float* bias) const {
    const kernels::KernelTable& table = kernels::table();
    double mean = 0, inverse = 1;
    table.moments(x, eps_, &mean, &inverse, per_group_ * plane_);
    for (int64_t k = 0; k < per_group_; ++k)
      table.normalize(x + k * plane_, mean, inverse, weight ? weight[first + k] : 1.0f,
                      bias ? bias[first + k] : 0.0f, y + k * plane_, plane_);
  }
  int64_t rows_, groups_, per_group_, plane_;
  double eps_;
};

class GroupNorm final : public NormKernel {
 public:
  GroupNorm(const std::string& op, int64_t groups, double eps)
      : NormKernel(op, false), groups_(groups), eps_(eps) {}
  bool in_place() const override { return true; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    return std::make_unique<GroupNormPlan>(in[0], groups_ == 0 ? in[0][1] : groups_, eps_);
  }

 private:
  int64_t groups_;  // 0: as many as channels
  double eps_;
};

// -- softmax along any dimension ------------------------------------------------------------------

// Rows of n elements that lie `inner` apart, gathered a few at a time.
class SoftmaxPlan final : public KernelPlan {
 public:
  SoftmaxPlan(int64_t outer, int64_t n, int64_t inner)
      : n_(n), inner_(inner), blocks_((inner + kRows - 1) / kRows), items_(outer * blocks_) {
    tasks_ = std::clamp<int64_t>(outer * n * inner / (kGrain / 4), 1,
                                 std::max<int64_t>(1, std::min<int64_t>(num_threads(), items_)));
  }
  size_t scratch_bytes() const override {
    return inner_ == 1 ? 0 : static_cast<size_t>(tasks_ * kRows * n_) * sizeof(float);
  }
  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    const auto* x = static_cast<const float*>(inputs[0]);
    auto* y = static_cast<float*>(outputs[0]);
    const auto softmax = kernels::table().softmax;
    parallel_for(tasks_, [&](int64_t task) {
      float* rows = static_cast<float*>(scratch) + task * kRows * n_;
      for (int64_t i = items_ * task / tasks_; i < items_ * (task + 1) / tasks_; ++i) {
        const int64_t c0 = i % blocks_ * kRows, count = std::min(kRows, inner_ - c0),
                      at = i / blocks_ * n_ * inner_ + c0;
        if (inner_ == 1) {
          softmax(x + at, y + at, n_);
          continue;
        }
        for (int64_t j = 0; j < n_; ++j)
          for (int64_t c = 0; c < count; ++c) rows[c * n_ + j] = x[at + j * inner_ + c];
        for (int64_t c = 0; c < count; ++c) softmax(rows + c * n_, rows + c * n_, n_);
        for (int64_t j = 0; j < n_; ++j)
          for (int64_t c = 0; c < count; ++c) y[at + j * inner_ + c] = rows[c * n_ + j];
      }
    });
  }

 private:
  static constexpr int64_t kRows = 16;
  int64_t n_, inner_, blocks_, items_, tasks_ = 1;
};

class SoftmaxAlong final : public NormKernel {
 public:
  SoftmaxAlong(int64_t dim, int64_t rank, bool channels_last)
      : NormKernel("softmax", channels_last), dim_(dim), rank_(rank) {}
  std::unique_ptr<Kernel> in_channels_last() const override {
    return rank_ == 4 ? std::make_unique<SoftmaxAlong>(dim_, rank_, true) : nullptr;
  }
  bool in_place() const override { return true; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>&) const override {
    Shape x = in[0];
    int64_t at = dim_;
    if (channels_last_) {
      x = {x[0], x[2], x[3], x[1]};
      at = dim_ == 0 ? 0 : dim_ == 1 ? 3 : dim_ - 1;
    }
    int64_t outer = 1, inner = 1;
    for (int64_t d = 0; d < static_cast<int64_t>(x.size()); ++d)
      if (d != at) (d < at ? outer : inner) *= x[d];
    return std::make_unique<SoftmaxPlan>(outer, x[at], inner);
  }

 private:
  int64_t dim_, rank_;
};

}  // namespace

std::unique_ptr<Kernel> make_float_norm(const OpSpec& spec) {
  if (!is_float(spec)) return nullptr;
  const TensorType& x = spec.inputs[0];
  if (spec.op == "softmax") {
    const int64_t dim = spec.attrs.get_int("dim");
    if (x.dim() == 0) return nullptr;
    return std::make_unique<SoftmaxAlong>(dim < 0 ? dim + x.dim() : dim, x.dim(), false);
  }
  const double eps = spec.attrs.get_double("eps");
  if (spec.op == "group_norm")
    return std::make_unique<GroupNorm>(spec.op, spec.attrs.get_int("groups"), eps);
  if (spec.op == "instance_norm") return std::make_unique<GroupNorm>(spec.op, 0, eps);
  std::vector<std::vector<double>> numbers;  // weight, bias, mean, variance
  for (size_t i = 1; i < 5; ++i) {
    if (i >= spec.constants.size() || !spec.constants[i].defined()) return nullptr;
    numbers.push_back(spec.constants[i].to(DType::float64).to_vector<double>());
  }
  ScaleAndShift parts;
  for (size_t c = 0; c < numbers[0].size(); ++c) {
    const double scale = numbers[0][c] / std::sqrt(numbers[3][c] + eps);
    parts.scale.push_back(static_cast<float>(scale));
    parts.shift.push_back(static_cast<float>(numbers[1][c] - numbers[2][c] * scale));
  }
  return std::make_unique<BatchNorm>(parts, false);
}

}  // namespace octet::native
