#include "octet/debug/saturation.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>

#include "octet/base/check_impl.h"
#include "octet/base/parallel.h"
#include "octet/base/text.h"
#include "octet/debug/table_text_impl.h"
#include "octet/engine/geometry_impl.h"
#include "octet/engine/integer_weights_impl.h"
#include "octet/engine/registry.h"

namespace octet::debug {

namespace {

using graph::kNone;
using graph::Node;
using graph::ValueId;

constexpr int32_t kLeast16 = std::numeric_limits<int16_t>::min(),
                  kMost16 = std::numeric_limits<int16_t>::max();

// Can 255 times these weights leave 16 bits?
bool risky(int32_t a, int32_t b) {
  return 255 * (std::max(a, 0) + std::max(b, 0)) > kMost16 ||
         255 * (std::min(a, 0) + std::min(b, 0)) < kLeast16;
}

// A layer's weight as [channel][position of the window][input channel], as such kernels pack it.
struct Rows {
  engine_detail::WeightCodes codes;
  std::vector<int8_t> data;
  int64_t k = 0;             // products of a result
  int64_t group_inputs = 0;  // input channels of a group; 1 of depthwise layers
  int64_t groups = 1;

  explicit Rows(const OpSpec& spec) : codes(engine_detail::weight_codes(spec)) {
    const int64_t n = codes.out_channels;
    k = n ? std::ssize(codes.codes) / n : 0;
    if (spec.inputs[1].dim() == 2) {
      group_inputs = k;
      data.assign(codes.codes.begin(), codes.codes.end());
      return;
    }
    groups = spec.attrs.get_int("groups");
    const int64_t taps = engine_detail::conv_window3(spec).taps();
    group_inputs = k / std::max<int64_t>(1, taps);
    data.resize(static_cast<size_t>(n * k));
    const int64_t group_outputs = n / groups;
    for (int64_t c = 0; c < n; ++c)
      for (int64_t i = 0; i < group_inputs; ++i)
        for (int64_t t = 0; t < taps; ++t) {
          // (in, out / groups, kernel) if transposed, else (out, in / groups, kernel).
          const int64_t row =
              spec.transposed
                  ? (c / group_outputs * group_inputs + i) * group_outputs + c % group_outputs
                  : c * group_inputs + i;
          data[static_cast<size_t>(c * k + t * group_inputs + i)] =
              codes.codes[static_cast<size_t>(row * taps + t)];
        }
  }
  std::span<const int8_t> row(int64_t channel) const {
    return {data.data() + channel * k, static_cast<size_t>(k)};
  }
};

// Whether those libraries multiply this layer's codes with vpmaddubsw.
bool is_such_layer(const OpSpec& spec) {
  if (!spec.attrs.has("activation") || spec.inputs.size() < 2 || !spec.has(1)) return false;
  if (!spec.constants[1].defined() || spec.constants[1].dtype() != DType::qint8) return false;
  if (spec.op != "linear" && spec.layer != "linear" && !spec.op.starts_with("conv")) return false;
  if (spec.form == WeightForm::weight_only) return false;
  return spec.form == WeightForm::dynamic
             ? engine_detail::is_dynamic_call(spec) && !spec.inputs[0].is_quantized()
             : engine_detail::is_8_bit_call(spec);
}

// One input and one output channel a group: ONNX Runtime's kernels for these do not add pairs.
bool is_depthwise(const OpSpec& spec) {
  if (spec.inputs[1].dim() == 2) return false;
  const int64_t groups = spec.attrs.get_int("groups");
  return groups > 1 && spec.inputs[1].dims[0] == Dim(groups) && spec.inputs[1].dims[1] == Dim(1);
}

// What a layer's kernel counted.
struct Counts {
  std::atomic<int64_t> sums{0}, saturated{0};
};

// A layer as such a library computes it: sums of pairs in 16 bits, all else exact.
class SaturatingKernel final : public Kernel {
 public:
  explicit SaturatingKernel(const OpSpec& spec, Counts* counts = nullptr)
      : spec_(spec), rows_(spec), counts_(counts), dynamic_(spec.form == WeightForm::dynamic) {
    if (dynamic_) {
      if (spec.has(2)) float_bias_ = spec.constants[2].to_vector<float>();
    } else {
      weights_ = engine_detail::integer_weights(spec);
    }
    for (int64_t c = 0; c < rows_.codes.out_channels; ++c) {
      int64_t sum = 0;
      for (int8_t w : rows_.row(c)) sum += w;
      sums_.push_back(sum);
    }
  }
  std::string name() const override { return spec_.op + " with 16-bit sums of pairs"; }
  std::string engine() const override { return "saturating16"; }
  bool packs(size_t i) const override { return i > 0; }
  std::unique_ptr<KernelPlan> plan(const std::vector<Shape>& in,
                                   const std::vector<Shape>& out) const override {
    return std::make_unique<Plan>(*this, in[0], out[0]);
  }

