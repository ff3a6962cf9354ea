#pragma once
// Layers on codes whose result stays float.

#include "octet/graph/graph.h"

namespace octet::graph {

// Rewrites linear layers and convolutions whose operand and constant weight are dequantized and
// whose result nothing quantizes (merge_qdq has left them: the last layer of many networks) into
// dynamic layers on the codes as they are, which multiply integers and write float32. A bias of
// int32 codes becomes floats. What stays is what the dynamic layer does not take: codes per channel
// of the operand, weights of other types. Those of a float operand and a constant dequantized
// weight become weight-only layers; weights of linear ones whose codes 4 bits hold have 4 bits.
Graph multiply_codes(const Graph& graph);

}  // namespace octet::graph
