#include "octet/debug/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "octet/base/json_impl.h"
#include "octet/base/text.h"
#include "octet/debug/page_impl.h"

namespace octet::debug {
namespace {

const char* const kReportScript =
#include "octet/debug/report_script.raw"
    ;

// Numbers as they are shown: 4 digits of decibels are plenty.
OrderedJson number(double value, int digits = 6) {
  if (std::isnan(value)) return nullptr;
  if (std::isinf(value)) return value > 0 ? OrderedJson("exact") : OrderedJson("none");
  const double rounded = std::strtod(fmt::format("{:.{}g}", value, digits).c_str(), nullptr);
  return rounded;
}

OrderedJson db(double value) {
  if (!std::isfinite(value)) return number(value);
  return std::round(value * 100) / 100;
}

OrderedJson range_json(const RangeAfter& r) {
  return OrderedJson::array({r.samples, number(r.min, 5), number(r.max, 5)});
}

OrderedJson trials_json(const std::vector<Trial>& trials) {
  OrderedJson json = OrderedJson::array();
  for (const Trial& t : trials) {
    json.push_back({{"what", t.what}, {"sqnr_db", db(t.sqnr)}, {"gain_db", db(t.gain)}});
    if (!std::isnan(t.speedup)) json.back()["speedup"] = number(t.speedup, 4);
  }
  return json;
}

// `bin`: so many codes are one count of the histogram; 0: none.
OrderedJson layer_json(const LayerComparison& l, size_t bin) {
  const bool histograms = bin > 0;
  OrderedJson j;
  j["name"] = l.name;
  j["op"] = l.op;
  j["value"] = l.value;
  j["shape"] = l.shape;
  j["matched"] = l.matched;
  j["quantized"] = l.quantized;
  if (!l.note.empty()) j["note"] = l.note;
  if (histograms) j["operands"] = l.operands;
  if (!l.matched) return j;
  j["sqnr_db"] = db(l.sqnr);
  j["own_sqnr_db"] = db(l.own_sqnr);
  j["inherited_sqnr_db"] = db(l.inherited_sqnr);
  j["activation_sqnr_db"] = db(l.activation_sqnr);
  j["weight_sqnr_db"] = db(l.weight_sqnr);
  j["weight_error_sqnr_db"] = db(l.weight_error_sqnr);
  j["max_error"] = number(l.max_error);
  j["cosine"] = number(l.cosine, 8);
  j["noise_share"] = number(l.noise_share, 4);
  j["alone_sqnr_db"] = db(l.alone_sqnr);
  j["time_share"] = number(l.time_share, 4);
  j["min"] = number(l.min);
  j["max"] = number(l.max);
  if (l.scale > 0) {
    j["scale"] = number(l.scale, 9);
    j["zero_point"] = l.zero_point;
    j["codes"] = l.quant_max - l.quant_min + 1;
    j["codes_used"] = l.codes_used;
    j["clipped"] = number(l.clipped, 4);
    j["clipping_share"] = number(l.clipping_share, 4);
    j["own_scale"] = l.own_scale;
    if (histograms) j["quant_min"] = l.quant_min;
  }
  j["fault"] = l.fault == Fault::none ? OrderedJson(nullptr) : OrderedJson(to_string(l.fault));
  if (!l.sentence.empty()) j["sentence"] = l.sentence;
  if (!l.dead_channels.empty()) j["dead_channels"] = l.dead_channels;
  OrderedJson channels = OrderedJson::array();
  for (const ChannelError& c : l.worst_channels)
    channels.push_back(
        {{"channel", c.channel}, {"sqnr_db", db(c.sqnr)}, {"weight_sqnr_db", db(c.weight_sqnr)}});
  if (!channels.empty()) j["worst_channels"] = channels;
  if (!std::isnan(l.weight_sqnr)) j["per_channel_weights"] = l.per_channel_weights;
  OrderedJson calibration = OrderedJson::array();
  for (const RangeAfter& r : l.calibration) calibration.push_back(range_json(r));
  if (!calibration.empty()) j["range_after"] = calibration;
  if (!l.largest.empty()) {
    OrderedJson largest = OrderedJson::array();
    for (size_t i = 0; i < l.largest.size(); ++i)
      largest.push_back(OrderedJson::array({l.largest_samples[i], number(l.largest[i], 5)}));
    j["largest_samples"] = largest;
  }
  const OrderedJson trials = trials_json(l.trials);
  if (!trials.empty()) j["trials"] = trials;
  if (histograms && !l.histogram.empty()) {
    size_t first = 0, last = l.histogram.size();
    while (first < last && l.histogram[first] == 0) ++first;
    while (last > first && l.histogram[last - 1] == 0) --last;
    first -= first % bin;
    j["first"] = first;  // of the counts: code quant_min - 128 + first
    OrderedJson counts = OrderedJson::array();
    for (size_t i = first; i < last; i += bin) {
      uint64_t n = 0;
      for (size_t k = i; k < std::min(i + bin, l.histogram.size()); ++k) n += l.histogram[k];
      counts.push_back(n);
    }
    j["histogram"] = counts;
  }
  return j;
}

OrderedJson comparison_json(const Comparison& c, const ReportOptions& options, bool histograms) {
  OrderedJson j;
  j["float"] = options.float_name;
  j["quantized"] = options.quantized_name;
  if (!options.data.empty()) j["data"] = options.data;
  j["samples"] = c.samples;
  if (c.has_top1) {
    j["float_top1"] = number(c.float_top1);
    j["quantized_top1"] = number(c.quantized_top1);
    j["drop_points"] = number(100 * (c.float_top1 - c.quantized_top1));
  }
  if (!std::isnan(c.agreement)) j["agreement"] = number(c.agreement);
  OrderedJson outputs = OrderedJson::array();
  for (const OutputComparison& o : c.outputs)
    outputs.push_back({{"name", o.name},
                       {"sqnr_db", db(o.sqnr)},
                       {"max_error", number(o.max_error)},
                       {"cosine", number(o.cosine, 8)}});
  j["outputs"] = outputs;
  if (c.float_ms > 0) {
    j["float_ms"] = number(c.float_ms);
    j["quantized_ms"] = number(c.quantized_ms);
    j["speedup"] = number(c.float_ms / c.quantized_ms, 4);
  }
  if (c.float_bytes > 0) {
    j["float_weight_bytes"] = c.float_bytes;
    j["quantized_weight_bytes"] = c.quantized_bytes;
  }
  if (c.float_memory_bytes > 0) {
    j["float_memory_bytes"] = c.float_memory_bytes;
    j["quantized_memory_bytes"] = c.quantized_memory_bytes;
  }
  if (!c.trials.empty()) j["trials"] = trials_json(c.trials);
  j["unmatched"] = c.unmatched;
  j["ranking"] = c.ranking;
  // A page of thousands of layers stays small.
  size_t bin = histograms ? 1 : 0;
  while (bin > 0 && bin < 16 && c.layers.size() * 512 / bin > 400'000) bin *= 2;
  if (histograms) j["bin"] = bin;
  OrderedJson layers = OrderedJson::array();
  for (const LayerComparison& l : c.layers) layers.push_back(layer_json(l, bin));
  j["layers"] = layers;
  return j;
}

std::string xml_text(const std::string& text) {
  std::string out;
  for (const char ch : text) {
    switch (ch) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:  // control characters have no form in XML
        out += static_cast<unsigned char>(ch) < 32 && ch != '\n' && ch != '\t' ? ' ' : ch;
    }
  }
  return out;
}

}  // namespace

std::string to_json(const Comparison& c, const ReportOptions& options, bool histograms) {
  return comparison_json(c, options, histograms)
      .dump(-1, ' ', false, OrderedJson::error_handler_t::replace);
}

namespace {

// Score against cost as an SVG: a point for each network, the curve through those that no other
// beats.
std::string tried_picture(const ReportOptions& options) {
  constexpr double kWidth = 640, kHeight = 240, kLeft = 70, kBottom = 36, kEdge = 14;
  const auto range_of = [&](double TriedNetwork::*what) {
    double lo = INFINITY, hi = -INFINITY;
    for (const TriedNetwork& t : options.tried)
      lo = std::min(lo, t.*what), hi = std::max(hi, t.*what);
    return hi > lo ? std::pair{lo, hi} : std::pair{lo - 1, hi + 1};
  };
  const auto [x0, x1] = range_of(&TriedNetwork::cost);
  const auto [y0, y1] = range_of(&TriedNetwork::score);
  const auto at = [&, x0 = x0, x1 = x1, y0 = y0, y1 = y1](const TriedNetwork& t) {
    return std::pair{kLeft + (t.cost - x0) / (x1 - x0) * (kWidth - kLeft - kEdge),
                     kEdge + (y1 - t.score) / (y1 - y0) * (kHeight - kBottom - kEdge)};
  };
  std::string curve, points;
  std::vector<TriedNetwork> ordered = options.tried;
  std::ranges::stable_sort(ordered, {}, &TriedNetwork::cost);
  for (const TriedNetwork& t : ordered) {
    const auto [x, y] = at(t);
    if (t.on_curve) curve += fmt::format("{:.1f},{:.1f} ", x, y);
    points += fmt::format(
        "<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"><title>{}: {:.5g}, cost "
        "{:.4g}</title></circle>\n",
        t.chosen ? "out" : "in", x, y, t.chosen ? 6 : 4, xml_text(t.name), t.score, t.cost);
  }
  return fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"Score against cost; the table has the "
      "same "
      "figures.\">\n<path class=\"axis\" d=\"M{} {}V{}H{}\"/>\n<polyline class=\"high\" "
      "points=\"{}\"/>\n{}"
      "<text x=\"4\" y=\"{}\">{:.5g}</text><text x=\"4\" y=\"{}\">{:.5g}</text>"
      "<text x=\"{}\" y=\"{}\">{:.4g}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">cost "
      "{:.4g}</text>"
      "</svg>\n",
      kWidth, kHeight, kLeft, kEdge, kHeight - kBottom, kWidth - kEdge, curve, points, kEdge + 4,
      y1, kHeight - kBottom, y0, kLeft, kHeight - 12, x0, kWidth - kEdge, kHeight - 12, x1);
}

std::string tried_section(const ReportOptions& options) {
  if (options.tried.empty()) return "";
  std::string rows;
  for (const TriedNetwork& t : options.tried)
    rows +=
        fmt::format("<tr{}><td>{}</td><td>{:.6g}</td><td>{:.4g}</td><td>{}</td><td>{}</td></tr>\n",
                    t.chosen ? " class=\"chosen\"" : "", xml_text(t.name), t.score, t.cost,
                    human_bytes(t.bytes), t.on_curve ? "yes" : "");
  return fmt::format(
      "<section aria-labelledby=\"tried-title\">\n<h2 id=\"tried-title\">Networks that were "
      "tried</h2>\n{}"
      "<div class=\"scroll\" role=\"group\" aria-labelledby=\"tried-title\"><table><thead><tr><th "
      "scope=\"col\">Network</th><th scope=\"col\">{}</th><th scope=\"col\">Cost</th><th "
      "scope=\"col\">Size</th><th scope=\"col\">On the curve</th></tr></thead>\n<tbody>\n{}</tbody>"
      "</table></div>\n</section>\n",
      tried_picture(options), xml_text(options.score_name), rows);
}

}  // namespace

