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
  const length = Number(seconds) * 1000, times = [];
  const timed = async () => {
    const before = performance.now();
    await session.run(feed);
    return performance.now() - before;
  };
  let last = 0;  // As `octet bench` does: three runs to warm up and at least five, or one of each where a run takes longer than `seconds`.
  for (let i = 0, all = 0; i < 3 && all <= length; i++) all += last = await timed();
  const fewest = last > length ? 1 : 5;
  for (const end = performance.now() + length; performance.now() < end || times.length < fewest;) times.push(await timed());
  times.sort((a, b) => a - b);
  console.log(JSON.stringify({median_ms: times[times.length >> 1], load_ms: load, peak_rss_mb: process.resourceUsage().maxRSS / 1024}));
}
main();
