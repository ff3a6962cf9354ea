#pragma once
// What the oneDNN kernels share: of floats (infer.cpp), of codes (int8_*.cpp) and of gradients
// (train.cpp).

#include <dnnl.hpp>

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "octet/engine/engine.h"

namespace octet::onednn {

// The makers, which engine.cpp lists by operator. Each returns null when the call is not one it
// takes.
std::unique_ptr<Kernel> make_conv(const OpSpec& spec);  // infer.cpp, as all down to make_clip
std::unique_ptr<Kernel> make_linear(const OpSpec& spec);
std::unique_ptr<Kernel> make_matmul(const OpSpec& spec);
std::unique_ptr<Kernel> make_pool(const OpSpec& spec);  // maxima of codes too
std::unique_ptr<Kernel> make_binary(const OpSpec& spec);
std::unique_ptr<Kernel> make_clip(const OpSpec& spec);
std::unique_ptr<Kernel> make_int8_conv(const OpSpec& spec);    // int8_conv.cpp
std::unique_ptr<Kernel> make_int8_linear(const OpSpec& spec);  // int8_product.cpp: dynamic ones too
std::unique_ptr<Kernel> make_int8_matmul(const OpSpec& spec);  // int8_product.cpp
std::unique_ptr<Kernel> make_training(const OpSpec& spec);     // train.cpp

using dnnl::memory;
using Tag = memory::format_tag;

dnnl::engine& cpu();
dnnl::stream& stream();  // of this thread

inline memory::dims dims(const Shape& s) { return memory::dims(s.begin(), s.end()); }
inline memory::desc row_major(const Shape& s, memory::data_type type = memory::data_type::f32) {
  auto strides = contiguous_strides(s);
  return {dims(s), type, memory::dims(strides.begin(), strides.end())};
}
// Images of two dimensions are NHWC, others row-major.
inline memory::desc image(const Shape& s, memory::data_type type = memory::data_type::f32) {
  return s.size() == 4 ? memory::desc(dims(s), type, Tag::nhwc) : row_major(s, type);
}
inline Layout image_layout(size_t rank) {
  return rank == 4 ? Layout::channels_last : Layout::row_major;
}
// The layout is the primitive's choice.
inline memory::desc any_layout(const Shape& s, memory::data_type type = memory::data_type::f32) {
  return {dims(s), type, Tag::any};
}

// A convolution's parameters in oneDNN's terms.
struct ConvDims {
  ConvDims() = default;
  explicit ConvDims(const OpSpec& spec);
  bool taken() const;                         // false: oneDNN does not take so much output_padding
  memory::dims stride, dilation, begin, end;  // oneDNN's dilation of 0 is none
};

// The attributes of a primitive with its scratch memory given by the caller and a fused activation.
dnnl::primitive_attr attributes(const std::string& activation);

// oneDNN takes its threads from OpenMP: a primitive is cut for the number there is when it is made,
// and must run on it.
void use_threads(int n);
// The threads for so many multiplications of floats (four of bytes take as long as one): one where
// another would wait longer than work.
int threads_for(double multiplications);
// Of a layer whose weight's numbers, but for those of its first dimension, each meet every number
// of `images`: outputs of plain layers, inputs of transposed ones and of gradients of the data.
double layer_work(const Shape& images, const Shape& weight);

using PlanFn = std::function<std::unique_ptr<KernelPlan>(const std::vector<Shape>&,
                                                         const std::vector<Shape>&)>;

// A kernel whose plans a function makes, after it has chosen the threads (use_threads).
class OneDnnKernel final : public Kernel {
 public:
  enum class Packs { nothing, all_but_first, all };  // of the constant operands
  struct Traits {
    std::string name;
    Layout input = Layout::row_major, output = Layout::row_major;  // input: of operand 0
    Packs packs = Packs::nothing;
    size_t packed_bytes = 0;
    KernelDescription description = {};
  };
  OneDnnKernel(Traits traits, PlanFn fn) : traits_(std::move(traits)), fn_(std::move(fn)) {}
  std::string name() const override { return traits_.name; }
  std::string engine() const override { return "onednn"; }
  Threads threads() const override { return Threads::openmp; }
  Layout input_layout(size_t i) const override {
    return traits_.input == Layout::channels_last && i > 0 ? Layout::row_major : traits_.input;
  }
  Layout output_layout(size_t) const override { return traits_.output; }
  bool in_place() const override { return traits_.input == Layout::any; }  // the elementwise ones
  bool packs(size_t i) const override {
    return traits_.packs == Packs::all || (traits_.packs == Packs::all_but_first && i > 0);
  }
  size_t packed_bytes() const override { return traits_.packed_bytes; }
  KernelDescription description() const override { return traits_.description; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override;

 private:
  Traits traits_;
  PlanFn fn_;
};

// Reorders constant weights to the layout a primitive asks for. A kernel's plans of different
// shapes mostly ask for the same layout, so the reordered copies are shared.
class WeightCache {
 public:
  // `data` lies as `desc` says, in `owner`.
  WeightCache(Buffer owner, const void* data, memory::desc desc)
      : owner_(std::move(owner)), data_(data), desc_(desc) {}
  memory get(const memory::desc& wanted);

 private:
  std::mutex mutex_;
  Buffer owner_;
  const void* data_;
  memory::desc desc_;
  std::vector<memory> copies_;
};

// A convolution's weight (out, in / groups, kernel...), or if transposed (in, out / groups, ...),
// as oneDNN numbers it: (groups, out, in, kernel...) of one group, without the first if there is
// one group.
struct ConvWeight {
  ConvWeight(const Shape& weight, int64_t groups, bool transposed);
  Shape shape;
  std::vector<int64_t> strides;  // in numbers, as it lies
  memory::desc laid_out(memory::data_type type) const {
    return {dims(shape), type, memory::dims(strides.begin(), strides.end())};
  }
};

}  // namespace octet::onednn
