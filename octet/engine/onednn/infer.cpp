// Float work through oneDNN: convolutions, linear, matmul, pools (maxima of codes too), add, mul,
// relu and clamp. Images are NHWC, so that float and quantized parts of a network exchange them
// without reordering; weights are reordered once to what oneDNN prefers.
#include <omp.h>

#include <unordered_map>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/onednn/onednn_impl.h"

namespace octet::onednn {
namespace {

// A primitive with its memories; operands are pointed at the caller's buffers on every run.
class PrimitivePlan final : public KernelPlan {
 public:
  template <typename Desc>
  PrimitivePlan(const Desc& pd, dnnl::primitive primitive,
                const std::vector<std::pair<int, memory::desc>>& inputs,
                const std::vector<std::pair<int, memory>>& constants,
                std::vector<size_t> operand_index)
      : primitive_(std::move(primitive)),
        operand_index_(std::move(operand_index)),
        scratch_(pd.scratchpad_desc(), cpu(), nullptr),
        scratch_size_(pd.scratchpad_desc().get_size()),
        threads_(omp_get_max_threads()),
        output_(pd.dst_desc(), cpu(), nullptr) {
    for (auto& [arg, desc] : inputs) {
      inputs_.emplace_back(desc, cpu(), nullptr);
      args_.emplace(arg, inputs_.back());
    }
    for (auto& [arg, mem] : constants) args_.emplace(arg, mem);
    args_.emplace(DNNL_ARG_DST, output_);
    args_.emplace(DNNL_ARG_SCRATCHPAD, scratch_);
  }
  size_t scratch_bytes() const override { return scratch_size_; }
  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    use_threads(threads_);
    for (size_t i = 0; i < inputs_.size(); ++i)
      inputs_[i].set_data_handle(const_cast<void*>(inputs[operand_index_[i]]));
    output_.set_data_handle(outputs[0]);
    scratch_.set_data_handle(scratch);
    primitive_.execute(stream(), args_);
    stream().wait();
  }

 private:
  dnnl::primitive primitive_;
  std::vector<size_t> operand_index_;
  std::vector<memory> inputs_;
  memory scratch_;
  size_t scratch_size_;
  int threads_;
  memory output_;
  std::unordered_map<int, memory> args_;
};

std::shared_ptr<WeightCache> cached(const Tensor& weight, memory::desc desc) {
  const Tensor w = weight.contiguous();
  return std::make_shared<WeightCache>(w.buffer(), w.raw_data(), desc);
}

OneDnnKernel::Traits layer(const OpSpec& spec, Layout layout) {
  return {.name = spec.op,
          .input = layout,
          .output = layout,
          .packs = OneDnnKernel::Packs::all_but_first};
}
OneDnnKernel::Traits element_by_element(const OpSpec& spec) {
  return {.name = spec.op, .input = Layout::any, .output = Layout::any};
}
// The threads for what reads each number once.
void use_threads_to_read(const Shape& x) {
  use_threads(threads_for(16 * static_cast<double>(numel(x))));
}

memory constant_memory(const Tensor& t) {
  return memory(row_major(t.shape()), cpu(), t.raw_data());
}

// Forward convolution or, for transposed ones, deconvolution: their descriptors take the same
// arguments.
template <typename Forward>
std::unique_ptr<KernelPlan> plan_conv(dnnl::algorithm algorithm, const ConvDims& c,
                                      WeightCache& weights, const memory::desc& any_weight,
                                      const Tensor& bias, const std::string& activation,
                                      const Shape& in, const Shape& out) {
  auto kind = dnnl::prop_kind::forward_inference;
  auto desc =
      bias.defined()
          ? typename Forward::desc(kind, algorithm, image(in), any_weight, row_major(bias.shape()),
                                   image(out), c.stride, c.dilation, c.begin, c.end)
          : typename Forward::desc(kind, algorithm, image(in), any_weight, image(out), c.stride,
                                   c.dilation, c.begin, c.end);
  typename Forward::primitive_desc pd(desc, attributes(activation), cpu());
  std::vector<std::pair<int, memory>> constants{{DNNL_ARG_WEIGHTS, weights.get(pd.weights_desc())}};
  if (bias.defined()) constants.emplace_back(DNNL_ARG_BIAS, constant_memory(bias));
  return std::make_unique<PrimitivePlan>(
      pd, Forward(pd), std::vector<std::pair<int, memory::desc>>{{DNNL_ARG_SRC, pd.src_desc()}},
      constants, std::vector<size_t>{0});
}

bool all_floats(const OpSpec& spec) {
  for (size_t i = 0; i < spec.inputs.size(); ++i)
    if (spec.has(i) && spec.inputs[i].dtype != DType::float32) return false;
  for (const TensorType& t : spec.outputs)
    if (t.dtype != DType::float32) return false;
  return true;
}

}  // namespace

