#include "octet/quant/algorithms/equalize.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <string>

#include "octet/autograd/autograd.h"
#include "octet/base/check_impl.h"
#include "octet/nn/activation.h"
#include "octet/nn/norm.h"
#include "octet/quant/modules/intrinsic.h"
#include "octet/quant/modules/visit_impl.h"

namespace octet::quant {

using nn::ModulePtr;

namespace {

constexpr int kMostTurns = 1000;

// A layer whose weights are being scaled, in double precision: they are rounded once, at the end.
struct Layer {
  std::string path;
  nn::Parameter *weight, *bias;
  bool transposed = false;
  int64_t in, out, groups = 1;
  std::vector<double> w, b, before;  // `before`: w when its list was last begun

  bool depthwise() const { return groups > 1 && groups == in && groups == out; }

  // fn(input channel, output channel, weight) for each of the weights.
  template <typename Fn>
  void for_each(Fn&& fn) {
    const int64_t rows = weight->size(0), columns = weight->size(1),
                  inner = weight->numel() / (rows * columns);
    double* p = w.data();
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t c = 0; c < columns; ++c) {
        // a group's rows meet its own columns only
        const int64_t other = r / (rows / groups) * columns + c;
        for (int64_t i = 0; i < inner; ++i, ++p) transposed ? fn(r, other, *p) : fn(other, r, *p);
      }
  }
};

// Layers through which each channel goes by itself; all but the first and the last are depthwise.
// The last takes `spread` of its input channels from each channel.
struct Chain {
  std::vector<Layer*> layers;
  int64_t channels, spread = 1;
};

std::string describe(const std::vector<std::string>& list) {
  return fmt::format("equalize {{{}}}", fmt::join(list, ", "));
}

bool passes_scales(nn::Module& m) {
  if (dynamic_cast<nn::Activation*>(&m))
    return dynamic_cast<nn::ReLU*>(&m) || dynamic_cast<nn::LeakyReLU*>(&m);
  return !(dynamic_cast<nn::BatchNorm*>(&m) || dynamic_cast<nn::LayerNorm*>(&m) ||
           dynamic_cast<nn::GroupNorm*>(&m) || dynamic_cast<nn::InstanceNorm*>(&m));
}

class Equalizer {
 public:
  explicit Equalizer(nn::Module& model) : model_(model) {
    OCTET_CHECK(!model.prepared.has_value(), invalid_argument,
                "equalize: the model is prepared already: equalize it before "
                "prepare(), so that observers see the ranges that stay");
    std::function<void(const nn::Module&)> count = [&](const nn::Module& m) {
      for (const auto& [name, child] : m.children())
        if (child && ++places_[child.get()] == 1) count(*child);
    };
    count(model);
  }

  // Folds the batch norms of a list into the layers before them. To be done for all lists first.
  void fold(const std::vector<std::string>& list) {
    for (size_t i = 0; i < list.size(); ++i) {
      ModulePtr module = model_.submodule(list[i]);
      auto* bn = dynamic_cast<nn::BatchNorm*>(module.get());
      if (!bn) continue;
      const std::string who = describe(list);
      OCTET_CHECK(i > 0, invalid_argument, "{}: expected a layer before the batch norm '{}'", who,
                  list[i]);
      OCTET_CHECK(!bn->training(), invalid_argument,
                  "{}: '{}' is in training mode; a batch norm is folded with its running "
                  "statistics: call eval() first",
                  who, list[i]);
      ModulePtr layer = model_.submodule(list[i - 1]);
      check_used_once(*module, list[i], who);
      check_used_once(*layer, list[i - 1], who);
      put(list[i - 1], fuse_conv_bn_eval(*layer, *bn));
      put(list[i], nn::make<nn::Identity>());
    }
  }

