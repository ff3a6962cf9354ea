// node run_ort.js MODEL X DIMS... : runs a model of one float32 input, whose values are in the file X, and prints its first
// result, one number a line. ORT_DIR: the onnxruntime-node package. ORT_OPTIMIZED: where to write the graph that runs; layers
// of int8 codes too are fused then on x86 CPUs, as they are on others.
const fs = require('fs');
const ort = require(process.env.ORT_DIR || 'onnxruntime-node');
const [, , model, x, ...dims] = process.argv;

async function main() {
  const options = {intraOpNumThreads: 1, interOpNumThreads: 1, logSeverityLevel: 3};
  const optimized = process.env.ORT_OPTIMIZED;
  if (optimized)
    Object.assign(options, {optimizedModelFilePath: optimized, graphOptimizationLevel: 'extended',
                            extra: {session: {qdqisint8allowed: '1'}}});
  const session = await ort.InferenceSession.create(model, options);
  const bytes = fs.readFileSync(x);
  const data = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  const results = await session.run({[session.inputNames[0]]: new ort.Tensor('float32', data, dims.map(Number))});
  console.log(Array.from(results[session.outputNames[0]].data).join('\n'));
}
main();