std::unique_ptr<Kernel> make_conv(const OpSpec& spec) {
  if (!all_floats(spec)) return nullptr;
  if (!spec.constants[1].defined() || (spec.has(2) && !spec.constants[2].defined())) return nullptr;
  const bool transposed = spec.transposed;
  const Shape ws = spec.inputs[1].shape();
  const ConvDims c(spec);
  if (!c.taken()) return nullptr;
  const ConvWeight w(ws, spec.attrs.get_int("groups"), transposed);
  memory::desc any_weight = any_layout(w.shape);
  auto weights = cached(spec.constants[1], w.laid_out(memory::data_type::f32));
  Tensor bias = spec.has(2) ? spec.constants[2].contiguous() : Tensor();
  std::string activation = spec.attrs.get_string("activation");
  return std::make_unique<OneDnnKernel>(
      layer(spec, image_layout(ws.size())), [=](const auto& in, const auto& out) {
        use_threads(threads_for(layer_work(transposed ? in[0] : out[0], ws)));
        if (transposed)
          return plan_conv<dnnl::deconvolution_forward>(dnnl::algorithm::deconvolution_direct, c,
                                                        *weights, any_weight, bias, activation,
                                                        in[0], out[0]);
        return plan_conv<dnnl::convolution_forward>(dnnl::algorithm::convolution_auto, c, *weights,
                                                    any_weight, bias, activation, in[0], out[0]);
      });
}

std::unique_ptr<Kernel> make_linear(const OpSpec& spec) {
  if (!all_floats(spec)) return nullptr;
  if (!spec.constants[1].defined() || (spec.has(2) && !spec.constants[2].defined())) return nullptr;
  Shape ws = spec.inputs[1].shape();
  auto weights = cached(spec.constants[1], row_major(ws));
  Tensor bias = spec.has(2) ? spec.constants[2].contiguous() : Tensor();
  std::string activation = spec.attrs.get_string("activation");
  return std::make_unique<OneDnnKernel>(
      layer(spec, Layout::row_major), [=](const auto& in, const auto& out) {
        use_threads(threads_for(layer_work(out[0], ws)));
        int64_t m = numel(in[0]) / ws[1];
        auto kind = dnnl::prop_kind::forward_inference;
        memory::desc any_weight = any_layout(ws);
        auto desc =
            bias.defined()
                ? dnnl::inner_product_forward::desc(kind, row_major({m, ws[1]}), any_weight,
                                                    row_major(bias.shape()), row_major({m, ws[0]}))
                : dnnl::inner_product_forward::desc(kind, row_major({m, ws[1]}), any_weight,
                                                    row_major({m, ws[0]}));
        dnnl::inner_product_forward::primitive_desc pd(desc, attributes(activation), cpu());
        std::vector<std::pair<int, memory>> constants{
            {DNNL_ARG_WEIGHTS, weights->get(pd.weights_desc())}};
        if (bias.defined()) constants.emplace_back(DNNL_ARG_BIAS, constant_memory(bias));
        return std::make_unique<PrimitivePlan>(
            pd, dnnl::inner_product_forward(pd),
            std::vector<std::pair<int, memory::desc>>{{DNNL_ARG_SRC, pd.src_desc()}}, constants,
            std::vector<size_t>{0});
      });
}

