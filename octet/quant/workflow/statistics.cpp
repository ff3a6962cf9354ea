#include "octet/quant/workflow/statistics.h"

#include "octet/base/check_impl.h"
#include "octet/base/digest.h"
#include "octet/base/json_impl.h"
#include "octet/quant/observe/factory.h"
#include "octet/quant/observe/min_max.h"
#include "octet/quant/observe/passive.h"

namespace octet::quant {
namespace {

// The observers that are shown values and keep something of them, by path.
std::map<std::string, Observer*> filled_observers(const ObservedGraphModule& prepared) {
  std::map<std::string, Observer*> all;
  // Finding modules changes none.
  for (const auto& [path, module] : const_cast<ObservedGraphModule&>(prepared).named_modules())
    if (auto* observer = dynamic_cast<Observer*>(module);
        observer && !observer->extra_state().empty() && !observer->empty())
      all[path] = observer;
  return all;
}

ObserverPtr copy_of(const Observer& observer) {
  return std::dynamic_pointer_cast<Observer>(observer.clone());
}

constexpr const char* kRanges = "ranges";
constexpr const char* kCounts = "ranges.counts";
constexpr int64_t kRangeFloats = 7, kRangeCounts = 5;

Json attrs_json(const Attrs& attrs) {
  Json json = Json::object();
  for (const auto& [name, value] : attrs) json[name] = octet::to_string(value);
  return json;
}

}  // namespace

CalibrationStatistics CalibrationStatistics::of(const ObservedGraphModule& prepared) {
  CalibrationStatistics s;
  for (const auto& [path, observer] : filled_observers(prepared))
    s.observers_[path] = copy_of(*observer);
  s.ranges_ = prepared.ranges();
  return s;
}

void CalibrationStatistics::merge(const CalibrationStatistics& other) {
  std::map<std::string, ObserverPtr> merged;
  for (const auto& [path, theirs] : other.observers_) {
    const auto mine = observers_.find(path);
    merged[path] = copy_of(mine == observers_.end() ? *theirs : *mine->second);
    if (mine != observers_.end()) merged[path]->merge(*theirs);
  }
  for (auto& [path, observer] : merged) observers_[path] = std::move(observer);
  ranges_.merge(other.ranges_);
}

void CalibrationStatistics::give_to(ObservedGraphModule& prepared) const {
  std::map<std::string, Observer*> theirs;
  for (const auto& [path, observer] : observers_) {
    OCTET_CHECK(prepared.has_submodule(path), not_found,
                "statistics are of an observer '{}', which the prepared network does not have",
                path);
    auto* to = dynamic_cast<Observer*>(prepared.submodule(path).get());
    OCTET_CHECK(
        to && to->class_type() == observer->class_type() && to->options() == observer->options(),
        invalid_argument, "statistics of '{}' are of {}({}); the prepared network has {}", path,
        observer->type_name(), to_string(observer->options()),
        to ? fmt::format("{}({})", to->type_name(), to_string(to->options())) : "no observer");
    theirs[path] = to;
  }
  forget_calibration(prepared);
  for (const auto& [path, observer] : observers_)
    theirs[path]->set_extra_state(observer->extra_state());
  prepared.set_ranges(ranges_);
}

std::map<std::string, Tensor> CalibrationStatistics::tensors() const {
  std::map<std::string, Tensor> all;
  for (const auto& [path, observer] : observers_)
    for (const auto& [key, tensor] : observer->extra_state()) all[path + "." + key] = tensor;
  std::vector<float> floats;
  std::vector<int64_t> counts;
  for (const auto& [value, r] : ranges_.by_value()) {
    for (const float f : {r.rest.min, r.rest.max, r.largest.min, r.largest.max, r.outliers.min,
                          r.outliers.max, r.outlier})
      floats.push_back(f);
    for (const int64_t n : {static_cast<int64_t>(value), r.largest_sample, r.outlier_sample,
                            r.values, r.outlier_count})
      counts.push_back(n);
  }
  const auto rows = static_cast<int64_t>(ranges_.by_value().size());
  all[kRanges] = Tensor::from(floats, {rows, kRangeFloats});
  all[kCounts] = Tensor::from(counts, {rows, kRangeCounts});
  return all;
}

std::string CalibrationStatistics::description() const {
  Json json = Json::object();
  for (const auto& [path, observer] : observers_)
    json[path] = {{"class", nn::registered_name(*observer)},
                  {"config", attrs_json(observer->config())}};
  return json.dump();
}

CalibrationStatistics CalibrationStatistics::from(const std::map<std::string, Tensor>& tensors,
                                                  std::string_view description) {
  CalibrationStatistics s;
  const JsonDocument document = parse_json(description, "calibration statistics");
  const Json& json = *document;
  OCTET_CHECK(json.is_object(), corrupt, "calibration statistics: expected an object, got {}",
              brief(json));
  std::map<std::string, std::map<std::string, Tensor>> states;
  for (const auto& [path, item] : json.items()) {
    const std::string where = fmt::format("calibration statistics: observer '{}'", path);
    OCTET_CHECK(item.is_object() && item.size() == 2 && item.contains("class") &&
                    item["class"].is_string() && item.contains("config") &&
                    item["config"].is_object(),
                corrupt, "{}: expected its class and config, got {}", where, brief(item));
    Attrs config;
    for (const auto& [name, value] : item["config"].items()) {
      OCTET_CHECK(value.is_string(), corrupt, "{}: '{}' is not a text", where, name);
      config.set(name, parse_attr(value.get_ref<const std::string&>()));
    }
    const auto made = nn::make_registered(item["class"].get<std::string>(), config);
    auto observer = std::dynamic_pointer_cast<Observer>(made);
    OCTET_CHECK(observer, corrupt, "{}: {} is no observer", where, brief(item["class"]));
    std::map<std::string, Tensor> state;
    for (const auto& [key, unset] : observer->extra_state()) {
      const auto found = tensors.find(path + "." + key);
      OCTET_CHECK(found != tensors.end(), corrupt, "{}: its {} is missing", where, key);
      state[key] = found->second;
    }
    observer->set_extra_state(state);
    s.observers_[path] = observer;
  }
  const auto floats = tensors.find(kRanges), counts = tensors.find(kCounts);
  OCTET_CHECK(floats != tensors.end() && counts != tensors.end() && floats->second.dim() == 2 &&
                  counts->second.dim() == 2 && floats->second.dtype() == DType::float32 &&
                  counts->second.dtype() == DType::int64 &&
                  floats->second.size(1) == kRangeFloats &&
                  counts->second.size(1) == kRangeCounts &&
                  floats->second.size(0) == counts->second.size(0),
              corrupt, "calibration statistics: the ranges of samples are missing or damaged");
  const auto f = floats->second.to_vector<float>();
  const auto n = counts->second.to_vector<int64_t>();
  for (size_t i = 0, j = 0; i < f.size(); i += kRangeFloats, j += kRangeCounts)
    s.ranges_.set(static_cast<graph::ValueId>(n[j]), {.rest = {f[i], f[i + 1]},
                                                      .largest = {f[i + 2], f[i + 3]},
                                                      .largest_sample = n[j + 1],
                                                      .outliers = {f[i + 4], f[i + 5]},
                                                      .outlier = f[i + 6],
                                                      .outlier_sample = n[j + 2],
                                                      .values = n[j + 3],
                                                      .outlier_count = n[j + 4]});
  return s;
}

void forget_calibration(ObservedGraphModule& prepared) {
  for (const auto& [path, observer] : filled_observers(prepared)) observer->reset();
  prepared.set_ranges({});
  prepared.set_next_sample(0);
}

std::string order_dependent_observer(const ObservedGraphModule& prepared) {
  for (const auto& [path, module] : const_cast<ObservedGraphModule&>(prepared).named_modules())
    if (dynamic_cast<const MovingAverageMinMaxObserver*>(module) ||
        dynamic_cast<const MovingAveragePerChannelMinMaxObserver*>(module) ||
        dynamic_cast<const RecordingObserver*>(module))
      return path;
  return "";
}

std::string digest_of(const ObservedGraphModule& prepared) {
  auto& network = const_cast<ObservedGraphModule&>(prepared);  // nothing is changed
  Digest digest;
  digest.add(graph::print(prepared.graph()));
  for (const auto& [name, tensor] : network.state_dict()) {
    const Tensor dense = tensor.detach().contiguous();
    digest.add(name).add(dense.raw_data(), static_cast<size_t>(dense.nbytes()));
  }
  for (const auto& [path, module] : network.named_modules())
    if (const auto* observer = dynamic_cast<const Observer*>(module))
      digest.add(
          fmt::format("{} {} {}", path, observer->type_name(), to_string(observer->options())));
  return digest.text();
}

}  // namespace octet::quant
