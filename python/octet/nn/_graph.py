"""Graphs as modules: what trace, prepare_fx and convert_fx give."""
from __future__ import annotations

from typing import Any, Sequence

from .. import _octet
from .._octet import Graph
from ._module import Module, _classes, example_tensors


class GraphModule(Module):
    """A graph that is called as a module: its operators one by one, recorded for gradients."""

    _registered = "octet::graph::GraphModule"

    def __init__(self, graph: Graph) -> None:
        made: Module = _octet.graph_module(graph)
        self._adopt(made._m.clone())

    @property
    def graph(self) -> Graph:
        """The structure: calls of operators and of the modules it holds."""
        return self._m.graph()

    def to_graph(self) -> Graph:
        """The graph of operators, with the parameters as they are now: what is compiled, saved and exported."""
        return self._m.to_graph()

    def _repr_html_(self) -> str:
        return self.to_graph()._repr_html_()


class ObservedGraphModule(GraphModule):
    """A graph with observers: calling it calibrates."""

    _registered = "octet::quant::ObservedGraphModule"

    def __init__(self) -> None:
        raise TypeError("prepare_fx makes ObservedGraphModules")

    @property
    def qconfig_map(self) -> dict[str, _octet.QConfig | None]:
        """The QConfig of each call, by the name of its result."""
        return _octet._qconfig_map(self._m)

    @property
    def node_name_to_scope(self) -> dict[str, tuple[str, str]]:
        """The path and class of the module that makes each call."""
        return _octet._node_name_to_scope(self._m)

    def float_graph(self) -> Graph:
        """The graph without its observers, with the weights as they are now: what algorithms that change weights take as
        `float_graph` when others have changed them before."""
        return _octet._float_graph(self._m)


def trace(model: Module, example_inputs: Any, leaf_modules: Sequence[str] = ()) -> GraphModule:
    """What the model calls, written down: its forward is run on tensors without numbers. `leaf_modules`: paths of
    modules of your own whose calls stay calls."""
    return _octet._trace(model, example_tensors(model, example_inputs), list(leaf_modules))  # type: ignore[no-any-return]


_classes.update({GraphModule._registered: GraphModule, ObservedGraphModule._registered: ObservedGraphModule})
__all__ = ["GraphModule", "ObservedGraphModule", "trace"]
