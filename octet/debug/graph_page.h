#pragma once
// A typed graph as a page for a browser.
//
//   auto page = [](const graph::Graph& g) { std::cout << debug::html_graph(g, "net.octet"); };

#include <string>

#include "octet/graph/graph.h"

namespace octet::debug {

// One file that needs no network: how many operators of each kind run in 8 bits and what their
// weights take, the graph as a picture, a table, and for each node the types of its operands and
// results, its attributes, and why it computes in float. `name` is the heading's. UTF-8.
std::string html_graph(const graph::Graph& graph, const std::string& name);

}  // namespace octet::debug