 private:
  class Plan final : public KernelPlan {
   public:
    Plan(const SaturatingKernel& k, Shape x, Shape y)
        : k_(k), x_(std::move(x)), y_(std::move(y)), codes_(static_cast<size_t>(numel(x_))) {}

    void run(std::span<const void* const> inputs, std::span<void* const> outputs, void*) override {
      int32_t zero_point = to_codes(inputs[0]);
      const bool linear = k_.spec_.inputs[1].dim() == 2;
      const Shape x = linear ? Shape() : engine_detail::with_3_spatial(x_),
                  y = linear ? Shape() : engine_detail::with_3_spatial(y_);
      const int64_t channels = k_.rows_.codes.out_channels,
                    pixels = linear ? 1 : y[2] * y[3] * y[4],
                    results = channels ? numel(y_) / channels : 0;
      parallel_ranges(results, 16, [&](int64_t r0, int64_t r1) {
        std::vector<uint8_t> row(static_cast<size_t>(k_.rows_.k * k_.rows_.groups));
        int64_t saturated = 0;
        for (int64_t r = r0; r < r1; ++r) {
          if (linear)
            std::copy_n(codes_.begin() + r * k_.rows_.k, k_.rows_.k, row.begin());
          else
            window(x, y, r / pixels, r % pixels, static_cast<uint8_t>(zero_point), row);
          for (int64_t c = 0; c < channels; ++c) {
            const int64_t group = c / (channels / k_.rows_.groups);
            const std::span<const uint8_t> of_group(row.data() + group * k_.rows_.k,
                                                    static_cast<size_t>(k_.rows_.k));
            const int64_t at =
                linear ? r * channels + c : (r / pixels * channels + c) * pixels + r % pixels;
            store(c, sum(c, of_group, zero_point, saturated), outputs[0], at);
          }
        }
        if (k_.counts_) {
          k_.counts_->sums += (r1 - r0) * channels * ((k_.rows_.k + 1) / 2);
          k_.counts_->saturated += saturated;
        }
      });
    }

   private:
    // Unsigned codes of x; returns their zero point.
    int32_t to_codes(const void* x) {
      if (!k_.dynamic_) {
        const auto* from = static_cast<const uint8_t*>(x);
        const uint8_t flip = k_.weights_.x_signed ? 0x80 : 0;
        for (size_t i = 0; i < codes_.size(); ++i) codes_[i] = from[i] ^ flip;
        return k_.weights_.x_zero_point + (flip ? 128 : 0);
      }
      const auto* from = static_cast<const float*>(x);
      float min = 0, max = 0;
      int64_t not_finite = 0;
      for (size_t i = 0; i < codes_.size(); ++i) {
        not_finite += !std::isfinite(from[i]);
        min = std::min(min, from[i]);
        max = std::max(max, from[i]);
      }
      const engine_detail::RunTimeRule rule(k_.spec_.attrs);
      const affine::RunTimeQParams q = rule.qparams(min, max, not_finite, k_.spec_.label);
      scale_ = static_cast<float>(q.scale);
      for (size_t i = 0; i < codes_.size(); ++i) codes_[i] = rule.code(from[i], q);
      return q.zero_point;
    }