  void add(const std::vector<std::string>& list, bool check_between) {
    const std::string who = describe(list);
    std::vector<std::string> paths;
    for (const std::string& path : list)
      if (!dynamic_cast<nn::Identity*>(model_.submodule(path).get())) paths.push_back(path);
    OCTET_CHECK(paths.size() >= 2, invalid_argument, "{}: expected two layers or more", who);
    std::vector<Layer*> layers;
    for (const std::string& path : paths) {
      Layer* layer = this->layer(path, who);
      OCTET_CHECK(std::find(layers.begin(), layers.end(), layer) == layers.end(), invalid_argument,
                  "{}: '{}' is named twice", who, path);
      layers.push_back(layer);
    }
    for (size_t i = 1; check_between && i < paths.size(); ++i)
      check_declared_between(paths[i - 1], paths[i], who);
    size_t first = 0;
    for (size_t i = 1; i < layers.size(); ++i)
      if (!layers[i]->depthwise() || i + 1 == layers.size()) {
        add_chain({layers.begin() + static_cast<std::ptrdiff_t>(first),
                   layers.begin() + static_cast<std::ptrdiff_t>(i) + 1},
                  who);
        first = i;
      }
  }

  void run(double threshold) {
    double moved = 0;
    int turn = 0;
    do {
      for (Chain& chain : chains_) equalize(chain);
      moved = 0;
      for (auto& [path, layer] : layers_) {
        double sum = 0;
        for (size_t i = 0; i < layer.w.size(); ++i)
          sum += (layer.w[i] - layer.before[i]) * (layer.w[i] - layer.before[i]);
        moved += std::sqrt(sum);
      }
    } while (moved >= threshold && ++turn < kMostTurns);
    for (auto& [path, layer] : layers_) {
      store(*layer.weight, layer.w);
      if (layer.bias->defined()) store(*layer.bias, layer.b);
    }
  }

 private:
  void put(const std::string& path, ModulePtr module) {
    places_[module.get()] = 1;
    module->eval();
    model_.set_submodule(path, std::move(module));
  }

  void check_used_once(nn::Module& module, const std::string& path, const std::string& who) {
    OCTET_CHECK(places_[&module] == 1, invalid_argument,
                "{}: '{}' stands in {} places of the model: scaling it would change "
                "what the others compute",
                who, path, places_[&module]);
  }

  Layer* layer(const std::string& path, const std::string& who) {
    if (auto it = layers_.find(path); it != layers_.end()) return &it->second;
    ModulePtr module = model_.submodule(path);
    check_used_once(*module, path, who);
    nn::Module* inner = module.get();
    if (auto* fused = dynamic_cast<nn::intrinsic::FusedModule*>(inner)) {
      OCTET_CHECK(
          fused->size() == 2 && dynamic_cast<nn::ReLU*>(&(*fused)[1]), invalid_argument,
          "{}: '{}' is a {}: only layers "
          "fused with ReLU are scaled: fold batch norms first, by fuse_modules in eval mode",
          who, path, module->type_name());
      inner = &(*fused)[0];
    }
    Layer layer{.path = path};
    bool known = visit_layer(*inner, [&](auto& typed) {
      using Typed = std::decay_t<decltype(typed)>;
      layer.weight = &typed.weight;
      layer.bias = &typed.bias;
      if constexpr (is_conv<Typed>) {
        layer.transposed = Typed::is_transposed;
        layer.groups = typed.options.groups;
        layer.in = typed.in_channels;
        layer.out = typed.out_channels;
      } else {
        layer.in = typed.in_features;
        layer.out = typed.out_features;
      }
    });
    OCTET_CHECK(known && inner->children().empty(), unsupported,
                "{}: '{}' is a {}; expected a float Conv1d, 2d, 3d, a transposed "
                "one or a Linear, alone or fused with ReLU, or a batch norm behind one",
                who, path, module->type_name());
    layer.w = load(*layer.weight, path, who);
    if (layer.bias->defined()) layer.b = load(*layer.bias, path, who);
    return &(layers_[path] = std::move(layer));
  }

