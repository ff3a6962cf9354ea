#include "octet/debug/report_page_impl.h"

namespace octet::debug::detail {

const char* const kReportPage = R"page(<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>octet compare</title>
<style>
@STYLE@</style>
</head>
<body>
<a class="skip" href="#layers">Skip to the table of layers</a>
<header>
<h1>Float and quantized, layer by layer</h1>
<p id="models" class="quiet"></p>
</header>
<main>
<noscript><p>This page draws its contents with JavaScript, which is switched off.</p></noscript>
<section aria-labelledby="summary-title">
<h2 id="summary-title">Summary</h2>
<div class="scroll" id="summary"></div>
</section>
<section aria-labelledby="findings-title">
<h2 id="findings-title">What is wrong</h2>
<div id="findings"></div>
</section>
<section aria-labelledby="graph-title" class="graph">
<h2 id="graph-title">Graph</h2>
<div class="bar">
<button type="button" id="zoom-in">Zoom in</button>
<button type="button" id="zoom-out">Zoom out</button>
<button type="button" id="fit">Whole graph</button>
<button type="button" id="worst">Worst layer</button>
<span id="legend" class="legend"></span>
</div>
<canvas id="graph" tabindex="0" role="application" aria-label="The graph of layers, coloured by SQNR. Arrow keys go from layer to layer; plus and minus zoom; 0 shows all. The table below has the same contents." aria-describedby="graph-help"></canvas>
<p id="graph-help" class="quiet">Drag to move, turn the wheel or pinch to zoom, click a layer for its details. Keys: arrows go from layer to layer along the graph, + and - zoom, 0 shows all.</p>
<p id="announce" class="unseen" aria-live="polite"></p>
</section>
<section aria-labelledby="detail-title" id="detail" tabindex="-1">
<h2 id="detail-title">Layer</h2>
<div id="detail-body"></div>
</section>
<section aria-labelledby="layers-title" id="layers">
<h2 id="layers-title">Layers</h2>
<div class="bar">
<label for="filter">Show layers whose name, operator or finding contains</label>
<input id="filter" type="search" autocomplete="off">
<span id="shown" class="quiet" aria-live="polite"></span>
</div>
<div class="scroll"><table id="table">
<thead><tr id="heads"><th scope="col">Layer</th></tr></thead>
<tbody id="rows"><tr><td></td></tr></tbody>
</table></div>
<p><button type="button" id="more">Show more rows</button></p>
</section>
</main>
<footer class="quiet"><p>Noise: the share of the output's noise that this layer alone makes, its weights and the rounding of its result. SQNR: 20 log10 of signal over noise, within the quantized network; own: the quantized layer fed the float network's values. 6 dB are one bit.</p></footer>
<script type="application/json" id="data">@DATA@</script>
<script>
@SCRIPT@</script>
</body>
</html>
)page";

const char* const kReportStyle = R"page(:root {
  --page: #ffffff; --text: #1b1f24; --quiet: #535c66; --line: #c9d0d8; --panel: #f4f6f8;
  --link: #0b57a4; --bad: #a3260f; --good: #17652f; --bar: #3f7fb8; --cut: #c2410c; --grid: #e3edf6;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --text: #e8eaed; --quiet: #a9b1ba; --line: #3d454d; --panel: #1d2226;
    --link: #7cb9f2; --bad: #ff9d85; --good: #7fd39a; --bar: #6fb1e8; --cut: #ff9a55; --grid: #24384a;
  }
}
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1rem 1.5rem 3rem; max-width: 84rem; background: var(--page); color: var(--text);
  font: 15px/1.5 system-ui, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.5rem; margin: 0.5rem 0 0; }