    // The codes under the window of a result: [group][position][channel].
    void window(const Shape& x, const Shape& y, int64_t image, int64_t pixel, uint8_t pad,
                std::vector<uint8_t>& row) const {
      const engine_detail::Window3 w = engine_detail::conv_window3(k_.spec_);
      const int64_t o[3] = {pixel / (y[3] * y[4]), pixel / y[4] % y[3], pixel % y[4]};
      const int64_t inputs = k_.rows_.group_inputs, groups = k_.rows_.groups;
      int64_t tap = 0;
      for (int64_t a = 0; a < w.kernel[0]; ++a)
        for (int64_t b = 0; b < w.kernel[1]; ++b)
          for (int64_t c = 0; c < w.kernel[2]; ++c, ++tap) {
            const bool t = k_.spec_.transposed;
            const int64_t i = engine_detail::input_place(w, t, 0, o[0], a, x[2]),
                          j = engine_detail::input_place(w, t, 1, o[1], b, x[3]),
                          l = engine_detail::input_place(w, t, 2, o[2], c, x[4]);
            const bool inside = i >= 0 && j >= 0 && l >= 0;
            for (int64_t channel = 0; channel < groups * inputs; ++channel)
              row[static_cast<size_t>(channel / inputs * k_.rows_.k + tap * inputs +
                                      channel % inputs)] =
                  inside ? codes_[static_cast<size_t>(
                               (((image * x[1] + channel) * x[2] + i) * x[3] + j) * x[4] + l)]
                         : pad;
          }
    }

    // The sum of (q_x - z_x) * (q_w - z_w), its products of codes saturating in pairs.
    int64_t sum(int64_t c, std::span<const uint8_t> row, int32_t z_x, int64_t& saturated) const {
      const int64_t z_w = k_.rows_.codes.zero_points[static_cast<size_t>(c)];
      int64_t acc = saturating_dot(row, k_.rows_.row(c), saturated) -
                    int64_t{z_x} * k_.sums_[static_cast<size_t>(c)];
      if (z_w != 0) {
        int64_t row_sum = 0;
        for (uint8_t q : row) row_sum += q;
        acc += k_.rows_.k * z_x * z_w - z_w * row_sum;
      }
      return acc;
    }

    void store(int64_t c, int64_t acc, void* y, int64_t at) const {
      const auto n = static_cast<size_t>(c);
      if (!k_.dynamic_) {
        const auto& w = k_.weights_;
        static_cast<uint8_t*>(y)[at] = static_cast<uint8_t>(
            affine::requantize(acc + w.bias[n], w.multiplier[n], w.y_zero_point, w.lo, w.hi));
        return;
      }
      float v = static_cast<float>(acc) * (scale_ * k_.rows_.codes.scales[n]);
      if (!k_.float_bias_.empty()) v += k_.float_bias_[n];
      const std::string& activation = k_.spec_.attrs.get_string("activation");
      if (activation != "none") v = v > 0 ? v : 0;
      if (activation == "relu6") v = std::min(v, 6.0f);
      static_cast<float*>(y)[at] = v;
    }

    const SaturatingKernel& k_;
    Shape x_, y_;
    std::vector<uint8_t> codes_;
    float scale_ = 1;
  };