  static std::vector<double> load(const Tensor& t, const std::string& path,
                                  const std::string& who) {
    std::vector<double> values = t.detach().to(DType::float64).to_vector<double>();
    int64_t bad =
        std::count_if(values.begin(), values.end(), [](double v) { return !std::isfinite(v); });
    OCTET_CHECK(bad == 0, invalid_argument, "{}: '{}' has {} weights that are NaN or infinite", who,
                path, bad);
    return values;
  }

  static void store(nn::Parameter& parameter, const std::vector<double>& values) {
    const bool trained = autograd::requires_grad(parameter);
    const DType dtype = parameter.dtype();
    // a new one: others may share the old
    parameter = Tensor::from(values, parameter.shape()).to(dtype);
    autograd::set_requires_grad(parameter, trained);
  }

  void check_declared_between(const std::string& from, const std::string& to,
                              const std::string& who) {
    bool between = false;
    for (auto& [path, module] : model_.named_modules()) {
      if (path == to) break;
      OCTET_CHECK(!between || passes_scales(*module), invalid_argument,
                  "{}: '{}' ({}) is declared "
                  "between '{}' and '{}' and does not let a scale pass: {}, or give a sample, by "
                  "which the result is "
                  "checked instead",
                  who, path, module->type_name(), from, to,
                  dynamic_cast<nn::BatchNorm*>(module)
                      ? "name it in the list to fold it, or use fuse_modules"
                      : "leave the pair out or, of a ReLU6, put a ReLU there");
      between = between || path == from;
    }
  }

  void add_chain(std::vector<Layer*> layers, const std::string& who) {
    Layer &first = *layers.front(), &last = *layers.back();
    for (size_t i = 1; i < layers.size(); ++i) {
      const bool flattened = first.weight->dim() > 2 && layers[i]->weight->dim() == 2;
      OCTET_CHECK(flattened ? layers[i]->in % first.out == 0 : layers[i]->in == first.out,
                  invalid_argument, "{}: '{}' gives {} channels and '{}' takes {}", who, first.path,
                  first.out, layers[i]->path, layers[i]->in);
    }
    for (size_t i = 0; i + 1 < layers.size(); ++i) {
      auto [it, fresh] = towards_.emplace(layers[i]->path, layers[i + 1]->path);
      OCTET_CHECK(
          fresh, invalid_argument,
          "{}: '{}' is followed by '{}' in another place: what a layer gives can be scaled for "
          "one follower only",
          who, layers[i]->path, it->second);
      auto [back, first_time] = from_.emplace(layers[i + 1]->path, layers[i]->path);
      OCTET_CHECK(first_time, invalid_argument,
                  "{}: '{}' follows '{}' in another place: what a layer takes can come from one "
                  "layer only",
                  who, layers[i + 1]->path, back->second);
    }
    chains_.push_back({layers, first.out, last.in / first.out});
  }

  // The channel of a chain that a weight of its k-th layer belongs to.
  static int64_t channel_of(const Chain& chain, size_t k, int64_t in, int64_t out) {
    if (k == 0) return out;
    return k + 1 == chain.layers.size() ? in / chain.spread : in;
  }

