// The page: two files in, the cut-out on a canvas out.
import * as ort from "./node_modules/onnxruntime-web/dist/ort.webgpu.min.mjs";
import { matte } from "./matting.mjs";

ort.env.wasm.wasmPaths = new URL("./node_modules/onnxruntime-web/dist/", import.meta.url).href;
const find = (id) => document.getElementById(id);
const sessions = {};

async function pixels(file) {
  const bitmap = await createImageBitmap(file, { premultiplyAlpha: "none", colorSpaceConversion: "none" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0);
  return context.getImageData(0, 0, bitmap.width, bitmap.height);
}

async function run() {
  const [photo] = find("photo").files, [trimap] = find("trimap").files;
  if (!photo || !trimap) throw new Error("choose a photograph and its trimap first");
  const image = await pixels(photo), marks = await pixels(trimap);
  const { width, height } = image;
  if (marks.width !== width || marks.height !== height) throw new Error("photograph and trimap differ in size");
  const engine = find("engine").value;
  sessions[engine] ??= await ort.InferenceSession.create("model.onnx", { executionProviders: [engine] });
  const started = performance.now();
  const alpha = await matte(ort, sessions[engine], image.data, marks.data.filter((_, i) => i % 4 === 0), width, height);
  for (let i = 0; i < alpha.length; i++) image.data[4 * i + 3] = Math.round(255 * alpha[i]);
  const canvas = find("result");
  Object.assign(canvas, { width, height, hidden: false });
  canvas.getContext("2d").putImageData(image, 0, 0);
  window.alphaOfLastRun = alpha;
  return `${width} × ${height} in ${((performance.now() - started) / 1000).toFixed(1)} s with ${engine}`;
}

find("run").addEventListener("click", async () => {
  find("status").textContent = "Computing…";
  find("status").textContent = await run().catch((error) => `Error: ${error.message}`);
});
