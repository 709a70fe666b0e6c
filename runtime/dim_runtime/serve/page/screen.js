// Draws what the person sees: photograph and labels, or the result over checkerboard, colour or picture.

import { BACKGROUND, FOREGROUND, UNKNOWN } from "./labels.js";

// Little-endian RGBA. Marked colours differ in lightness as well as in hue.
const TINTS = new Uint32Array(256);
TINTS[FOREGROUND] = 0x8071bf2f;
TINTS[BACKGROUND] = 0x805d45d6;
TINTS[UNKNOWN] = 0x70e08a3f;
const SQUARE = 12;

export class Screen {
  constructor(canvas, camera) {
    this.canvas = canvas;
    this.camera = camera;
    this.context = canvas.getContext("2d", { alpha: false });
    this.pattern = checkerboard(this.context);
    this.pending = false;
  }

  /** Take the size of the element; the ratio of device pixels is limited so that large screens stay quick. */
  resize() {
    const ratio = Math.min(2, window.devicePixelRatio || 1);
    const { clientWidth, clientHeight } = this.canvas;
    this.ratio = ratio;
    this.width = Math.max(1, Math.round(clientWidth * ratio));
    this.height = Math.max(1, Math.round(clientHeight * ratio));
    if (this.canvas.width !== this.width || this.canvas.height !== this.height) {
      this.canvas.width = this.width;
      this.canvas.height = this.height;
    }
  }

  /** Draw everything with the next frame, once. */
  refresh(scene) {
    this.scene = scene;
    if (this.pending) return;
    this.pending = true;
    requestAnimationFrame(() => {
      this.pending = false;
      this.draw(this.scene);
    });
  }

  draw(scene) {
    const { context, camera, width, height } = this;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = getComputedStyle(document.body).getPropertyValue("--stage");
    context.fillRect(0, 0, width, height);
    if (!scene.photo) return;
    if (scene.view === "edit") {
      scene.photo.draw(context, camera, width, height);
      this.labels(scene.labels, { left: 0, top: 0, right: scene.photo.width, bottom: scene.photo.height });
    } else {
      this.result(scene);
    }
    this.marks(scene);
  }

  /** Draw one stroke's rectangle again, without waiting for a frame. */
  touch(scene, changed) {
    const { context, camera } = this;
    const [left, top] = camera.toScreen(changed.left, changed.top);
    const [right, bottom] = camera.toScreen(changed.right, changed.bottom);
    context.save();
    context.beginPath();
    // The screen pixels that labels() tints, and no more: others would lose their tint.
    const [x, y] = [Math.floor(left), Math.floor(top)];
    context.rect(x, y, Math.ceil(right) - x, Math.ceil(bottom) - y);
    context.clip();
    scene.photo.draw(context, camera, this.width, this.height);
    this.labels(scene.labels, changed);
    context.restore();
  }

  /** Tint the screen pixels whose image pixel is marked. */
  labels(labels, part) {
    const { context, camera } = this;
    const [x0, y0] = camera.toScreen(part.left, part.top), [x1, y1] = camera.toScreen(part.right, part.bottom);
    const left = Math.max(0, Math.floor(x0)), top = Math.max(0, Math.floor(y0));
    const right = Math.min(this.width, Math.ceil(x1)), bottom = Math.min(this.height, Math.ceil(y1));
    if (right <= left || bottom <= top) return;
    const layer = new OffscreenCanvas(right - left, bottom - top);
    const tinted = new ImageData(right - left, bottom - top);
    const pixels = new Uint32Array(tinted.data.buffer);
    const columns = new Int32Array(right - left);
    for (let x = left; x < right; x++) {
      const column = Math.floor(camera.x + (x + 0.5) / camera.scale);
      columns[x - left] = column >= 0 && column < labels.width ? column : -1;
    }
    for (let y = top, at = 0; y < bottom; y++) {
      const row = Math.floor(camera.y + (y + 0.5) / camera.scale);
      if (row < 0 || row >= labels.height) { at += columns.length; continue; }
      const start = row * labels.width;
      for (const column of columns) pixels[at++] = column < 0 ? 0 : TINTS[labels.data[start + column]];
    }
    layer.getContext("2d").putImageData(tinted, 0, 0);
    context.drawImage(layer, left, top);
  }

  result(scene) {
    const { context, camera, width, height } = this;
    const [x, y] = camera.toScreen(0, 0);
    const [right, bottom] = camera.toScreen(scene.photo.width, scene.photo.height);
    context.save();
    context.beginPath();
    context.rect(x, y, right - x, bottom - y);
    context.clip();
    if (scene.view === "alpha") {
      scene.alpha.draw(context, camera, width, height);
    } else {
      this.backdrop(scene, x, y, right, bottom);
      scene.cutout.draw(context, camera, width, height);
    }
    if (scene.split > 0) {
      context.beginPath();
      context.rect(x, y, (right - x) * scene.split, bottom - y);
      context.clip();
      scene.photo.draw(context, camera, width, height);
    }
    context.restore();
    if (scene.split > 0) {
      context.fillStyle = "#ffffff";
      context.fillRect(x + (right - x) * scene.split - 1, y, 2, bottom - y);
    }
  }

  backdrop(scene, x, y, right, bottom) {
    const { context } = this;
    if (scene.view === "picture" && scene.picture) {
      const scale = Math.max((right - x) / scene.picture.width, (bottom - y) / scene.picture.height);
      const wide = scene.picture.width * scale, high = scene.picture.height * scale;
      context.drawImage(scene.picture, (x + right - wide) / 2, (y + bottom - high) / 2, wide, high);
      return;
    }
    context.fillStyle = scene.view === "colour" ? scene.colour : this.pattern;
    context.fillRect(x, y, right - x, bottom - y);
  }

  /** The box that is being drawn, and the cursor of the keyboard. */
  marks(scene) {
    const { context, camera } = this;
    if (scene.box) {
      const [x, y] = camera.toScreen(scene.box.left, scene.box.top);
      context.setLineDash([6, 4]);
      context.lineWidth = 2;
      for (const [colour, offset] of [["#000000", 0], ["#ffffff", 6]]) {
        context.strokeStyle = colour;
        context.lineDashOffset = offset;
        context.strokeRect(
          x, y, (scene.box.right - scene.box.left) * camera.scale, (scene.box.bottom - scene.box.top) * camera.scale,
        );
      }
      context.setLineDash([]);
    }
    if (scene.cursor) {
      const [x, y] = camera.toScreen(scene.cursor.x, scene.cursor.y);
      for (const [colour, wide] of [["#000000", 3], ["#ffffff", 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = wide;
        context.beginPath();
        context.arc(x, y, Math.max(3, scene.radius * camera.scale), 0, 2 * Math.PI);
        context.stroke();
      }
    }
  }
}

function checkerboard(context) {
  const tile = new OffscreenCanvas(2 * SQUARE, 2 * SQUARE);
  const inside = tile.getContext("2d");
  inside.fillStyle = "#ffffff";
  inside.fillRect(0, 0, 2 * SQUARE, 2 * SQUARE);
  inside.fillStyle = "#c8ccd2";
  inside.fillRect(0, 0, SQUARE, SQUARE);
  inside.fillRect(SQUARE, SQUARE, SQUARE, SQUARE);
  return context.createPattern(tile, "repeat");
}
