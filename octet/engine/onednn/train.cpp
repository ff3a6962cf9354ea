// The gradients of convolutions and linear layers through oneDNN. Images and their gradients are
// NHWC, weights row-major outside and whatever oneDNN prefers inside; the reorders between are a
// part of the plan.
#include <omp.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "octet/base/check_impl.h"
#include "octet/engine/onednn/onednn_impl.h"

namespace octet::onednn {
namespace {

// A primitive whose operands lie in memory as its caller has them: those that it wants otherwise
// are reordered before or after it runs, in the caller's scratch memory.
class ReorderingPlan final : public KernelPlan {
 public:
  struct Port {
    int arg;
    memory::desc outside, inside;
  };
  template <typename Desc>
  ReorderingPlan(const Desc& pd, dnnl::primitive primitive, const std::vector<Port>& inputs,
                 const std::vector<Port>& outputs)
      : primitive_(std::move(primitive)),
        scratchpad_(pd.scratchpad_desc(), cpu(), nullptr),
        threads_(omp_get_max_threads()) {
    scratch_size_ = padded(pd.scratchpad_desc().get_size());
    args_.emplace(DNNL_ARG_SCRATCHPAD, scratchpad_);
    for (const Port& p : inputs) inputs_.push_back(end(p, true));
    for (const Port& p : outputs) outputs_.push_back(end(p, false));
  }
  size_t scratch_bytes() const override { return scratch_size_; }
  void run(std::span<const void* const> inputs, std::span<void* const> outputs,
           void* scratch) override {
    use_threads(threads_);
    auto* bytes = static_cast<std::byte*>(scratch);
    scratchpad_.set_data_handle(bytes);
    for (size_t i = 0; i < inputs_.size(); ++i)
      inputs_[i].point(const_cast<void*>(inputs[i]), bytes);
    for (size_t i = 0; i < outputs_.size(); ++i) outputs_[i].point(outputs[i], bytes);
    for (End& e : inputs_)
      if (e.reorder) e.reorder.execute(stream(), e.outside, e.inside);
    primitive_.execute(stream(), args_);
    for (End& e : outputs_)
      if (e.reorder) e.reorder.execute(stream(), e.inside, e.outside);
    stream().wait();
  }

 private:
  struct End {
    memory outside, inside;
    dnnl::reorder reorder;  // empty if both are one
    size_t offset = 0;      // of `inside` in the scratch memory
    void point(void* data, std::byte* scratch) {
      outside.set_data_handle(data);
      if (reorder) inside.set_data_handle(scratch + offset);
    }
  };
  static size_t padded(size_t bytes) { return (bytes + 63) / 64 * 64; }
  End end(const Port& p, bool is_input) {
    End e;
    e.outside = memory(p.outside, cpu(), nullptr);
    e.inside = e.outside;
    if (p.inside != p.outside) {
      e.inside = memory(p.inside, cpu(), nullptr);
      e.reorder =
          is_input ? dnnl::reorder(e.outside, e.inside) : dnnl::reorder(e.inside, e.outside);
      e.offset = scratch_size_;
      scratch_size_ += padded(p.inside.get_size());
    }
    args_.emplace(p.arg, e.inside);
    return e;
  }

  dnnl::primitive primitive_;
  memory scratchpad_;
  int threads_;
  size_t scratch_size_ = 0;
  std::vector<End> inputs_, outputs_;
  std::unordered_map<int, memory> args_;
};

class TrainingKernel final : public Kernel {
 public:
  TrainingKernel(std::string name, std::array<Layout, 2> inputs, Layout output, PlanFn fn)
      : name_(std::move(name)), inputs_(inputs), output_(output), fn_(std::move(fn)) {}
  std::string name() const override { return name_; }
  std::string engine() const override { return "onednn"; }
  Threads threads() const override { return Threads::openmp; }
  Layout input_layout(size_t i) const override { return inputs_.at(i); }
  Layout output_layout(size_t) const override { return output_; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    try {
      return fn_(in, out);
    } catch (const dnnl::error& e) {
      OCTET_FAIL(unsupported, "oneDNN cannot run {} on shapes {} and {}: {}", name_,
                 to_string(in[0]), to_string(in[1]), e.what());
    }
  }

