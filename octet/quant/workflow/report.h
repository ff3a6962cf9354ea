#pragma once
// What a conversion did, and why it left the rest.

#include <string>
#include <vector>

namespace octet::quant {

// One line per node of a graph, or per module of a model: what happened to it and why.
struct ConversionReport {
  struct Entry {
    std::string node, op;  // in eager mode: the module's path and class
    bool quantized = false;
    std::string reason;  // why it stayed float; empty if it did not
  };
  std::vector<Entry> entries;
  std::vector<std::string> warnings;  // about qparams: "conv1.weight channel 3: all zeros; ..."
  int64_t quantized() const;
  // The nodes that stayed float, without those that only move data.
  std::vector<Entry> left_float() const;
};

// Error listing the nodes that stayed float, if any computes.
void require_nothing_left_float(const ConversionReport& report);

}  // namespace octet::quant