// a (..., M, K) x b (..., K, N), batch dimensions broadcast. Operands may be constant.
std::unique_ptr<Kernel> make_matmul(const OpSpec& spec) {
  if (!all_floats(spec)) return nullptr;
  int64_t rank = spec.outputs[0].dim();
  if (spec.inputs[0].dim() < 2 || spec.inputs[1].dim() < 2) return nullptr;
  std::vector<Tensor> constant{
      spec.constants[0].defined() ? spec.constants[0].contiguous() : Tensor(),
      spec.constants[1].defined() ? spec.constants[1].contiguous() : Tensor()};
  return std::make_unique<OneDnnKernel>(
      OneDnnKernel::Traits{.name = spec.op, .packs = OneDnnKernel::Packs::all},
      [=](const auto& in, const auto& out) {
        use_threads(
            threads_for(static_cast<double>(numel(out[0])) * static_cast<double>(in[0].back())));
        auto padded = [&](Shape s) {
          while (static_cast<int64_t>(s.size()) < rank) s.insert(s.begin(), 1);
          return s;
        };
        memory::desc a = row_major(padded(in[0])), b = row_major(padded(in[1]));
        dnnl::matmul::primitive_desc pd(dnnl::matmul::desc(a, b, row_major(out[0])),
                                        attributes("none"), cpu());
        std::vector<std::pair<int, memory::desc>> inputs;
        std::vector<std::pair<int, memory>> constants;
        std::vector<size_t> index;
        for (size_t i = 0; i < 2; ++i) {
          int arg = i == 0 ? DNNL_ARG_SRC : DNNL_ARG_WEIGHTS;
          if (constant[i].defined())
            constants.emplace_back(arg, memory(i == 0 ? a : b, cpu(), constant[i].raw_data()));
          else {
            inputs.emplace_back(arg, i == 0 ? a : b);
            index.push_back(i);
          }
        }
        return std::make_unique<PrimitivePlan>(pd, dnnl::matmul(pd), inputs, constants, index);
      });
}

std::unique_ptr<Kernel> make_pool(const OpSpec& spec) {
  const bool max = spec.selects, adaptive = spec.attrs.has("output_size");
  const TensorType &x = spec.inputs[0], &y = spec.outputs[0];
  auto type = memory::data_type::f32;
  if (!all_floats(spec)) {  // averages of codes round otherwise than octet's
    if (!max || (x.dtype != DType::quint8 && x.dtype != DType::qint8) || x.dtype != y.dtype ||
        x.quantizer->is_per_channel() || *x.quantizer != *y.quantizer)
      return nullptr;
    type = x.dtype == DType::qint8 ? memory::data_type::s8 : memory::data_type::u8;
  }
  const int64_t rank = x.dim();
  if (rank != 4 && rank != 5) return nullptr;
  auto flag = [&](const char* name) { return spec.attrs.has(name) && spec.attrs.get_bool(name); };
  const bool include_pad = flag("count_include_pad");
  if (include_pad && flag("ceil_mode")) return nullptr;  // oneDNN counts cells beyond the padding
  if (spec.attrs.has("divisor_override") && spec.attrs.get_int("divisor_override") != 0)
    return nullptr;
  memory::dims kernel, stride, begin, dilation;  // oneDNN's dilation of 0 is none
  for (int64_t i = 0; i < rank - 2; ++i) {
    if (adaptive) {
      const Dim &from = x.dims[i + 2], &to = y.dims[i + 2];
      if (!from.known() || from.size() % to.size() != 0) return nullptr;
      kernel.push_back(from.size() / to.size());
      stride.push_back(kernel.back());
    } else {
      kernel.push_back(spec.attrs.get_ints("kernel")[i]);
      stride.push_back(spec.attrs.get_ints("stride")[i]);
    }
    begin.push_back(adaptive ? 0 : spec.attrs.get_ints("padding")[i]);
    dilation.push_back(spec.attrs.has("dilation") ? spec.attrs.get_ints("dilation")[i] - 1 : 0);
  }
  auto algorithm = max           ? dnnl::algorithm::pooling_max
                   : include_pad ? dnnl::algorithm::pooling_avg_include_padding
                                 : dnnl::algorithm::pooling_avg_exclude_padding;
  return std::make_unique<OneDnnKernel>(
      OneDnnKernel::Traits{
          .name = spec.op, .input = image_layout(rank), .output = image_layout(rank)},
      [=](const auto& in, const auto& out) {
        use_threads_to_read(in[0]);
        // The padding at the end that makes oneDNN's output size agree with ceil_mode's.
        memory::dims end;
        for (size_t i = 0; i < kernel.size(); ++i)
          end.push_back((out[0][i + 2] - 1) * stride[i] + (kernel[i] - 1) * (dilation[i] + 1) + 1 -
                        begin[i] - in[0][i + 2]);
        dnnl::pooling_v2_forward::desc desc(dnnl::prop_kind::forward_inference, algorithm,
                                            image(in[0], type), image(out[0], type), stride, kernel,
                                            dilation, begin, end);
        dnnl::pooling_v2_forward::primitive_desc pd(desc, attributes("none"), cpu());
        return std::make_unique<PrimitivePlan>(
            pd, dnnl::pooling_v2_forward(pd),
            std::vector<std::pair<int, memory::desc>>{{DNNL_ARG_SRC, pd.src_desc()}},
            std::vector<std::pair<int, memory>>{}, std::vector<size_t>{0});
      });
}