h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; }
h3 { font-size: 1rem; margin: 0 0 0.4rem; }
p { margin: 0.4rem 0; }
.quiet { color: var(--quiet); }
.bad { color: var(--bad); font-weight: 600; }
.good { color: var(--good); font-weight: 600; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: 0.5rem; background: var(--page); padding: 0.5rem; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.7rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child, .text { text-align: left; }
thead th { background: var(--panel); position: sticky; top: 0; }
td.wide { white-space: normal; min-width: 14rem; text-align: left; }
tr.chosen td { background: var(--grid); }
#table { width: 100%; }
button, input { font: inherit; color: inherit; background: var(--panel); border: 1px solid var(--quiet);
  border-radius: 4px; padding: 0.2rem 0.7rem; }
button:hover { border-color: var(--link); }
:focus-visible { outline: 3px solid var(--link); outline-offset: 1px; }
button.plain { border: 0; padding: 0; background: none; color: var(--link); text-align: left; text-decoration: underline; cursor: pointer;
  overflow-wrap: anywhere; }
thead button { border: 0; background: none; padding: 0; font-weight: 600; cursor: pointer; }
.bar { display: flex; flex-wrap: wrap; gap: 0.5rem; align-items: center; margin-bottom: 0.5rem; }
.legend { display: flex; flex-wrap: wrap; gap: 0.3rem 0.8rem; font-size: 0.87rem; margin-left: auto; }
.legend i { display: inline-block; width: 1rem; height: 0.8rem; border-radius: 3px; margin-right: 0.3rem; vertical-align: -0.05rem;
  border: 1px solid var(--quiet); }
canvas { display: block; width: 100%; height: 26rem; border: 1px solid var(--line); border-radius: 6px; background: var(--panel);
  touch-action: none; cursor: grab; }
#findings ol { padding-left: 1.9rem; margin: 0; }
#findings li { margin: 0.35rem 0; }
.panels { display: grid; grid-template-columns: repeat(auto-fit, minmax(21rem, 1fr)); gap: 1rem; align-items: start; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 6px; padding: 0.8rem 1rem; min-width: 0; overflow-x: auto; }
.panel table { width: 100%; font-size: 0.93rem; }
.panel th, .panel td { white-space: normal; padding: 0.2rem 0.4rem; }
.panel tbody th { font-weight: 400; }
.panel td { white-space: nowrap; }
svg { display: block; width: 100%; height: auto; }
svg text { fill: var(--text); font: 11.5px system-ui, "DejaVu Sans", sans-serif; }
svg .axis { stroke: var(--quiet); fill: none; }
svg .in { fill: var(--bar); } svg .out { fill: var(--cut); } svg .codes { fill: var(--grid); }
svg .low, svg .high { fill: none; stroke: var(--bar); stroke-width: 2; } svg .low { stroke-dasharray: 5 3; }
svg .limit { stroke: var(--cut); stroke-dasharray: 2 3; fill: none; }
@media print {
  :root { --page: #ffffff; --text: #000000; --quiet: #444444; --line: #bbbbbb; --panel: #ffffff; --link: #000000;
    --bad: #8a1f0c; --good: #14532a; --bar: #3f7fb8; --cut: #c2410c; --grid: #e3edf6; }
  body { padding: 0; max-width: none; font-size: 10.5pt; }
  .bar button, .bar label, .bar input, #graph-help, #more, .skip { display: none; }
  thead th { position: static; }
  .scroll { overflow: visible; }
  #table { font-size: 8pt; } #table th, #table td { padding: 0.15rem 0.3rem; white-space: normal; }
  td.wide { min-width: 0; }
  tr, .panel, canvas, li { break-inside: avoid; }
  h2 { break-after: avoid; }
}
)page";

const char* const kReportScript = R"page('use strict';
window.addEventListener('error', e => { document.documentElement.dataset.error = e.message; });
(() => {
const data = JSON.parse(document.getElementById('data').textContent);
const layers = data.layers;
const $ = id => document.getElementById(id);
const make = (tag, attrs, ...children) => {
  const e = document.createElement(tag);
  for (const k in attrs || {}) if (attrs[k] != null) k === 'onclick' ? e.addEventListener('click', attrs[k]) : e.setAttribute(k, attrs[k]);
  e.append(...children.filter(c => c != null));
  return e;
};
const db = v => v == null ? '-' : typeof v === 'string' ? v : v.toFixed(1);
const dbs = v => typeof v === 'number' ? db(v) + ' dB' : db(v);
const share = v => v == null ? '-' : v > 0 && v < 0.0005 ? '<0.1%' : (100 * v).toFixed(1) + '%';
const short = v => v == null ? '-' : typeof v === 'string' ? v : String(+v.toPrecision(4));
const bytes = n => n >= 1e6 ? (n / 1e6).toFixed(1) + ' MB' : n >= 1e3 ? (n / 1e3).toFixed(1) + ' KB' : n + ' B';
const signed = v => (v > 0 ? '+' : '') + v;
const level = v => v === 'exact' ? 1e9 : v === 'none' ? -1e9 : v;

// -- summary and findings --
$('models').textContent = data.quantized + ' beside ' + data.float + '; ' + data.samples + ' samples' + (data.data ? ' of ' + data.data : '');
document.title = data.quantized + ' beside ' + data.float;
{
  const body = make('tbody');
  const row = (name, a, b, note, mark) => body.append(make('tr', {}, make('th', {scope: 'row', class: 'text'}, name),
    make('td', {}, a), make('td', {}, b), make('td', {class: 'text' + (mark ? ' ' + mark : '')}, note)));
  if (data.float_top1 != null)
    row('Top-1', share(data.float_top1), share(data.quantized_top1),
        signed((-data.drop_points).toFixed(2)) + ' points', data.drop_points > 1 ? 'bad' : 'good');
  if (data.agreement != null) row('Same first class', '', share(data.agreement), 'of the samples');
  for (const o of data.outputs) row('SQNR of ' + o.name, '', dbs(o.sqnr_db),
    'largest error ' + short(o.max_error) + ', cosine ' + short(o.cosine));
  if (data.float_weight_bytes) row('Weights', bytes(data.float_weight_bytes), bytes(data.quantized_weight_bytes),
    (data.float_weight_bytes / data.quantized_weight_bytes).toFixed(2) + ' times smaller');
  if (data.float_memory_bytes) row('Memory for values', bytes(data.float_memory_bytes), bytes(data.quantized_memory_bytes), 'one sample');
  if (data.float_ms) row('Latency', data.float_ms.toFixed(3) + ' ms', data.quantized_ms.toFixed(3) + ' ms',
    data.speedup >= 1 ? data.speedup.toFixed(2) + ' times faster' : (1 / data.speedup).toFixed(2) + ' times slower',
    data.speedup >= 1 ? 'good' : 'bad');
  $('summary').append(make('table', {}, make('thead', {}, make('tr', {}, make('td', {}), make('th', {scope: 'col'}, 'Float'),
    make('th', {scope: 'col'}, 'Quantized'), make('td', {}))), body));
}
const order = data.ranking;
const rankOf = new Map(order.map((l, r) => [l, r]));
const best = l => (layers[l].trials || [])[0];
{
  const wrong = order.filter(l => layers[l].fault);
  const list = make('ol');
  const shown = wrong.slice(0, 10);
  for (const l of shown) {
    const t = best(l);
    list.append(make('li', {}, make('button', {type: 'button', class: 'plain', onclick: () => choose(l, true)}, layers[l].name),
      ' (' + layers[l].op + '): ', make('strong', {}, layers[l].fault), '; ' + layers[l].sentence + '.',
      t && (t.gain_db > 0.1 || t.speedup) ? make('span', {class: 'good'}, ' Tried: ' + t.what + ', ' + signed(db(t.gain_db)) + ' dB at the output' +
        (t.speedup ? `, ${t.speedup.toFixed(2)} times as fast.` : '.')) : null));
  }
  const none = 'No layer has a fault: what there is of noise comes from rounding to 8 bits.';
  $('findings').append(wrong.length ? list : make('p', {}, none));
  if (wrong.length > shown.length) $('findings').append(make('p', {class: 'quiet'}, 'and ' + (wrong.length - shown.length) + ' more, in the table'));
  const helped = order.filter(l => !layers[l].fault && best(l) && best(l).gain_db > 0.3).slice(0, 5);
  const all = (data.trials || []).filter(t => t.gain_db > 0.3)[0];
  if (helped.length || all) {
    const gains = make('ul');
    if (all) gains.append(make('li', {}, make('span', {class: 'good'}, all.what + ' gives ' + signed(db(all.gain_db)) + ' dB at the output')));
    for (const l of helped) gains.append(make('li', {}, make('button', {type: 'button', class: 'plain', onclick: () => choose(l, true)}, layers[l].name),
      ': ' + best(l).what + ' gives ' + signed(db(best(l).gain_db)) + ' dB at the output'));
    $('findings').append(make('h3', {}, 'What was tried and helps'), gains);
  }
}

// -- colours: by SQNR, always with the number beside --
const kinds = [
  {from: 40, text: '40 dB and more', fill: '#1a5e9a', ink: '#ffffff'},
  {from: 30, text: '30 to 40', fill: '#7fb6e0', ink: '#101418'},
  {from: 20, text: '20 to 30', fill: '#e6dfcb', ink: '#101418'},
  {from: 10, text: '10 to 20', fill: '#f0a35e', ink: '#101418'},
  {from: -Infinity, text: 'under 10', fill: '#a3260f', ink: '#ffffff'}];
const kindOf = l => layers[l].sqnr_db == null ? null : kinds.find(k => level(layers[l].sqnr_db) >= k.from);
for (const k of kinds) $('legend').append(make('span', {}, make('i', {style: 'background:' + k.fill, 'aria-hidden': 'true'}, '\u00a0'), k.text));
$('legend').append(make('span', {}, '! has a fault'), make('span', {}, 'f32: computes in float'));

// -- the graph: layers from left to right by how many are before them --
const W = 168, H = 46, DX = 214, DY = 66;
const readers = layers.map(() => []);
const depth = layers.map(() => 0);
layers.forEach((l, i) => {
  l.operands = [...new Set(l.operands)];
  for (const o of l.operands) { readers[o].push(i); depth[i] = Math.max(depth[i], depth[o] + 1); }
});
// An input stands right before its first reader.
layers.forEach((l, i) => { if (!l.operands.length && readers[i].length) depth[i] = Math.max(0, Math.min(...readers[i].map(r => depth[r])) - 1); });
const columns = [];
depth.forEach((d, i) => (columns[d] = columns[d] || []).push(i));
const X = new Float64Array(layers.length), Y = new Float64Array(layers.length);
for (let d = 0; d < columns.length; ++d) {
  const column = columns[d] || (columns[d] = []);
  const wish = new Map(column.map(i => [i, layers[i].operands.length ? layers[i].operands.reduce((s, o) => s + Y[o], 0) / layers[i].operands.length : 0]));
  column.sort((a, b) => wish.get(a) - wish.get(b) || a - b);
  // As near to its operands as the one above allows; then all of them back by half of what was pushed.
  let last = -Infinity, pushed = 0;
  for (const i of column) { Y[i] = Math.max(wish.get(i), last + DY); last = Y[i]; pushed = Math.max(pushed, Y[i] - wish.get(i)); X[i] = d * DX; }
  for (const i of column) Y[i] -= pushed / 2;
}
// A long graph is folded into rows, as a text is into lines, so that all of it fills the picture.
const rowOf = new Int32Array(columns.length), rows = [];
{
  const tall = columns.reduce((sum, c) => sum + (c.length - 1) * DY + H, 0) / Math.max(1, columns.length) + 90;
  const most = Math.max(6, Math.ceil(Math.sqrt(3 * columns.length * tall / DX)));
  let first = 0, base = 0;
  for (let d = 0; d < columns.length; ++d) {
    const n = d + 1 - first, end = d + 1 === columns.length;
    // Best behind a column of one layer.
    if (!end && n < most && !(n >= 0.8 * most && columns[d].length === 1 && columns[d + 1].length === 1)) continue;
    let least = Infinity, greatest = -Infinity;
    for (let k = first; k <= d; ++k) for (const i of columns[k]) { least = Math.min(least, Y[i]); greatest = Math.max(greatest, Y[i] + H); }
    for (let k = first; k <= d; ++k) { rowOf[k] = rows.length; for (const i of columns[k]) { X[i] = (k - first) * DX; Y[i] += base - least; } }
    rows.push({first, last: d, top: base, bottom: base + greatest - least});
    base += greatest - least + 70;
    first = d + 1;
  }
}
const top = 0, bottom = rows.length ? rows[rows.length - 1].bottom : 0;
const width = Math.max(W, ...rows.map(r => (r.last - r.first) * DX + W)), height = bottom - top;
const edges = [];
layers.forEach((l, i) => l.operands.forEach(o => edges.push([o, i])));

const canvas = $('graph'), pen = canvas.getContext('2d');
let scale = 1, left = 0, up = 0, chosen = -1, waiting = false, printing = false;
const tone = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
let tones = {};
const readTones = () => { for (const t of ['--panel', '--text', '--quiet', '--link', '--bad', '--page']) tones[t] = tone(t); };
const redraw = () => { if (!waiting) { waiting = true; requestAnimationFrame(() => { waiting = false; draw(); }); } };
const clipText = (text, most) => {
  if (pen.measureText(text).width <= most) return text;
  let n = text.length;
  while (n > 1 && pen.measureText('\u2026' + text.slice(-n)).width > most) --n;
  return '\u2026' + text.slice(-n);
};
function draw() {
  const ratio = window.devicePixelRatio || 1, w = canvas.clientWidth, h = canvas.clientHeight;
  if (!w) return;
  if (canvas.width !== Math.round(w * ratio) || canvas.height !== Math.round(h * ratio)) {
    canvas.width = Math.round(w * ratio); canvas.height = Math.round(h * ratio);
  }
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  pen.fillStyle = tones['--panel'];
  pen.fillRect(0, 0, w, h);
  pen.setTransform(ratio * scale, 0, 0, ratio * scale, -left * scale * ratio, -up * scale * ratio);
  const x0 = left - 4, x1 = left + w / scale + 4, y0 = up - 4, y1 = up + h / scale + 4;
  // Only what is to be seen.
  pen.lineWidth = Math.max(1.3, 0.7 / scale);
  pen.strokeStyle = tones['--quiet'];
  pen.beginPath();
  for (const [a, b] of edges) {
    const ax = X[a] + W, ay = Y[a] + H / 2, bx = X[b], by = Y[b] + H / 2;
    if (Math.max(ay, by) + H < y0 || Math.min(ay, by) - H > y1 || Math.max(ax, bx + W) < x0 || Math.min(ax - W, bx) > x1) continue;
    pen.moveTo(ax, ay);
    if (rowOf[depth[a]] !== rowOf[depth[b]]) {  // from one row to another: down at the right, in from the left
      const lane = rows[rowOf[depth[b]]].top - 22;
      pen.bezierCurveTo(ax + 40, ay, ax + 40, lane, ax - 10, lane);
      pen.lineTo(bx + 10, lane);
      pen.bezierCurveTo(bx - 40, lane, bx - 40, by, bx, by);
      continue;
    }
    const mid = Math.min(60, (bx - ax) / 2);
    if (depth[b] - depth[a] > 1 && Math.abs(ay - by) < DY / 2) {  // around what is between
      const over = Math.min(ay, by) - H;
      pen.bezierCurveTo(ax + mid, over, bx - mid, over, bx, by);
    } else pen.bezierCurveTo(ax + mid, ay, bx - mid, by, bx, by);
  }
  pen.stroke();
  const legible = scale > 0.42;
  for (const row of rows) if (row.top <= y1 && row.bottom >= y0)
  for (let d = row.first + Math.max(0, Math.floor((x0 - W) / DX)), end = Math.min(row.last, row.first + Math.ceil(x1 / DX)); d <= end; ++d) for (const i of columns[d]) {
    if (Y[i] > y1 || Y[i] + H < y0) continue;
    const l = layers[i], kind = kindOf(i);
    pen.beginPath();
    if (legible && pen.roundRect) pen.roundRect(X[i], Y[i], W, H, l.quantized ? 10 : 0); else pen.rect(X[i], Y[i], W, H);
    pen.fillStyle = kind ? kind.fill : tones['--page'];
    pen.fill();
    pen.lineWidth = i === chosen ? Math.max(4, 2.5 / scale) : l.fault ? Math.max(3, 1.6 / scale) : 1;
    pen.strokeStyle = i === chosen ? tones['--text'] : l.fault ? tones['--bad'] : tones['--quiet'];
    pen.setLineDash(kind ? [] : [5, 3]);
    pen.stroke();
    pen.setLineDash([]);
    if (!legible) continue;
    pen.fillStyle = kind ? kind.ink : tones['--text'];
    pen.font = '600 13px system-ui, "DejaVu Sans", sans-serif';
    pen.fillText(clipText((l.fault ? '! ' : '') + l.name, W - 16), X[i] + 8, Y[i] + 19);
    pen.font = '12px system-ui, "DejaVu Sans", sans-serif';
    const mark = l.quantized || l.op === 'input' ? '' : ' f32';
    pen.fillText(clipText(l.op + mark + (l.sqnr_db == null ? '' : ', ' + dbs(l.sqnr_db)), W - 16), X[i] + 8, Y[i] + 37);
  }
}
const zoom = (factor, cx, cy) => {
  const w = canvas.clientWidth, h = canvas.clientHeight;
  cx = cx == null ? w / 2 : cx; cy = cy == null ? h / 2 : cy;
  const next = Math.min(3, Math.max(Math.min(0.005, fitScale()), scale * factor));
  left += cx / scale - cx / next; up += cy / scale - cy / next; scale = next;
  redraw();
};
const fitScale = () => Math.min(1.2, canvas.clientWidth / (width + 40), canvas.clientHeight / (height + 40));
const fit = () => { scale = fitScale(); left = width / 2 - canvas.clientWidth / scale / 2; up = top + height / 2 - canvas.clientHeight / scale / 2; redraw(); };
const center = i => {
  const w = canvas.clientWidth / scale, h = canvas.clientHeight / scale;
  left = X[i] + W / 2 - w / 2; up = Y[i] + H / 2 - h / 2;
  // Without empty space at the ends of a graph that is longer than what is seen.
  if (width + 40 > w) left = Math.min(Math.max(left, -20), width + 20 - w);
  if (height + 40 > h) up = Math.min(Math.max(up, -20), height + 20 - h);
  redraw();
};
const bringIn = i => {
  const w = canvas.clientWidth / scale, h = canvas.clientHeight / scale;
  if (X[i] < left || X[i] + W > left + w || Y[i] < up || Y[i] + H > up + h) center(i); else redraw();
};
$('zoom-in').onclick = () => zoom(1.4);
$('zoom-out').onclick = () => zoom(1 / 1.4);
$('fit').onclick = fit;
$('worst').onclick = () => { if (order.length) { scale = Math.max(scale, 0.8); choose(order[0]); center(order[0]); } };
canvas.addEventListener('wheel', e => { e.preventDefault(); const r = canvas.getBoundingClientRect(); zoom(Math.exp(-e.deltaY * 0.0015), e.clientX - r.left, e.clientY - r.top); }, {passive: false});
const fingers = new Map();
let moved = 0;
canvas.addEventListener('pointerdown', e => { canvas.setPointerCapture(e.pointerId); fingers.set(e.pointerId, [e.clientX, e.clientY]); moved = 0; });
canvas.addEventListener('pointermove', e => {
  const before = fingers.get(e.pointerId);
  if (!before) return;
  const others = [...fingers].filter(([id]) => id !== e.pointerId).map(([, at]) => at);
  if (others.length) {
    const r = canvas.getBoundingClientRect(), [ox, oy] = others[0];
    const was = Math.hypot(before[0] - ox, before[1] - oy), is = Math.hypot(e.clientX - ox, e.clientY - oy);
    if (was > 0) zoom(is / was, ox - r.left, oy - r.top);
  } else { left -= (e.clientX - before[0]) / scale; up -= (e.clientY - before[1]) / scale; redraw(); }
  moved += Math.abs(e.clientX - before[0]) + Math.abs(e.clientY - before[1]);
  fingers.set(e.pointerId, [e.clientX, e.clientY]);
});
const lift = e => { fingers.delete(e.pointerId); };
canvas.addEventListener('pointercancel', lift);
canvas.addEventListener('pointerup', e => {
  lift(e);
  if (moved > 5) return;
  const r = canvas.getBoundingClientRect(), x = (e.clientX - r.left) / scale + left, y = (e.clientY - r.top) / scale + up;
  const row = rows.find(r => y >= r.top && y <= r.bottom), d = row ? row.first + Math.floor(x / DX) : -1;
  const hit = (row && d <= row.last && columns[d] || []).find(i => x >= X[i] && x <= X[i] + W && y >= Y[i] && y <= Y[i] + H);
  if (hit != null) choose(hit);
});
canvas.addEventListener('keydown', e => {
  const column = chosen >= 0 ? columns[depth[chosen]] : null, at = column ? column.indexOf(chosen) : -1;
  let next = null;
  if (e.key === 'ArrowRight') next = chosen < 0 ? 0 : readers[chosen][0];
  else if (e.key === 'ArrowLeft') next = chosen < 0 ? 0 : layers[chosen].operands[0];
  else if (e.key === 'ArrowDown') next = column ? column[at + 1] : 0;
  else if (e.key === 'ArrowUp') next = column ? column[at - 1] : 0;
  else if (e.key === '+' || e.key === '=') zoom(1.4);
  else if (e.key === '-') zoom(1 / 1.4);
  else if (e.key === '0') fit();
  else return;
  e.preventDefault();
  if (next != null && layers[next]) { choose(next); bringIn(next); }
});

// -- one layer --
const svgNs = 'http://www.w3.org/2000/svg';
const svg = (tag, attrs, text) => { const e = document.createElementNS(svgNs, tag); for (const k in attrs) e.setAttribute(k, attrs[k]); if (text != null) e.textContent = text; return e; };
function histogram(l) {
  const w = 340, h = 190, base = h - 34, span = data.bin || 1;
  const root = svg('svg', {viewBox: `0 0 ${w} ${h}`, role: 'img'});
  const codes = l.codes, low = 128, high = 128 + codes;
  const from = Math.min(low, l.first) - 4, to = Math.max(high, l.first + l.histogram.length * span) + 4;
  const at = b => 8 + (b - from) / (to - from) * (w - 16);
  const most = Math.log1p(Math.max(...l.histogram));
  root.append(svg('title', {}, `Values of ${l.name} by code, counts on a logarithmic scale; ${share(l.clipped)} lie beyond the codes`));
  root.append(svg('rect', {class: 'codes', x: at(low), y: 6, width: at(high) - at(low), height: base - 6}));
  let inside = '', outside = '';
  l.histogram.forEach((n, k) => {
    if (!n) return;
    const b = l.first + k * span, y = base - Math.log1p(n) / most * (base - 14);
    const bar = `M${at(b).toFixed(1)} ${base}V${y.toFixed(1)}H${Math.max(at(b + span), at(b) + 0.7).toFixed(1)}V${base}Z`;
    b >= low && b < high ? inside += bar : outside += bar;
  });
  root.append(svg('path', {class: 'in', d: inside}), svg('path', {class: 'out', d: outside}));
  root.append(svg('path', {class: 'axis', d: `M8 ${base}H${w - 8}M${at(low)} 6V${base + 5}M${at(high)} 6V${base + 5}`}));
  const value = b => short((b - 128 + l.quant_min - l.zero_point) * l.scale);
  const mark = (b, anchor) => root.append(svg('text', {x: at(b), y: h - 18, 'text-anchor': anchor}, value(b)));
  mark(low, 'middle'); mark(high, 'middle');
  const zero = 128 - l.quant_min + l.zero_point;
  if (at(zero) - at(low) > 40 && at(high) - at(zero) > 40) mark(zero, 'middle');
  root.append(svg('text', {x: w / 2, y: h - 3, 'text-anchor': 'middle'}, 'shaded: codes; counts are logarithmic'));
  return root;
}
function calibration(l) {
  const w = 340, h = 190, base = h - 34, points = l.range_after;
  const root = svg('svg', {viewBox: `0 0 ${w} ${h}`, role: 'img'});
  const end = points[points.length - 1], n = Math.max(2, end[0]);
  const grid = l.scale ? [(l.quant_min - l.zero_point) * l.scale, (l.quant_min + l.codes - 1 - l.zero_point) * l.scale] : [];
  const least = Math.min(end[1], 0, ...grid), most = Math.max(end[2], 0, ...grid), room = (most - least) || 1;
  const x = s => 52 + Math.log2(Math.max(1, s)) / Math.log2(n) * (w - 66), y = v => 10 + (most - v) / room * (base - 18);
  root.append(svg('title', {}, `Range of ${l.name} after so many samples, from [${short(points[0][1])}, ${short(points[0][2])}] to [${short(end[1])}, ${short(end[2])}]`));
  for (const v of grid) root.append(svg('path', {class: 'limit', d: `M52 ${y(v)}H${w - 14}`}));
  const line = k => { let d = ''; points.forEach((p, i) => { d += (i ? 'H' + x(p[0]).toFixed(1) + 'V' : 'M' + x(p[0]).toFixed(1) + ' ') + y(p[k]).toFixed(1); }); return d + 'H' + (w - 14); };
  root.append(svg('path', {class: 'high', d: line(2)}), svg('path', {class: 'low', d: line(1)}));
  root.append(svg('path', {class: 'axis', d: `M52 6V${base}H${w - 14}`}));
  const label = (v, text) => root.append(svg('text', {x: 47, y: y(v) + 4, 'text-anchor': 'end'}, text));
  label(most, short(most)); label(least, short(least));
  for (const s of [1, n]) root.append(svg('text', {x: x(s), y: h - 18, 'text-anchor': s === 1 ? 'start' : 'end'}, String(s)));
  root.append(svg('text', {x: w / 2, y: h - 3, 'text-anchor': 'middle'}, 'samples (full: max, dashed: min, dotted: codes)'));
  return root;
}
const panel = (title, ...children) => make('div', {class: 'panel'}, make('h3', {}, title), ...children);
const table = (heads, rows) => make('table', {}, make('thead', {}, make('tr', {}, ...heads.map(t => make('th', {scope: 'col'}, t)))),
  make('tbody', {}, ...rows.map(r => make('tr', {}, ...r.map(c => make('td', {}, c))))));
function choose(i, jump) {
  chosen = i;
  const l = layers[i], body = $('detail-body');
  $('detail-title').textContent = 'Layer ' + l.name;
  body.textContent = '';
  const intro = l.op + ' ' + l.shape + (l.quantized ? ', in 8 bits' : ', in float') + (rankOf.has(i) ? `; number ${rankOf.get(i) + 1} of ${order.length} by what it costs` : '') +
    (l.matched ? '' : '; has no counterpart in the quantized model');
  body.append(make('p', {class: 'quiet'}, intro));
  if (l.sentence) body.append(make('p', {class: 'bad'}, l.fault + ': ' + l.sentence + '.'));
  if (l.note) body.append(make('p', {}, 'Note: ' + l.note + '.'));
  const panels = make('div', {class: 'panels'});
  if (l.matched) {
    const facts = [['SQNR in the network', dbs(l.sqnr_db)], ['own', dbs(l.own_sqnr_db)], ['inherited', dbs(l.inherited_sqnr_db)],
      ['rounding its result', dbs(l.activation_sqnr_db)], ['its weights', dbs(l.weight_sqnr_db)],
      ['result, only weights quantized', dbs(l.weight_error_sqnr_db)], ['output, only this quantized', dbs(l.alone_sqnr_db)],
      ['share of output noise', share(l.noise_share)], ['share of time', share(l.time_share)],
      ['largest error', short(l.max_error)], ['cosine', l.cosine == null ? '-' : String(l.cosine)], ['range', '[' + short(l.min) + ', ' + short(l.max) + ']']];
    if (l.scale) facts.push(['scale, zero point', short(l.scale) + ', ' + l.zero_point], ['codes used', l.codes_used + ' of ' + l.codes], ['values clipped', share(l.clipped)],
      ['clipping in its rounding error', share(l.clipping_share)]);
    if (l.weight_sqnr_db != null) facts.push(['weight scales', l.per_channel_weights ? 'per channel' : 'per tensor']);
    panels.append(panel('Numbers', make('table', {}, make('tbody', {}, ...facts.filter(f => f[1] !== '-').map(f => make('tr', {}, make('th', {scope: 'row', class: 'text'}, f[0]), make('td', {}, f[1])))))));
    if (l.histogram) panels.append(panel('Values and codes', histogram(l), make('p', {class: 'quiet'}, `${l.codes_used} of ${l.codes} codes are used, ${share(l.clipped)} of the values are clipped.`)));
    if (l.range_after && l.range_after.length) {
      const e = l.range_after, half = e.find(p => 2 * p[0] >= data.samples) || e[0], end = e[e.length - 1];
      const grown = (end[2] - end[1]) / Math.max(1e-30, half[2] - half[1]) - 1;
      const text = e.length < 3 ? 'Too few samples to tell.' : grown < 0.03 ? 'The second half of the samples hardly widens the range: they are enough.' : `The second half of the samples widens the range by ${(100 * grown).toFixed(0)}%: more samples may help.`;
      panels.append(panel('Range against samples', calibration(l), make('p', {}, text),
        l.largest_samples ? make('p', {class: 'quiet'}, 'Largest magnitudes: ' + l.largest_samples.slice(0, 5).map(s => `${short(s[1])} in sample ${s[0]}`).join(', ')) : null));
    }
    if (l.worst_channels) panels.append(panel('Worst channels', table(['Channel', 'SQNR', 'of its weights'], l.worst_channels.map(c => [String(c.channel), db(c.sqnr_db), db(c.weight_sqnr_db)]))));
    if (l.trials) panels.append(panel('Tried on this layer', table(['What', 'Gain at the output', 'SQNR then'], l.trials.map(t => [t.what + (t.speedup ? `, ${t.speedup.toFixed(2)} times as fast` : ''), signed(db(t.gain_db)) + ' dB', dbs(t.sqnr_db)]))));
  }
  body.append(panels);
  for (const r of document.querySelectorAll('tr.chosen')) r.classList.remove('chosen');
  const r = document.getElementById('row-' + i);
  if (r) r.classList.add('chosen');
  $('announce').textContent = l.name + ', ' + l.op + ', ' + dbs(l.sqnr_db) + (l.fault ? ', ' + l.fault : '');
  if (jump) { bringIn(i); $('detail').focus({preventScroll: true}); $('detail').scrollIntoView({block: 'start'}); } else redraw();
}

// -- the table --
const fields = [
  {head: '#', of: i => rankOf.has(i) ? rankOf.get(i) + 1 : null, text: v => v == null ? '-' : String(v), first: 1},
  {head: 'Operator', of: i => layers[i].op, text: v => v, first: 1, left: true},
  {head: 'Noise', of: i => layers[i].noise_share, text: share, first: -1},
  {head: 'SQNR', of: i => layers[i].sqnr_db, text: db, first: 1},
  {head: 'Own', of: i => layers[i].own_sqnr_db, text: db, first: 1},
  {head: 'Weights', of: i => layers[i].weight_sqnr_db, text: db, first: 1},
  {head: 'Clipped', of: i => layers[i].scale ? layers[i].clipped : null, text: share, first: -1},
  {head: 'Codes', of: i => layers[i].scale ? layers[i].codes_used : null, text: v => v == null ? '-' : String(v), first: 1},
  {head: 'Time', of: i => layers[i].time_share, text: share, first: -1},
  {head: 'Best tried', of: i => best(i) ? best(i).gain_db : null, text: v => v == null ? '-' : signed(db(v)) + ' dB', first: -1},
  {head: 'Finding', of: i => layers[i].fault || (layers[i].quantized || layers[i].op === 'input' ? '' : 'in float'), text: v => v, first: -1, left: true}];
fields.unshift({head: 'Layer', of: i => i, text: v => layers[v].name, first: 1, left: true});
let sorted = 1, way = 1, limit = 100, list = [];
const heads = $('heads');
heads.textContent = '';
fields.forEach((f, k) => heads.append(make('th', {scope: 'col', class: f.left ? 'text' : null},
  make('button', {type: 'button', onclick: () => { way = sorted === k ? -way : f.first; sorted = k; arrange(); }}, f.head))));
function arrange() {
  const word = $('filter').value.trim().toLowerCase(), f = fields[sorted];
  list = layers.map((_, i) => i).filter(i => !word || (layers[i].name + ' ' + layers[i].op + ' ' + (layers[i].fault || '')).toLowerCase().includes(word));
  list.sort((a, b) => {
    const x = level(f.of(a)), y = level(f.of(b));
    if (x == null || y == null) return (x == null) - (y == null) || a - b;
    return way * (x < y ? -1 : x > y ? 1 : 0) || a - b;
  });
  fields.forEach((g, k) => {
    const th = heads.children[k];
    th.setAttribute('aria-sort', k === sorted ? (way > 0 ? 'ascending' : 'descending') : 'none');
    th.firstChild.textContent = g.head + (k === sorted ? (way > 0 ? ' \u25b2' : ' \u25bc') : '');
  });
  limit = 100;
  fill();
}
function fill() {
  const rows = document.createDocumentFragment();
  for (const i of list.slice(0, limit)) {
    const cells = fields.map((f, k) => k === 0
      ? make('td', {class: 'wide'}, make('button', {type: 'button', class: 'plain', onclick: () => choose(i, true)}, layers[i].name))
      : make('td', {class: f.left ? 'text' : null}, f.text(f.of(i))));
    rows.append(make('tr', {id: 'row-' + i, class: i === chosen ? 'chosen' : null}, ...cells));
  }
  $('rows').replaceChildren(rows);
  $('shown').textContent = Math.min(limit, list.length) + ' of ' + list.length + ' layers';
  $('more').hidden = list.length <= limit;
}
$('more').onclick = () => { limit += 400; fill(); };
$('filter').addEventListener('input', arrange);

readTones();
arrange();
const start = order.length ? order[0] : 0;
if (layers.length) { choose(start); if (fitScale() >= 0.42) fit(); else { scale = 0.8; center(start); } }
let lastWidth = canvas.clientWidth;
window.addEventListener('resize', () => { if (canvas.clientWidth !== lastWidth) { lastWidth = canvas.clientWidth; redraw(); } });
const repaint = () => { readTones(); draw(); };
matchMedia('(prefers-color-scheme: dark)').addEventListener('change', repaint);
matchMedia('print').addEventListener('change', repaint);
window.addEventListener('beforeprint', () => { fit(); limit = 300; fill(); repaint(); });
window.addEventListener('afterprint', repaint);
document.documentElement.dataset.ready = Math.round(performance.now());  // ms since the page was asked for
})();
)page";

}  // namespace octet::debug::detail
