// One measurement of ONNX Runtime: node ort.js MODEL THREADS SECONDS DIMS... -> {"median_ms": ..., "load_ms": ..., "peak_rss_mb": ...}
// ORT_DIR: the onnxruntime-node package.
const ort = require(process.env.ORT_DIR || 'onnxruntime-node');
const [, , model, threads, seconds, ...dims] = process.argv;

async function main() {
  const start = performance.now();
  const session = await ort.InferenceSession.create(model, {
    intraOpNumThreads: Number(threads), interOpNumThreads: 1, graphOptimizationLevel: 'all', logSeverityLevel: 3});
  const load = performance.now() - start;
  const shape = dims.map(Number);
  const data = Float32Array.from({length: shape.reduce((a, b) => a * b, 1)}, (_, i) => Math.sin(i * 0.7) * 1.5);
  const feed = {[session.inputNames[0]]: new ort.Tensor('float32', data, shape)};
  for (let i = 0; i < 3; i++) await session.run(feed);
  const times = [];
  for (const end = performance.now() + Number(seconds) * 1000; performance.now() < end || times.length < 5;) {
    const before = performance.now();
    await session.run(feed);
    times.push(performance.now() - before);
  }
  times.sort((a, b) => a - b);
  console.log(JSON.stringify({median_ms: times[times.length >> 1], load_ms: load, peak_rss_mb: process.resourceUsage().maxRSS / 1024}));
}
main();
