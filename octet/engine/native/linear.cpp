// Quantized linear: y = requantize(x * weight^T), a dense matrix product.
#include "octet/base/check_impl.h"
#include "octet/engine/native/matrix_impl.h"

namespace octet::native {
namespace {

class LinearKernel final : public Kernel {
 public:
  explicit LinearKernel(const OpSpec& spec)
      : LinearKernel(engine_detail::integer_weights(spec), spec.inputs[1].shape()[1]) {}

  std::string name() const override {
    return fmt::format("linear gemm {}x{} {}", packed_.table->gemm_mr, packed_.table->gemm_nr,
                       to_string(packed_.table->isa));
  }
  std::string engine() const override { return "native"; }
  bool packs(size_t i) const override { return i > 0; }
  size_t packed_bytes() const override { return packed_.packed.bytes(); }
  std::vector<std::string> warnings() const override { return warnings_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& inputs,
                                   const std::vector<Shape>&) const override;

 private:
  LinearKernel(const engine_detail::IntegerWeights& weights, int64_t k)
      : warnings_(weights.warnings),
        packed_(weights, WeightRows(weights.codes, k), {weights.out_channels, k, 1}, 1) {}

  std::vector<std::string> warnings_;
  PackedWeights packed_;
};

class LinearPlan final : public KernelPlan {
 public:
  LinearPlan(const PackedWeights& w, int64_t m) : w_(w), args_(w.arguments(0)), m_(m) {
    args_.lda = w.shape.k;
    args_.ldc = w.shape.n;
    flip_bytes_ = w.flip_x ? (m * w.shape.k + kBufferSlack + 63) / 64 * 64 : 0;
    sum_bytes_ = w.weight_zero_points.empty() ? 0 : m * 4;
  }
  size_t scratch_bytes() const override { return flip_bytes_ + sum_bytes_; }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    auto* bytes = static_cast<uint8_t*>(scratch);
    args_.a = static_cast<const uint8_t*>(inputs[0]);
    if (w_.flip_x) {
      flip_signs(inputs[0], bytes, m_ * w_.shape.k);
      args_.a = bytes;
    }
    if (sum_bytes_) {
      auto* sums = reinterpret_cast<int32_t*>(bytes + flip_bytes_);
      w_.table->row_sums(args_, sums, 0, m_);
      args_.row_sums = sums;
    }
    args_.c = outputs[0];
    split_matrix(
        1, m_, w_.shape.n, w_.table->gemm_mr, w_.table->gemm_nr, w_.shape.k,
        [](void* self, int64_t, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
          auto& plan = *static_cast<LinearPlan*>(self);
          plan.w_.table->gemm(plan.args_, m0, m1, n0, n1);
        },
        this);
    w_.wide.run(1, m_, w_.x_zero_point, [&](int64_t, int64_t) { return args_; });
  }

 private:
  const PackedWeights& w_;
  kernels::GemmArgs args_;
  int64_t m_;
  size_t flip_bytes_ = 0, sum_bytes_ = 0;
};

std::unique_ptr<KernelPlan> LinearKernel::plan(const std::vector<Shape>& inputs,
                                               const std::vector<Shape>&) const {
  return std::make_unique<LinearPlan>(packed_,
                                      numel(inputs[0]) / std::max<int64_t>(1, packed_.shape.k));
}

}  // namespace

std::unique_ptr<Kernel> make_linear(const OpSpec& spec) {
  if (spec.op != "linear" || !engine_detail::is_integer_call(spec)) return nullptr;
  return std::make_unique<LinearKernel>(spec);
}

int64_t worthwhile_tasks(int64_t rows, int64_t weights) {
  // Handing out work costs a few microseconds, in which a core does about a million multiply-adds:
  // smaller tasks are not worth it; few rows take as long as reading the weights does.
  constexpr int64_t kRowsThatHideReading = 3;
  return std::max(rows, kRowsThatHideReading) * weights / (1'000'000 * wake_cost());
}

void split_matrix(int64_t images, int64_t m, int64_t n, int64_t mr, int64_t nr,
                  int64_t work_per_element,
                  void (*run)(void*, int64_t, int64_t, int64_t, int64_t, int64_t), void* context) {
  if (images * m * n == 0) return;
  int64_t m_tiles = (m + mr - 1) / mr, n_tiles = (n + nr - 1) / nr;
  // Four tasks a thread even out what is left.
  int64_t wanted = num_threads() == 1
                       ? 1
                       : std::min<int64_t>(num_threads() * 4,
                                           worthwhile_tasks(m, n * work_per_element * images));
  if (wanted > num_threads()) wanted -= wanted % num_threads();  // as many for each
  int64_t parts = std::max<int64_t>(1, (wanted + images - 1) / images);
  // Rows first: a thread then reads all weights but only its rows. Columns first where there are
  // too few rows (a matrix-vector product), so that weights are streamed once in all, or where the
  // threads would otherwise wait for the last: 49 rows are 5 tiles, which two threads share as 3
  // and 2.
  auto divide = [parts](int64_t first_tiles, int64_t second_tiles) {
    const int64_t first = std::min(parts, first_tiles);
    return std::pair(first, std::min(std::max<int64_t>(1, parts / first), second_tiles));
  };
  // Elements of the thread that ends last: as many average tasks as each gets, and what the largest
  // task has above them.
  auto last_thread = [&](int64_t m_parts, int64_t n_parts) {
    const double tasks = static_cast<double>(m_parts * n_parts),
                 average = static_cast<double>(m * n) / tasks;
    const int64_t rows = std::min(m, (m_tiles + m_parts - 1) / m_parts * mr),
                  columns = std::min(n, (n_tiles + n_parts - 1) / n_parts * nr);
    const int64_t rounds = (images * m_parts * n_parts + num_threads() - 1) / num_threads();
    return static_cast<double>(rounds - 1) * average + static_cast<double>(rows * columns);
  };
  auto [m_parts, n_parts] = divide(m_tiles, n_tiles);
  const auto [columns_first, rows_second] = divide(n_tiles, m_tiles);
  const bool few_rows = m < 4 * mr && n_tiles > m_parts;
  if (few_rows || last_thread(rows_second, columns_first) < 0.97 * last_thread(m_parts, n_parts)) {
    m_parts = rows_second;
    n_parts = columns_first;
  }
  parallel_for(images * m_parts * n_parts, [&, m_parts = m_parts, n_parts = n_parts](int64_t task) {
    int64_t image = task / (m_parts * n_parts), rest = task % (m_parts * n_parts);
    int64_t i = rest / n_parts, j = rest % n_parts;
    int64_t m0 = m_tiles * i / m_parts * mr, m1 = std::min(m, m_tiles * (i + 1) / m_parts * mr);
    int64_t n0 = n_tiles * j / n_parts * nr, n1 = std::min(n, n_tiles * (j + 1) / n_parts * nr);
    run(context, image, m0, m1, n0, n1);
  });
}

}  // namespace octet::native
