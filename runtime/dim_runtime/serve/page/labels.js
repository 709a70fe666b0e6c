// The trimap while it is drawn: one byte a pixel, and the strokes and proposals that made it, so that each can be undone.

export const BACKGROUND = 0, UNKNOWN = 128, FOREGROUND = 255, UNSET = 64;

export class Labels {
  constructor(width, height) {
    this.width = width;
    this.height = height;
    this.data = new Uint8Array(width * height).fill(UNSET);
    this.done = [];
    this.undone = [];
  }

  /** The last proposal: its data, its file, the box it was made of, and the pixels by which its band was changed. */
  get proposal() {
    return this.done.findLast((step) => step.data) ?? null;
  }

  get complete() {
    return !this.data.includes(UNSET);
  }

  /** Begin a stroke at image coordinates; returns the rectangle that changed. */
  begin(x, y, radius, value) {
    this.given = this.undone;
    this.undone = [];
    this.done.push({ points: [[x, y]], radius, value });
    return this.#segment(x, y, x, y, radius, value);
  }

  /** Continue the last stroke to a point; returns the rectangle that changed. */
  extend(x, y) {
    const stroke = this.done[this.done.length - 1];
    const [fromX, fromY] = stroke.points[stroke.points.length - 1];
    stroke.points.push([x, y]);
    return this.#segment(fromX, fromY, x, y, stroke.radius, stroke.value);
  }

  /** Take the last step back; returns it, or undefined without one. */
  undo() {
    const step = this.done.pop();
    if (step) this.undone.push(step);
    this.#replay();
    return step;
  }

  /** Do the step that was taken back last again; returns it, or undefined without one. */
  redo() {
    const step = this.undone.pop();
    if (step) this.done.push(step);
    this.#replay();
    return step;
  }

  /** Take the last stroke back as if it had never begun. */
  cancel() {
    this.done.pop();
    this.undone = this.given;
    this.#replay();
  }

  /** Take all steps back; each can be done again. */
  clear() {
    this.undone.push(...this.done.reverse());
    this.done = [];
    this.#replay();
  }

  /** Take a proposed trimap, made of all strokes so far and of a box, as the ground for further strokes. */
  propose(data, file, box) {
    this.undone = [];
    this.done.push({ data, file, box, band: 0 });
    this.#replay();
  }

  /** The labels of all strokes, without what was proposed. */
  strokes() {
    const drawn = new Labels(this.width, this.height);
    drawn.done = this.done.filter((step) => step.points);
    drawn.#replay();
    return drawn;
  }

  /** Take the proposal with another band; strokes drawn since then stay on it. */
  widen(data, band) {
    this.done = this.done.map((step) => (step === this.proposal ? { ...step, data, band } : step));
    this.#replay();
  }

  #replay() {
    const start = this.done.lastIndexOf(this.proposal);
    if (start < 0) this.data.fill(UNSET);
    else this.data.set(this.done[start].data);
    for (const { points, radius, value } of this.done.slice(start + 1)) {
      let [fromX, fromY] = points[0];
      for (const [x, y] of points) {
        this.#segment(fromX, fromY, x, y, radius, value);
        [fromX, fromY] = [x, y];
      }
    }
  }

  /** Fill all pixels whose centre is within `radius` of a segment, row by row. */
  #segment(x0, y0, x1, y1, radius, value) {
    const top = Math.max(0, Math.floor(Math.min(y0, y1) - radius));
    const bottom = Math.min(this.height, Math.ceil(Math.max(y0, y1) + radius) + 1);
    const left = Math.max(0, Math.floor(Math.min(x0, x1) - radius));
    const right = Math.min(this.width, Math.ceil(Math.max(x0, x1) + radius) + 1);
    const dx = x1 - x0, dy = y1 - y0, length = dx * dx + dy * dy, reach = radius * radius;
    for (let y = top; y < bottom; y++) {
      const row = y * this.width;
      for (let x = left; x < right; x++) {
        const px = x + 0.5 - x0, py = y + 0.5 - y0;
        const along = length ? Math.min(1, Math.max(0, (px * dx + py * dy) / length)) : 0;
        const ex = px - along * dx, ey = py - along * dy;
        if (ex * ex + ey * ey <= reach) this.data[row + x] = value;
      }
    }
    return { left, top, right, bottom };
  }

  /** A PNG of the labels: gray levels, transparent where nothing is marked. */
  async png() {
    const canvas = new OffscreenCanvas(this.width, this.height);
    const context = canvas.getContext("2d");
    const rows = Math.max(1, Math.floor(4_000_000 / this.width));
    for (let top = 0; top < this.height; top += rows) {
      const count = Math.min(rows, this.height - top);
      const part = context.createImageData(this.width, count);
      const pixels = new Uint32Array(part.data.buffer);
      const start = top * this.width;
      for (let i = 0; i < pixels.length; i++) {
        const value = this.data[start + i];
        pixels[i] = value === UNSET ? 0 : (0xff000000 | (value << 16) | (value << 8) | value) >>> 0;
      }
      context.putImageData(part, 0, top);
    }
    return canvas.convertToBlob({ type: "image/png" });
  }

  /** Labels of a gray PNG of the same size. */
  static async read(blob, width, height) {
    const bitmap = await createImageBitmap(blob);
    if (bitmap.width !== width || bitmap.height !== height) throw new Error("the trimap has another size");
    const canvas = new OffscreenCanvas(width, height);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    const data = new Uint8Array(width * height);
    const rows = Math.max(1, Math.floor(4_000_000 / width));
    for (let top = 0; top < height; top += rows) {
      const count = Math.min(rows, height - top);
      const { data: pixels } = context.getImageData(0, top, width, count);
      for (let i = 0, at = top * width; i < pixels.length; i += 4) data[at++] = pixels[i];
    }
    return data;
  }
}