 private:
  std::string name_;
  std::array<Layout, 2> inputs_;
  Layout output_;
  PlanFn fn_;
};

using dnnl::prop_kind;

// A convolution's shapes and parameters: x and y are images, also of gradients.
struct Conv : ConvDims {
  Shape x, y, w;
  Conv(const OpSpec& spec, Shape x_shape, Shape y_shape, const Shape& weight)
      : ConvDims(spec), x(std::move(x_shape)), y(std::move(y_shape)), w(weight) {
    const int64_t groups = spec.attrs.get_int("groups");
    if (groups == 1) return;
    w[0] /= groups;
    w.insert(w.begin(), groups);
  }
  // The forward pass that a backward one belongs to.
  dnnl::convolution_forward::primitive_desc forward() const {
    dnnl::convolution_forward::desc desc(prop_kind::forward_training,
                                         dnnl::algorithm::convolution_auto, image(x), any_layout(w),
                                         image(y), stride, dilation, begin, end);
    return {desc, attributes("none"), cpu()};
  }
};

using Ports = std::vector<ReorderingPlan::Port>;
using Plan = std::unique_ptr<KernelPlan>;
using Shapes = std::vector<Shape>;

std::unique_ptr<Kernel> conv_data(const OpSpec& spec) {
  Layout layout = image_layout(spec.inputs[0].dims.size());
  return std::make_unique<TrainingKernel>(
      spec.op, std::array{layout, Layout::row_major}, layout,
      [spec](const Shapes& in, const Shapes& out) -> Plan {
        use_threads(threads_for(layer_work(in[0], in[1])));
        const Conv c(spec, out[0], in[0], in[1]);
        dnnl::convolution_backward_data::desc desc(dnnl::algorithm::convolution_auto, image(c.x),
                                                   any_layout(c.w), image(c.y), c.stride,
                                                   c.dilation, c.begin, c.end);
        dnnl::convolution_backward_data::primitive_desc pd(desc, attributes("none"), cpu(),
                                                           c.forward());
        return std::make_unique<ReorderingPlan>(
            pd, dnnl::convolution_backward_data(pd),
            Ports{{DNNL_ARG_DIFF_DST, image(c.y), image(c.y)},
                  {DNNL_ARG_WEIGHTS, row_major(c.w), pd.weights_desc()}},
            Ports{{DNNL_ARG_DIFF_SRC, image(c.x), image(c.x)}});
      });
}

std::unique_ptr<Kernel> conv_weight(const OpSpec& spec) {
  Layout layout = image_layout(spec.inputs[0].dims.size());
  return std::make_unique<TrainingKernel>(
      spec.op, std::array{layout, layout}, Layout::row_major,
      [spec](const Shapes& in, const Shapes& out) -> Plan {
        use_threads(threads_for(layer_work(in[1], out[0])));
        const Conv c(spec, in[0], in[1], out[0]);
        const bool bias = numel(out[1]) > 0;
        using Desc = dnnl::convolution_backward_weights::desc;
        auto algorithm = dnnl::algorithm::convolution_auto;
        Desc desc = bias ? Desc(algorithm, image(c.x), any_layout(c.w), row_major(out[1]),
                                image(c.y), c.stride, c.dilation, c.begin, c.end)
                         : Desc(algorithm, image(c.x), any_layout(c.w), image(c.y), c.stride,
                                c.dilation, c.begin, c.end);
        dnnl::convolution_backward_weights::primitive_desc pd(desc, attributes("none"), cpu(),
                                                              c.forward());
        Ports outputs{{DNNL_ARG_DIFF_WEIGHTS, row_major(c.w), pd.diff_weights_desc()}};
        if (bias) outputs.push_back({DNNL_ARG_DIFF_BIAS, row_major(out[1]), row_major(out[1])});
        return std::make_unique<ReorderingPlan>(pd, dnnl::convolution_backward_weights(pd),
                                                Ports{{DNNL_ARG_SRC, image(c.x), image(c.x)},
                                                      {DNNL_ARG_DIFF_DST, image(c.y), image(c.y)}},
                                                outputs);
      });
}

// The forward pass of y (m, n) = x (m, k) * w (n, k)^T.
dnnl::inner_product_forward::primitive_desc linear_forward(const Shape& x, const Shape& w,
                                                           const Shape& y) {
  dnnl::inner_product_forward::desc desc(prop_kind::forward_training, row_major(x), any_layout(w),
                                         row_major(y));
  return {desc, attributes("none"), cpu()};
}

std::unique_ptr<Kernel> linear_data(const OpSpec& spec) {
  return std::make_unique<TrainingKernel>(
      spec.op, std::array{Layout::row_major, Layout::row_major}, Layout::row_major,
      [](const Shapes& in, const Shapes&) -> Plan {
        const Shape& w = in[1];
        use_threads(threads_for(layer_work(in[0], w)));
        const int64_t m = numel(in[0]) / w[0];
        const Shape x{m, w[1]}, y{m, w[0]};
        dnnl::inner_product_backward_data::desc desc(row_major(x), any_layout(w), row_major(y));
        dnnl::inner_product_backward_data::primitive_desc pd(desc, attributes("none"), cpu(),
                                                             linear_forward(x, w, y));
        return std::make_unique<ReorderingPlan>(
            pd, dnnl::inner_product_backward_data(pd),
            Ports{{DNNL_ARG_DIFF_DST, row_major(y), row_major(y)},
                  {DNNL_ARG_WEIGHTS, row_major(w), pd.weights_desc()}},
            Ports{{DNNL_ARG_DIFF_SRC, row_major(x), row_major(x)}});
      });
}

std::unique_ptr<Kernel> linear_weight(const OpSpec& spec) {
  return std::make_unique<TrainingKernel>(
      spec.op, std::array{Layout::row_major, Layout::row_major}, Layout::row_major,
      [](const Shapes& in, const Shapes& out) -> Plan {
        const Shape& w = out[0];
        use_threads(threads_for(layer_work(in[1], w)));
        const int64_t m = numel(in[1]) / w[0];
        const Shape x{m, w[1]}, y{m, w[0]};
        const bool bias = numel(out[1]) > 0;
        using Desc = dnnl::inner_product_backward_weights::desc;
        Desc desc = bias ? Desc(row_major(x), any_layout(w), row_major(out[1]), row_major(y))
                         : Desc(row_major(x), any_layout(w), row_major(y));
        dnnl::inner_product_backward_weights::primitive_desc pd(desc, attributes("none"), cpu(),
                                                                linear_forward(x, w, y));
        Ports outputs{{DNNL_ARG_DIFF_WEIGHTS, row_major(w), pd.diff_weights_desc()}};
        if (bias) outputs.push_back({DNNL_ARG_DIFF_BIAS, row_major(out[1]), row_major(out[1])});
        return std::make_unique<ReorderingPlan>(
            pd, dnnl::inner_product_backward_weights(pd),
            Ports{{DNNL_ARG_SRC, row_major(x), row_major(x)},
                  {DNNL_ARG_DIFF_DST, row_major(y), row_major(y)}},
            outputs);
      });
}

// oneDNN 2.6's pointwise kernels with a stride gather the image in scratch memory that they write
// beyond the end of if its channels are no multiple of 16.
bool overruns(const OpSpec& spec) {
  const std::vector<Dim>& w = spec.outputs[0].dims;
  const std::vector<int64_t>& stride = spec.attrs.get_ints("stride");
  return std::all_of(w.begin() + 2, w.end(), [](const Dim& d) { return d == Dim(1); }) &&
         std::any_of(stride.begin(), stride.end(), [](int64_t s) { return s > 1; }) &&
         (!spec.inputs[0].dims[1].known() || spec.inputs[0].dims[1].size() % 16 != 0);
}

}  // namespace

std::unique_ptr<Kernel> make_training(const OpSpec& spec) {
  bool empty = false;  // oneDNN has no work of size 0
  for (const TensorType& t : {spec.inputs.at(0), spec.outputs.at(0)})
    for (const Dim& d : t.dims) empty = empty || d == Dim(0);
  if (empty) return nullptr;
  if (spec.op == "conv_backward_data") return conv_data(spec);
  if (spec.op == "conv_backward_weight") return overruns(spec) ? nullptr : conv_weight(spec);
  if (spec.op == "linear_backward_data") return linear_data(spec);
  if (spec.op == "linear_backward_weight") return linear_weight(spec);
  return nullptr;
}

}  // namespace octet::onednn