std::string html_report(const Comparison& c, const ReportOptions& options) {
  return detail::make_page(
      {{{"TITLE", "octet compare"},
        {"HEADING", "Float and quantized, layer by layer"},
        {"SECTIONS", tried_section(options) + "<section aria-labelledby=\"findings-title\">\n"
                                              "<h2 id=\"findings-title\">What is wrong</h2>\n<div "
                                              "id=\"findings\"></div>\n</section>\n"},
        {"ONE", "a layer"},
        {"MANY", "layers"},
        {"NOUN", "Layer"},
        {"TABLE", "Layers"},
        {"COLOUR", "SQNR"},
        {"JUMP", "Worst layer"},
        {"FILTER", "name, operator or finding"},
        {"FOOTER",
         "Noise: the share of the output's noise that this layer alone makes, its weights and the "
         "rounding of its result. SQNR: 20 log10 of signal over noise, within the quantized "
         "network; own: the quantized layer fed the float network's values. 6 dB are one bit."}},
       to_json(c, options, true),
       kReportScript});
}

std::string junit_report(const std::vector<Gate>& gates, const std::string& suite) {
  int64_t failures = 0;
  for (const Gate& gate : gates) failures += !gate.passed;
  std::string xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";
  xml += fmt::format(
      "<testsuites tests=\"{0}\" failures=\"{1}\">\n"
      "  <testsuite name=\"{2}\" tests=\"{0}\" failures=\"{1}\" errors=\"0\" skipped=\"0\">\n",
      gates.size(), failures, xml_text(suite));
  for (const Gate& gate : gates) {
    const std::string message = xml_text(gate.message);
    xml +=
        fmt::format("    <testcase classname=\"octet.compare\" name=\"{}\"", xml_text(gate.name));
    xml += gate.passed
               ? fmt::format(">\n      <system-out>{}</system-out>\n    </testcase>\n", message)
               : fmt::format(">\n      <failure message=\"{0}\">{0}</failure>\n    </testcase>\n",
                             message);
  }
  return xml + "  </testsuite>\n</testsuites>\n";
}

}  // namespace octet::debug
