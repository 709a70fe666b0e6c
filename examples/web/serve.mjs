// A small file server for this folder: browsers load modules and WebAssembly over HTTP only.
// node serve.mjs [MODEL.onnx] [PORT]
import { createReadStream, statSync } from "node:fs";
import { createServer } from "node:http";
import { dirname, extname, join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const model = process.argv[2] ?? join(here, "../../runtime/dim_runtime/models/dim-clean.onnx");
const port = Number(process.argv[3] ?? 8080);
const types = { ".html": "text/html", ".mjs": "text/javascript", ".js": "text/javascript", ".wasm": "application/wasm" };

createServer((request, response) => {
  const path = normalize(decodeURIComponent(new URL(request.url, "http://localhost").pathname));
  const file = path === "/model.onnx" ? model : join(here, path === "/" ? "index.html" : path);
  if (file !== model && !file.startsWith(here)) return response.writeHead(404).end();
  if (!statSync(file, { throwIfNoEntry: false })?.isFile()) return response.writeHead(404).end();
  response.setHeader("Content-Type", types[extname(file)] ?? "application/octet-stream");
  // WebAssembly uses several threads only where pages are isolated from others.
  response.setHeader("Cross-Origin-Opener-Policy", "same-origin");
  response.setHeader("Cross-Origin-Embedder-Policy", "require-corp");
  createReadStream(file).pipe(response);
}).listen(port, "127.0.0.1", () => console.log(`http://127.0.0.1:${port}`));
