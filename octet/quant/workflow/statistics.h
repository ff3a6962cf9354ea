#pragma once
// What calibration has seen, as a value: for calibrating in parts, one after the other or on
// several machines. The observers of parts merge to those of all samples, to the last bit, in any
// order.
//
//   auto a = quant::prepare_fx(graph, quant::get_default_qconfig());
//   auto b = quant::prepare_fx(graph, quant::get_default_qconfig());
//   (*a)(data.at(0));  // on one machine
//   (*b)(data.at(1));  // on another
//   auto all = quant::CalibrationStatistics::of(*a);
//   all.merge(quant::CalibrationStatistics::of(*b));
//   all.give_to(*a);  // as if it had been shown both
//   graph::Graph int8 = quant::convert_fx(a)->graph();

#include <map>
#include <string>
#include <string_view>

#include "octet/quant/workflow/fx.h"

namespace octet::quant {

class CalibrationStatistics {
 public:
  CalibrationStatistics() = default;  // of no samples
  // Copies what the observers of `prepared` hold, and its ranges().
  static CalibrationStatistics of(const ObservedGraphModule& prepared);

  // Adds what `other`, of the same prepared network, has seen of other samples. Error
  // invalid_argument, with nothing changed, where observers of one path differ in class, options or
  // channels.
  void merge(const CalibrationStatistics& other);
  // `prepared` has seen this and nothing else from now on. Error not_found for a path that is no
  // observer there, invalid_argument for one of another class or with other options.
  void give_to(ObservedGraphModule& prepared) const;
  bool empty() const { return observers_.empty() && ranges_.by_value().empty(); }

  // As named tensors and a JSON text, and back: what files and messages hold. Error corrupt, naming
  // the observer, where they are not what these functions gave.
  std::map<std::string, Tensor> tensors() const;
  std::string description() const;
  static CalibrationStatistics from(const std::map<std::string, Tensor>& tensors,
                                    std::string_view description);

  const std::map<std::string, ObserverPtr>& observers() const { return observers_; }  // by path

 private:
  std::map<std::string, ObserverPtr> observers_;  // own copies
  SampleRanges ranges_;
};

// Forgets all that `prepared` has seen in eval mode.
void forget_calibration(ObservedGraphModule& prepared);

// The first observer, by path, whose qparams depend on the order of batches and how samples are cut
// into them (moving averages, recordings); "" if there is none: then parts merge exactly.
std::string order_dependent_observer(const ObservedGraphModule& prepared);

// Differs where graph, constants, observers or their options do: whose statistics fit together. Ask
// before calibration, which changes it.
std::string digest_of(const ObservedGraphModule& prepared);

}  // namespace octet::quant