  OpSpec spec_;
  Rows rows_;
  Counts* counts_;
  bool dynamic_;
  engine_detail::IntegerWeights weights_;
  std::vector<float> float_bias_;
  std::vector<int64_t> sums_;  // of a channel's codes
};

void register_once() {
  static std::once_flag once;
  std::call_once(once, [] {
    Engine e("saturating16", {}, "sums of pairs in 16 bits, as ONNX Runtime's on AVX2: a forecast");
    e.add_for_any([](const OpSpec& spec) -> std::unique_ptr<Kernel> {
      if (!is_such_layer(spec) || is_depthwise(spec)) return nullptr;
      return std::make_unique<SaturatingKernel>(spec);
    });
    register_engine(std::move(e));
  });
}

double steps_between(const Tensor& a, const Tensor& b) {
  if (!a.is_quantized()) return std::numeric_limits<double>::quiet_NaN();
  const Tensor p = a.int_repr().contiguous(), q = b.int_repr().contiguous();
  const bool is_signed = a.dtype() == DType::qint8;
  int32_t most = 0;
  const auto *x = static_cast<const uint8_t*>(p.raw_data()),
             *y = static_cast<const uint8_t*>(q.raw_data());
  for (int64_t i = 0; i < p.numel(); ++i) {
    const int32_t u = is_signed ? static_cast<int8_t>(x[i]) : x[i],
                  v = is_signed ? static_cast<int8_t>(y[i]) : y[i];
    most = std::max(most, std::abs(u - v));
  }
  return most;
}

// Rows of (N, classes) whose largest value is elsewhere.
int64_t moved_rows(const Tensor& exact, const Tensor& other) {
  const auto a = (exact.is_quantized() ? exact.dequantize() : exact).to_vector<float>(),
             b = (other.is_quantized() ? other.dequantize() : other).to_vector<float>();
  const int64_t classes = exact.size(1);
  if (classes == 0) return 0;
  int64_t moved = 0;
  for (int64_t r = 0; r < exact.size(0); ++r) {
    const auto largest = [&](const std::vector<float>& v) {
      const auto row = v.begin() + r * classes;
      return std::max_element(row, row + classes) - row;
    };
    moved += largest(a) != largest(b);
  }
  return moved;
}

}  // namespace

int64_t saturating_dot(std::span<const uint8_t> x, std::span<const int8_t> w, int64_t& saturated) {
  int64_t sum = 0;
  const size_t n = x.size();
  int32_t cut = 0;
  for (size_t i = 0; i + 1 < n; i += 2) {
    const int32_t pair = x[i] * w[i] + x[i + 1] * w[i + 1];
    const int32_t kept = std::clamp(pair, kLeast16, kMost16);
    cut += pair != kept;
    sum += kept;
  }
  if (n % 2 != 0) sum += x[n - 1] * w[n - 1];  // 255 * 128 fits
  saturated += cut;
  return sum;
}

SaturationReport forecast_saturation(const runtime::Program& program,
                                     const std::vector<std::vector<Tensor>>& samples) {
  register_once();
  const graph::Graph& g = program.graph();
  SaturationReport report;
  report.samples = std::ssize(samples);

  struct Layer {
    size_t forecast;
    OpSpec spec;
    Counts counts;
    std::unique_ptr<Kernel> kernel;
  };
  std::map<graph::NodeId, Layer> layers;
  std::vector<ValueId> wanted;
  for (size_t n = 0; n < g.nodes().size(); ++n) {
    const Node& node = g.nodes()[n];
    if (node.kind != graph::NodeKind::call) continue;
    OpSpec spec = graph::spec_of(g, node);
    if (!is_such_layer(spec)) continue;
    SaturationForecast& f = report.layers.emplace_back();
    f.name = node.scope.empty() ? "%" + g.value(node.outputs[0]).name : node.scope;
    f.op = node.op;
    if (is_depthwise(spec)) {
      f.note = "depthwise: ONNX Runtime adds its products in 32 bits";
      continue;
    }
    const Rows rows(spec);
    for (int64_t c = 0; c < rows.codes.out_channels; ++c) {
      const std::span<const int8_t> row = rows.row(c);
      for (size_t i = 0; i < row.size(); i += 2) {
        ++f.weight_pairs;
        f.risky_pairs += i + 1 < row.size() && risky(row[i], row[i + 1]);
      }
    }
    Layer& layer = layers[static_cast<graph::NodeId>(n)];
    layer.forecast = report.layers.size() - 1;
    layer.spec = std::move(spec);
    layer.kernel = std::make_unique<SaturatingKernel>(layer.spec, &layer.counts);
    for (ValueId v : {node.inputs[0], node.outputs[0]}) wanted.push_back(v);
  }
  if (samples.empty()) return report;

  const runtime::Program saturating = runtime::compile(g, {.engine = "saturating16"});
  for (ValueId v : g.outputs()) report.outputs.push_back({g.value(v).name, {}, 0, 0});
  for (const std::vector<Tensor>& inputs : samples) {
    std::map<ValueId, Tensor> values;
    const std::vector<Tensor> exact =
        program.run_watched(inputs, wanted, [&](ValueId v, const Tensor& x) {
          values[v] = x.clone();
          const graph::NodeId made = g.value(v).producer;
          const auto found = layers.find(made);
          if (found == layers.end()) return;
          Layer& layer = found->second;
          const Node& node = g.node(made);
          std::vector<Tensor> operands;
          for (ValueId i : node.inputs)
            operands.push_back(i == kNone         ? Tensor()
                               : g.is_constant(i) ? g.constant(i)
                                                  : values.at(i));
          OpSpec spec = layer.spec;
          spec.outputs[0] = x.type();
          const Tensor y = run_kernel(*layer.kernel, spec, operands)[0];
          SaturationForecast& f = report.layers[layer.forecast];
          f.error.add(values[v], y);
          const double steps = steps_between(values[v], y);
          f.most_steps = std::isnan(steps) ? steps : std::max(f.most_steps, steps);
        });
    const std::vector<Tensor> other = saturating.run(inputs);
    for (size_t i = 0; i < exact.size(); ++i) {
      if (!exact[i].is_quantized() && !is_floating(exact[i].dtype())) continue;
      SaturationReport::Output& out = report.outputs[i];
      out.error.add(exact[i], other[i]);
      if (exact[i].dim() != 2) continue;
      out.rows += exact[i].size(0);
      out.other_class += moved_rows(exact[i], other[i]);
    }
  }
  for (auto& [id, layer] : layers) {
    report.layers[layer.forecast].sums = layer.counts.sums;
    report.layers[layer.forecast].saturated = layer.counts.saturated;
  }
  return report;
}

// -- text -----------------------------------------------------------------------------------------

namespace {

std::string share_text(int64_t part, int64_t whole) {
  if (part == 0 || whole == 0) return "0";
  const double share = 100.0 * static_cast<double>(part) / static_cast<double>(whole);
  return share < 0.001 ? "<0.001 %" : fmt::format("{:.3g} %", share);
}

std::string db_text(const ErrorStatistics& e) {
  return std::isfinite(e.sqnr()) ? fmt::format("{:.1f} dB", e.sqnr()) : "same";
}

}  // namespace

std::vector<std::string> SaturationReport::summary() const {
  std::vector<std::string> lines;
  if (layers.empty())
    return {"No layer multiplies codes by signed 8-bit weights: nothing can saturate."};
  int64_t bad = 0;
  for (const SaturationForecast& f : layers) bad += f.saturates();
  if (samples == 0) {
    lines.push_back(fmt::format(
        "{} of {} layers have neighbouring weights whose products can leave 16 bits. Give samples "
        "(--data) to see whether they do.",
        bad, layers.size()));
  } else {
    lines.push_back(fmt::format(
        "{} of {} layers would saturate on a CPU without VNNI in ONNX Runtime, FBGEMM or oneDNN; "
        "octet computes them exactly on every CPU.",
        bad, layers.size()));
    for (const Output& o : outputs) {
      const bool same = o.error.count() == 0 || o.error.noise() == 0;
      lines.push_back(
          same
              ? fmt::format("The result {} would be the same.", o.name)
              : fmt::format(
                    "The result {} would move: SQNR {} against the exact one, at most {:.3g}"
                    "{}.",
                    o.name, db_text(o.error), o.error.max_abs_error(),
                    o.rows ? fmt::format("; {} of {} rows get another class", o.other_class, o.rows)
                           : ""));
    }
  }
  if (bad)
    lines.push_back(
        "Weights of 7 bits (octet quantize --weight-bits 7) cannot saturate there: two of them add "
        "up to 128 at most. reduce_range makes it rarer, but not for values beyond those of "
        "calibration, nor for inputs that are 0..255 by nature.");
  return lines;
}

std::string to_string(const SaturationReport& r) {
  std::string text = fmt::format("{:>12} {:>12} {:>10} {:>10} {:>6}  {}\n", "risky pairs",
                                 "saturated", "of sums", "SQNR", "steps", "layer");
  for (const SaturationForecast& f : r.layers) {
    const std::string name = shorten(f.op + " " + f.name, 44);
    if (!f.note.empty()) {
      text += fmt::format("{:>12} {:>12} {:>10} {:>10} {:>6}  {}\n", "", "", "", "exact", "", name);
      continue;
    }
    text += fmt::format(
        "{:>12} {:>12} {:>10} {:>10} {:>6}  {}\n", share_text(f.risky_pairs, f.weight_pairs),
        r.samples ? f.saturated : 0, r.samples ? share_text(f.saturated, f.sums) : "",
        r.samples ? db_text(f.error) : "",
        !r.samples || std::isnan(f.most_steps) ? "" : fmt::format("{:.0f}", f.most_steps), name);
  }
  text += "\n";
  for (const std::string& line : r.summary()) text += wrapped(line);
  return text;
}

}  // namespace octet::debug
