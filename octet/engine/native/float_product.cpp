// Float linear and matmul: dense products. A constant second operand is packed once, others at each
// run.
#include "octet/engine/geometry_impl.h"
#include "octet/engine/native/float_impl.h"
#include "octet/engine/native/schedule_impl.h"

namespace octet::native {
namespace {

// y (product, M, N) = a (.., M, K) * b (.., K, N) + bias, where b lies with the strides given.
struct ProductSpec {
  std::string name;
  // 0, 0: of matrices (K, N), whose N is known only with the shapes
  int64_t n_stride = 0, k_stride = 0;
  bool rows_are_outputs = false;  // linear: b is (N, K)
  Tensor bias;                    // of N values, or undefined
  FloatRange range{"none"};
};

class ProductKernel final : public Kernel {
 public:
  ProductKernel(ProductSpec spec, const Tensor& constant_b) : spec_(std::move(spec)) {
    if (!constant_b.defined()) return;
    const Tensor b = constant_b.contiguous();
    const int64_t rows = b.size(-2), columns = b.size(-1),
                  matrices = b.numel() / std::max<int64_t>(1, rows * columns);
    packed_ = std::make_unique<PackedFloats>(shape(rows, columns), matrices,
                                             weights(b.data<float>(), columns), rows * columns);
  }
  std::string name() const override {
    return fmt::format("{} float gemm {}x{} {}", spec_.name, table_->float_gemm_mr,
                       table_->float_gemm_nr, to_string(table_->isa));
  }
  std::string engine() const override { return "native"; }
  KernelDescription description() const override {
    KernelDescription d = described(KernelDescription::Arithmetic::floats);
    d.loop = float_loop(*table_);
    d.accumulator = "float32";
    return d;
  }
  bool packs(size_t i) const override { return (i == 1 && packed_) || i == 2; }
  size_t packed_bytes() const override { return packed_ ? packed_->packed.bytes() : 0; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override;

 private:
  friend class ProductPlan;
  // Of a matrix b of that many rows and columns.
  kernels::GemmShape shape(int64_t rows, int64_t columns) const {
    return spec_.rows_are_outputs ? kernels::GemmShape{rows, columns, 1}
                                  : kernels::GemmShape{columns, rows, 1};
  }
  kernels::FloatWeights weights(const float* b, int64_t columns) const {
    return spec_.rows_are_outputs ? kernels::FloatWeights{b, columns, 0, 1}
                                  : kernels::FloatWeights{b, 1, 0, columns};
  }

  ProductSpec spec_;
  const kernels::KernelTable* table_ = &kernels::table();
  std::unique_ptr<PackedFloats> packed_;
};

class ProductPlan final : public KernelPlan {
 public:
  ProductPlan(const ProductKernel& kernel, const Shape& a, const Shape& b, const Shape& y)
      : kernel_(kernel),
        rows_(b[b.size() - 2]),
        columns_(b.back()),
        shape_(kernel.shape(rows_, columns_)),
        matrices_(numel({b.begin(), b.end() - 2})) {
    if (kernel.spec_.rows_are_outputs || matrices_ == 1) {  // one product of all rows
      a_ = b_ = {0};
      m_ = shape_.n == 0 ? 0 : numel(y) / shape_.n;
    } else {
      engine_detail::MatmulGeometry g(a, b, y);
      m_ = g.m;
      a_ = std::move(g.a);
      b_ = std::move(g.b);
    }
    matrix_bytes_ = (kernel.table_->float_gemm_packed_bytes(shape_) + 63) / 64 * 64;
  }
  size_t scratch_bytes() const override {
    return kernel_.packed_ ? 0 : matrix_bytes_ * static_cast<size_t>(matrices_);
  }

  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    const kernels::KernelTable& table = *kernel_.table_;
    x_ = static_cast<const float*>(inputs[0]);
    y_ = static_cast<float*>(outputs[0]);
    packed_at_ = kernel_.packed_ ? reinterpret_cast<char*>(kernel_.packed_->packed.data())
                                 : static_cast<char*>(scratch);
    if (!kernel_.packed_) {
      const auto* b = static_cast<const float*>(inputs[1]);
      const int64_t matrix = rows_ * columns_;
      if (matrices_ == 1) {
        pack_floats(table, shape_, kernel_.weights(b, columns_), matrix_at(0));
      } else {
        parallel_ranges(matrices_, kGrain / (matrix + 1) + 1, [&](int64_t i0, int64_t i1) {
          for (int64_t i = i0; i < i1; ++i)
            table.float_gemm_pack(shape_, kernel_.weights(b + i * matrix, columns_), matrix_at(i));
        });
      }
    }
    split_matrix(static_cast<int64_t>(a_.size()), m_, shape_.n, table.float_gemm_mr,
                 table.float_gemm_nr, shape_.k * kFloatWork,
                 [this](int64_t product, int64_t m0, int64_t m1, int64_t n0, int64_t n1) {
                   kernel_.table_->float_gemm(arguments(product), m0, m1, n0, n1);
                 });
  }

 private:
  static constexpr int64_t kGrain = 1 << 14;  // floats

  float* matrix_at(int64_t i) const {
    return reinterpret_cast<float*>(packed_at_ + static_cast<size_t>(i) * matrix_bytes_);
  }
  kernels::FloatGemmArgs arguments(int64_t product) const {
    kernels::FloatGemmArgs args;
    args.shape = shape_;
    args.a = x_ + a_[static_cast<size_t>(product)] * m_ * shape_.k;
    args.lda = shape_.k;
    args.b = matrix_at(b_[static_cast<size_t>(product)]);
    args.c = y_ + product * m_ * shape_.n;
    args.ldc = shape_.n;
    args.bias = kernel_.spec_.bias.defined()
                    ? static_cast<const float*>(kernel_.spec_.bias.raw_data())
                    : nullptr;
    args.lo = kernel_.spec_.range.lo;
    args.hi = kernel_.spec_.range.hi;
    return args;
  }

  const ProductKernel& kernel_;
  int64_t rows_, columns_;
  kernels::GemmShape shape_;
  int64_t matrices_, m_ = 0;
  std::vector<int64_t> a_, b_;  // by product: which matrix of the operand
  size_t matrix_bytes_ = 0;
  char* packed_at_ = nullptr;
  const float* x_ = nullptr;
  float* y_ = nullptr;
};

std::unique_ptr<KernelPlan> ProductKernel::plan(const std::vector<Shape>& in,
                                                const std::vector<Shape>& out) const {
  return std::make_unique<ProductPlan>(*this, in[0], in[1], out[0]);
}

}  // namespace

std::unique_ptr<Kernel> make_float_product(const OpSpec& spec) {
  if (!is_float(spec)) return nullptr;
  ProductSpec product;
  product.name = spec.op;
  if (spec.op == "linear") {
    if (spec.has(2) && !spec.constants[2].defined()) return nullptr;
    product.rows_are_outputs = true;
    if (spec.has(2)) product.bias = spec.constants[2].contiguous();
    product.range = FloatRange(spec.attrs.get_string("activation"));
  } else if (spec.inputs[0].dim() < 2 || spec.inputs[1].dim() < 2) {
    return nullptr;
  }
  return std::make_unique<ProductKernel>(std::move(product), spec.constants[1]);
}

}  // namespace octet::native