  static void equalize(Chain& chain) {
    const size_t n = chain.layers.size(), channels = static_cast<size_t>(chain.channels);
    std::vector<std::vector<double>> ranges(n);
    for (size_t k = 0; k < n; ++k) {
      Layer& layer = *chain.layers[k];
      layer.before = layer.w;
      std::vector<double> low(channels, 0.0), high(channels, 0.0);
      layer.for_each([&](int64_t in, int64_t out, double w) {
        const auto c = static_cast<size_t>(channel_of(chain, k, in, out));
        low[c] = std::min(low[c], w);
        high[c] = std::max(high[c], w);
      });
      for (size_t c = 0; c < channels; ++c) ranges[k].push_back(high[c] - low[c]);
    }
    // factors[k][c]: what the weights of channel c in layer k are multiplied by. Their product over
    // k is 1.
    std::vector<std::vector<double>> factors(n, std::vector<double>(channels, 1.0));
    for (size_t c = 0; c < channels; ++c) {
      double logs = 0;
      bool alive = true;
      for (size_t k = 0; k < n; ++k) {
        // What is smaller than the others' rounding does nothing, and would be blown up.
        alive =
            alive && ranges[k][c] > 0x1p-23 * *std::max_element(ranges[k].begin(), ranges[k].end());
        logs += std::log(ranges[k][c]);
      }
      for (size_t k = 0; alive && k < n; ++k)
        factors[k][c] = std::exp(logs / static_cast<double>(n)) / ranges[k][c];
    }
    std::vector<double> so_far(channels, 1.0);
    for (size_t k = 0; k < n; ++k) {
      Layer& layer = *chain.layers[k];
      layer.for_each([&](int64_t in, int64_t out, double& w) {
        w *= factors[k][static_cast<size_t>(channel_of(chain, k, in, out))];
      });
      if (k + 1 == n) break;
      for (size_t c = 0; c < channels; ++c) {
        so_far[c] *= factors[k][c];
        if (!layer.b.empty()) layer.b[c] *= so_far[c];
      }
    }
  }

  nn::Module& model_;
  std::map<const nn::Module*, int> places_;
  std::map<std::string, Layer> layers_;
  std::map<std::string, std::string> towards_, from_;
  std::vector<Chain> chains_;
};

// Without `scale` only what can fail is done.
void equalize_lists(nn::Module& model, const FuseList& lists, const EqualizeOptions& options,
                    bool scale = true) {
  Equalizer equalizer(model);
  for (const auto& list : lists) equalizer.fold(list);
  for (const auto& list : lists) equalizer.add(list, options.sample.empty());
  if (scale) equalizer.run(options.threshold);
}

// The largest difference that equalizing makes to the model's first result, relative to its largest
// element.
double change(const nn::Module& model, const FuseList& lists, const EqualizeOptions& options) {
  autograd::NoGrad no_grad;
  ModulePtr before = model.clone(), after = model.clone();
  equalize_lists(*after, lists, options);
  before->eval();
  after->eval();
  auto x = (*before)(options.sample).at(0).to(DType::float64).to_vector<double>();
  auto y = (*after)(options.sample).at(0).to(DType::float64).to_vector<double>();
  double largest = 0, difference = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    largest = std::max(largest, std::abs(x[i]));
    difference = std::max(difference, std::abs(x[i] - y[i]));
  }
  return difference == 0 ? 0 : difference / largest;
}

}  // namespace

ModulePtr equalize_untyped(const ModulePtr& model, const FuseList& lists,
                           const EqualizeOptions& options) {
  constexpr double kRounding = 1e-3;  // of float32, through many layers
  OCTET_CHECK(options.threshold >= 0, invalid_argument,
              "equalize: expected a threshold of 0 or more, got {}", options.threshold);
  if (!options.sample.empty() && change(*model, lists, options) > kRounding) {
    std::vector<std::string> wrong;
    for (const auto& list : lists)
      if (change(*model, {list}, options) > kRounding)
        wrong.push_back(fmt::format("{{{}}}", fmt::join(list, ", ")));
    OCTET_FAIL(invalid_argument,
               "equalize: the model computes something else afterwards, by {}: what stands between "
               "these layers "
               "does not let a scale pass, or the first one's result is used elsewhere too: leave "
               "them out",
               wrong.empty() ? "the lists together" : fmt::format("{}", fmt::join(wrong, ", ")));
  }
  // an Error leaves the model as it was
  if (options.inplace) equalize_lists(*model->clone(), lists, options, false);
  ModulePtr result = options.inplace ? model : model->clone();
  equalize_lists(*result, lists, options);
  return result;
}

}  // namespace octet::quant
