// node matte.mjs MODEL.onnx PHOTO.png TRIMAP.png ALPHA.png
import { readFileSync, writeFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { PNG } from "pngjs";
import { matte } from "./matting.mjs";

const [model, photo, marks, out] = process.argv.slice(2);
if (!out) throw new Error("usage: node matte.mjs MODEL.onnx PHOTO.png TRIMAP.png ALPHA.png");
const image = PNG.sync.read(readFileSync(photo)), trimap = PNG.sync.read(readFileSync(marks));
const { width, height } = image;
if (trimap.width !== width || trimap.height !== height) throw new Error("image and trimap differ in size");
const levels = trimap.data.filter((_, i) => i % 4 === 0);
const session = await ort.InferenceSession.create(model);
const alpha = await matte(ort, session, image.data, levels, width, height);
const result = new PNG({ width, height, colorType: 0 });
for (let i = 0; i < alpha.length; i++) result.data.fill(Math.round(255 * alpha[i]), 4 * i, 4 * i + 3).fill(255, 4 * i + 3, 4 * i + 4);
writeFileSync(out, PNG.sync.write(result, { colorType: 0 }));
