"""Reports as pages of HTML: what notebooks show, and to_html() gives. Each page is one file that loads nothing."""
from __future__ import annotations

import html
import math
from typing import Any, Iterable, Sequence

from . import _octet

_STYLE = ("body{font:14px sans-serif;margin:1.5em;max-width:75em}table{border-collapse:collapse;margin:.7em 0}"
          "th,td{padding:.2em .7em;border-bottom:1px solid #8884;text-align:left;vertical-align:top}"
          "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}h2{font-size:1.1em;margin-top:1.4em}"
          "pre{background:#8881;padding:.7em}pre,.wide{overflow:auto}.share{white-space:nowrap}.bar{display:inline-block;height:.7em;background:#00897b}")


class _Markup(str):
    """Text that is HTML already."""


def _bar(share: float) -> _Markup:
    """A bar for a share of 0..1, with the figure."""
    if not math.isfinite(share):
        return _Markup("")
    return _Markup(f'<span class="share"><span class="bar" style="width:{8 * min(1.0, max(0.0, share)):.2f}em"></span> '
                   f"{100 * share:.1f}%</span>")


def _text(value: Any) -> str:
    if isinstance(value, _Markup):
        return value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_text(each) for each in value)
    return html.escape("" if value is None else str(value))


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    def cell(tag: str, value: Any) -> str:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        return f'<{tag}{" class=n" if number else ""}>{_text(value)}</{tag}>'

    body_rows = [list(row) for row in rows]
    shown = [i for i in range(len(columns)) if any(_text(row[i]) for row in body_rows)]  # columns without a word are left out
    head = "".join(cell("th", columns[i]) for i in shown)
    body = "".join("<tr>" + "".join(cell("td", row[i]) for i in shown) + "</tr>" for row in body_rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"<p>{html.escape(line)}</p>" for line in lines)


def _page(title: str, *parts: str) -> str:
    return (f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8"><title>{html.escape(title)}</title>'
            f"<style>{_STYLE}</style></head><body><h1>{html.escape(title)}</h1>{''.join(parts)}</body></html>")


def explanation(e: _octet.Explanation) -> str:
    def types(operands: Sequence[tuple[str, str]]) -> str:
        return ", ".join(type_ for _, type_ in operands)

    rows = [(s["name"], s["op"], types(s["inputs"]), types(s["outputs"]), s["numbers"], s["kernel"],
             1e6 * s["seconds"], _bar(s["share"]), s["why_float"] or s["note"]) for s in e.steps]
    return _page("What each step computed with", _lines(e.summary()), _lines(e.notes),
                 _table(("step", "operator", "inputs", "outputs", "numbers", "kernel", "µs", "of the time", "note"), rows))


def sensitivity(s: _octet.Sensitivity) -> str:
    rows = [(l["name"], l["op"], l["sqnr"], _bar(l["share"]), l["weight_bytes"], l["left_float"], l["reason"], l["sentence"])
            for l in s.layers]
    return _page("What each layer costs", _lines([f"method {s.method}; SQNR of the network with all layers in 8 bits: {s.all_sqnr:.1f} dB"]),
                 _table(("layer", "operator", "SQNR, dB", "share of the loss", "bytes of weights", "stays float", "why",
                         "finding"), rows))


def tune(r: _octet.TuneResult) -> str:
    best = r.best
    rows = [(t["name"], t["score"], t["cost"], t["left_float"], t["above"]) for t in r.trials]
    return _page("The best quantization by trial",
                 _lines([f"float {r.float_score:.4f}, bar {r.bar:.4f}, best {best['score']:.4f}: {best['name']}", *r.notes]),
                 _table(("trial", "score", "cost", "layers left float", "above the bar"), rows),
                 f"<h2>recipe</h2><pre>{html.escape(r.recipe)}</pre>")


def doctor(r: _octet.DoctorReport) -> str:
    rows = [(f["cause"], f["layer"], f["sentence"], f["before"], f["cures"][f["best"]]["what"] if f["best"] >= 0 else "",
             f["after"], f["kept"]) for f in r.findings]
    data = [f"the data: {r.data['what']}"] if r.data else []
    return _page("Why accuracy dropped",
                 _lines([f"SQNR of the outputs: {r.before:.1f} dB before, {r.after:.1f} dB after", *data, *r.notes]),
                 _table(("cause", "layer", "finding", "dB before", "cure", "dB with it", "kept"), rows),
                 f"<h2>recipe</h2><pre>{html.escape(r.recipe)}</pre>")


def model_report(reports: dict[str, tuple[str, dict[str, dict[str, Any]]]]) -> str:
    parts = []
    for detector, (text, layers) in reports.items():
        columns = list(dict.fromkeys(column for values in layers.values() for column in values))
        rows = [(path, *(values.get(column) for column in columns)) for path, values in layers.items()]
        parts += [f"<h2>{html.escape(detector)}</h2><pre>{html.escape(text)}</pre>", _table(("layer", *columns), rows)]
    return _page("Model report", *parts)


for _cls, _draw in ((_octet.Explanation, explanation), (_octet.Sensitivity, sensitivity), (_octet.TuneResult, tune),
                    (_octet.DoctorReport, doctor)):
    setattr(_cls, "to_html", _draw)
    setattr(_cls, "_repr_html_", _draw)
