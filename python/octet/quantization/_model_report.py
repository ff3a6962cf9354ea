"""Advice on how to quantize a model, from how data looks in it (torch.ao.quantization.fx._model_report)."""
from __future__ import annotations

from typing import Any, Iterable

from .. import _octet, _pages
from .._octet import (
    Detector as Detector, DynamicStaticDetector as DynamicStaticDetector,
    InputWeightEqualizationDetector as InputWeightEqualizationDetector, OutlierDetector as OutlierDetector,
    PerChannelDetector as PerChannelDetector, QConfigMapping)
from ..nn._graph import ObservedGraphModule


class ModelReport:
    """What detectors say of a prepared model; a page in notebooks.

        report = ModelReport(prepared, {DynamicStaticDetector(), OutlierDetector()})
        watched = report.prepare_detailed_calibration()
        for x in samples:
            watched(x)
        for text, layers in report.generate_model_report(remove_inserted_observers=True).values():
            print(text)
        better = prepare_fx(model, report.generate_qconfig_mapping(), (x,))
    """

    def __init__(self, model: ObservedGraphModule, desired_report_detectors: Iterable[Detector]) -> None:
        detectors = sorted(desired_report_detectors, key=lambda each: each.get_detector_name())
        self._report = _octet._ModelReport(model, detectors)
        self._last: dict[str, tuple[str, dict[str, dict[str, Any]]]] = {}

    def get_desired_reports_names(self) -> set[str]:
        return self._report.get_desired_reports_names()

    def get_observers_of_interest(self) -> dict[str, set[str]]:
        """By detector: the paths of the observers put in for it."""
        return self._report.get_observers_of_interest()

    def prepare_detailed_calibration(self) -> Any:
        """A copy of the prepared model with observers where the detectors want them; run it on samples."""
        return self._report.prepare_detailed_calibration()

    def generate_model_report(self, remove_inserted_observers: bool) -> dict[str, tuple[str, dict[str, dict[str, Any]]]]:
        """By detector: a text, and by layer its columns. `remove_inserted_observers`: this is the last report."""
        self._last = self._report.generate_model_report(remove_inserted_observers)
        return self._last

    def generate_qconfig_mapping(self) -> QConfigMapping:
        """What the detectors suggest for the layers, after a report."""
        return self._report.generate_qconfig_mapping()

    def generate_equalization_mapping(self) -> QConfigMapping:
        """The layers that gain from input-weight equalization, for prepare_equalization_fx; after a report."""
        return self._report.generate_equalization_mapping()

    def to_table(self, feature_filter: str = "", module_fqn_filter: str = "") -> str:
        """The last report as text: columns and paths that contain the filters."""
        return self._report.to_table(feature_filter, module_fqn_filter)

    def to_html(self) -> str:
        """The last report as a page."""
        if not self._last:
            _octet.fail("invalid_argument", "ModelReport.to_html: there is no report; call generate_model_report first")
        return _pages.model_report(self._last)

    def _repr_html_(self) -> str | None:
        return self.to_html() if self._last else None
