// What the artefact expects, in any JavaScript: planes padded to multiples of 32 by reflection, and alpha cropped again.

const STRIDE = 32;

const padded = (size) => Math.ceil(size / STRIDE) * STRIDE;
/** Index into `size` pixels that continues beyond the end by reflection, without repeating the border. */
function reflected(i, size) {
  if (size === 1) return 0;
  const turn = i % (2 * size - 2);
  return turn < size ? turn : 2 * size - 2 - turn;
}

/**
 * Compute an alpha matte of a whole image.
 * @param ort onnxruntime-web or onnxruntime-node
 * @param session of the artefact
 * @param rgba 8-bit pixels of the photograph, four bytes each
 * @param trimap one byte a pixel: 0 background, 128 unknown, 255 foreground
 * @returns Float32Array of width × height, 0 to 1
 */
export async function matte(ort, session, rgba, trimap, width, height) {
  const wide = padded(width), high = padded(height);
  const image = new Uint8Array(wide * high * 3), marks = new Uint8Array(wide * high);
  for (let y = 0, at = 0; y < high; y++) {
    const row = reflected(y, height) * width;
    for (let x = 0; x < wide; x++, at++) {
      const from = row + reflected(x, width);
      marks[at] = trimap[from];
      for (let c = 0; c < 3; c++) image[3 * at + c] = rgba[4 * from + c];
    }
  }
  const { alpha } = await session.run({
    image: new ort.Tensor("uint8", image, [1, high, wide, 3]),
    trimap: new ort.Tensor("uint8", marks, [1, high, wide]),
  });
  const result = new Float32Array(width * height);
  for (let y = 0; y < height; y++) result.set(alpha.data.subarray(y * wide, y * wide + width), y * width);
  return result;
}
