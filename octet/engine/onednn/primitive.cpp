// oneDNN's engine, stream and threads, and what its kernels are made of.
#include <omp.h>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/engine/onednn/onednn_impl.h"

namespace octet::onednn {

dnnl::engine& cpu() {
  static dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  return engine;
}
dnnl::stream& stream() {
  thread_local dnnl::stream s(cpu());
  return s;
}

dnnl::primitive_attr attributes(const std::string& activation) {
  dnnl::primitive_attr attr;
  attr.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  dnnl::post_ops ops;
  if (activation == "relu") ops.append_eltwise(1, dnnl::algorithm::eltwise_relu, 0, 0);
  if (activation == "relu6") ops.append_eltwise(1, dnnl::algorithm::eltwise_clip, 0, 6);
  attr.set_post_ops(ops);
  return attr;
}

void use_threads(int n) {
  use_openmp_threads();
  if (omp_get_max_threads() != n) omp_set_num_threads(n);
}

int threads_for(double multiplications) { return multiplications < 1e6 ? 1 : running_threads(); }

double layer_work(const Shape& images, const Shape& weight) {
  return static_cast<double>(numel(images)) * static_cast<double>(numel(weight)) /
         static_cast<double>(std::max<int64_t>(1, weight[0]));
}

ConvDims::ConvDims(const OpSpec& spec) {
  const auto &s = spec.attrs.get_ints("stride"), &d = spec.attrs.get_ints("dilation"),
             &p = spec.attrs.get_ints("padding");
  stride = s;
  for (int64_t v : d) dilation.push_back(v - 1);
  begin.assign(p.begin(), p.begin() + static_cast<int64_t>(s.size()));
  end.assign(p.begin() + static_cast<int64_t>(s.size()), p.end());
  if (spec.attrs.has("output_padding"))
    for (size_t d = 0; d < s.size(); ++d) end[d] -= spec.attrs.get_ints("output_padding")[d];
}

bool ConvDims::taken() const {
  for (size_t d = 0; d < end.size(); ++d)
    if (end[d] + stride[d] <= 0) return false;
  return true;
}

ConvWeight::ConvWeight(const Shape& weight, int64_t groups, bool transposed) : shape(weight) {
  shape[0] /= groups;
  if (groups > 1) shape.insert(shape.begin(), groups);
  strides = contiguous_strides(shape);
  if (!transposed) return;
  const size_t first = groups > 1 ? 1 : 0;
  std::swap(shape[first], shape[first + 1]);
  std::swap(strides[first], strides[first + 1]);
}

std::unique_ptr<KernelPlan> OneDnnKernel::plan(const std::vector<Shape>& in,
                                               const std::vector<Shape>& out) const {
  try {
    return fn_(in, out);
  } catch (const dnnl::error& e) {
    OCTET_FAIL(unsupported, "oneDNN cannot run {} on shape {}: {}", traits_.name, to_string(in[0]),
               e.what());
  }
}

memory WeightCache::get(const memory::desc& wanted) {
  std::lock_guard lock(mutex_);
  for (auto& m : copies_)
    if (m.get_desc() == wanted) return m;
  memory source(desc_, cpu(), const_cast<void*>(data_));
  if (wanted == desc_) return source;
  memory copy(wanted, cpu());
  dnnl::reorder(source, copy).execute(stream(), source, copy);
  stream().wait();
  copies_.push_back(copy);
  return copy;
}

}  // namespace octet::onednn
