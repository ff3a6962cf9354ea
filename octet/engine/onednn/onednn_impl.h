#pragma once
// What the oneDNN kernels for inference (infer.cpp) and training (train.cpp) share.

#include <dnnl.hpp>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "octet/engine/engine.h"

namespace octet::onednn {

// The makers, which engine.cpp lists by operator. Each returns null when the call is not one it
// takes.
std::unique_ptr<Kernel> make_conv(const OpSpec& spec);  // infer.cpp, as all but the last
std::unique_ptr<Kernel> make_linear(const OpSpec& spec);
std::unique_ptr<Kernel> make_matmul(const OpSpec& spec);
std::unique_ptr<Kernel> make_pool(const OpSpec& spec);
std::unique_ptr<Kernel> make_binary(const OpSpec& spec);
std::unique_ptr<Kernel> make_clip(const OpSpec& spec);
std::unique_ptr<Kernel> make_training(const OpSpec& spec);  // train.cpp

using dnnl::memory;
using Tag = memory::format_tag;

dnnl::engine& cpu();
dnnl::stream& stream();  // of this thread

inline memory::dims dims(const Shape& s) { return memory::dims(s.begin(), s.end()); }
inline memory::desc nhwc(const Shape& s) { return {dims(s), memory::data_type::f32, Tag::nhwc}; }
inline memory::desc row_major(const Shape& s) {
  auto strides = contiguous_strides(s);
  return {dims(s), memory::data_type::f32, memory::dims(strides.begin(), strides.end())};
}
// Images of two dimensions are NHWC, others row-major.
inline memory::desc image(const Shape& s) { return s.size() == 4 ? nhwc(s) : row_major(s); }
inline Layout image_layout(size_t rank) {
  return rank == 4 ? Layout::channels_last : Layout::row_major;
}
// The layout is the primitive's choice.
inline memory::desc any_layout(const Shape& s) {
  return {dims(s), memory::data_type::f32, Tag::any};
}

// A convolution's parameters in oneDNN's terms.
struct ConvDims {
  explicit ConvDims(const OpSpec& spec);
  memory::dims stride, dilation, begin, end;
};

// The attributes of a primitive with its scratch memory given by the caller and a fused activation.
dnnl::primitive_attr attributes(const std::string& activation);

// oneDNN takes its threads from OpenMP: a primitive is cut for the number there is when it is made,
// and must run on it.
void use_threads(int n);
// The threads for a call on operands of these shapes: one where another would wait longer than
// work.
int threads_for(const std::string& op, const std::vector<Shape>& inputs,
                const std::vector<Shape>& outputs);

using PlanFn = std::function<std::unique_ptr<KernelPlan>(const std::vector<Shape>&,
                                                         const std::vector<Shape>&)>;

}  // namespace octet::onednn