std::unique_ptr<Kernel> make_binary(const OpSpec& spec) {
  if (!all_floats(spec)) return nullptr;
  if (spec.inputs[0].dims != spec.inputs[1].dims) return nullptr;
  auto algorithm = spec.op == "add" ? dnnl::algorithm::binary_add : dnnl::algorithm::binary_mul;
  std::string activation = spec.attrs.get_string("activation");
  return std::make_unique<OneDnnKernel>(element_by_element(spec), [=](const auto& in, const auto&) {
    use_threads_to_read(in[0]);
    memory::desc flat = row_major({numel(in[0])});
    dnnl::binary::primitive_desc pd(dnnl::binary::desc(algorithm, flat, flat, flat),
                                    attributes(activation), cpu());
    return std::make_unique<PrimitivePlan>(
        pd, dnnl::binary(pd),
        std::vector<std::pair<int, memory::desc>>{{DNNL_ARG_SRC_0, flat}, {DNNL_ARG_SRC_1, flat}},
        std::vector<std::pair<int, memory>>{}, std::vector<size_t>{0, 1});
  });
}

std::unique_ptr<Kernel> make_clip(const OpSpec& spec) {
  if (!all_floats(spec)) return nullptr;
  bool relu = spec.op == "relu";
  float lo = 0, hi = 6;
  if (spec.op == "clamp") {
    lo = static_cast<float>(spec.attrs.get_double("min"));
    hi = static_cast<float>(spec.attrs.get_double("max"));
    if (!(lo <= hi)) return nullptr;  // hi everywhere, which oneDNN calls an error
  }
  return std::make_unique<OneDnnKernel>(element_by_element(spec), [=](const auto& in, const auto&) {
    use_threads_to_read(in[0]);
    memory::desc flat = row_major({numel(in[0])});
    auto algorithm = relu ? dnnl::algorithm::eltwise_relu : dnnl::algorithm::eltwise_clip;
    dnnl::eltwise_forward::desc desc(dnnl::prop_kind::forward_inference, algorithm, flat,
                                     relu ? 0 : lo, relu ? 0 : hi);
    dnnl::eltwise_forward::primitive_desc pd(desc, attributes("none"), cpu());
    return std::make_unique<PrimitivePlan>(
        pd, dnnl::eltwise_forward(pd),
        std::vector<std::pair<int, memory::desc>>{{DNNL_ARG_SRC, flat}},
        std::vector<std::pair<int, memory>>{}, std::vector<size_t>{0});
  });
}

}  // namespace octet::onednn
