#pragma once
// Small graphs, written as text.

#include <map>
#include <string>

#include "octet/graph/graph.h"

namespace octet::testing {

// The graph with these lines.
inline graph::Graph parse_body(const std::string& body,
                               const std::map<std::string, Tensor>& constants = {}) {
  return graph::parse("graph g {\n" + body + "\n}\n", constants);
}

// One convolution, from %x to %y; its weight is %w.
inline const std::string kConvBody =
    "%x: Float(1, 2, 4, 4) = input\n%w: Float(2, 2, 1, 1) = constant [1, 2, 3, 4]\n"
    "%y: Float(1, 2, 4, 4) = conv2d(%x, %w)  @ net.conv\n";

// A line that gives a value of the shape of those.
inline std::string image(const std::string& name, const std::string& call) {
  return "%" + name + ": Float(1, 2, 4, 4) = " + call + "\n";
}

}  // namespace octet::testing
