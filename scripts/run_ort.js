// node run_ort.js SPEC.json...: runs models by ONNX Runtime, for random_graphs.py. ORT_DIR: the onnxruntime-node package.
// A spec is {model, optimize, runs: [{inputs: [{name, type, dims, file}], out}]}. Writes for each run OUT.json, which names the
// results and the files of their numbers, or says what went wrong.
const fs = require('fs');
const ort = require(process.env.ORT_DIR || 'onnxruntime-node');
const ARRAYS = {float32: Float32Array, float64: Float64Array, int64: BigInt64Array, int32: Int32Array, int16: Int16Array, int8: Int8Array,
                uint16: Uint16Array, uint8: Uint8Array, bool: Uint8Array};

async function run(session, job) {
  const feeds = {};
  for (const i of job.inputs) {
    const b = fs.readFileSync(i.file);
    feeds[i.name] = new ort.Tensor(i.type, new ARRAYS[i.type](b.buffer.slice(b.byteOffset, b.byteOffset + b.length)), i.dims);
  }
  const made = await session.run(feeds);
  return session.outputNames.map((name, k) => {
    const t = made[name];
    const file = `${job.out}.${k}.bin`;
    fs.writeFileSync(file, Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength));
    return {name, type: t.type, dims: t.dims, file};
  });
}

async function main() {
  for (const path of process.argv.slice(2)) {
    const spec = JSON.parse(fs.readFileSync(path));
    let session = null, error = '';
    try {
      session = await ort.InferenceSession.create(spec.model, {
        intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 4, graphOptimizationLevel: spec.optimize ? 'all' : 'disabled'});
    } catch (e) {
      error = String(e).slice(0, 600);
    }
    for (const job of spec.runs) {
      let said = {error};
      try {
        if (session) said = {results: await run(session, job)};
      } catch (e) {
        said = {error: String(e).slice(0, 600)};
      }
      fs.writeFileSync(`${job.out}.json`, JSON.stringify(said));
    }
    if (session) await session.release();
  }
}
main();
