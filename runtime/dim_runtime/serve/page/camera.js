// Which part of the image the screen shows: scale in screen pixels per image pixel, and the image point at the left top.

const LARGEST = 32;

export class Camera {
  constructor() {
    this.scale = 1;
    this.x = 0;
    this.y = 0;
    this.fitted = false;
  }

  fit(width, height, screenWidth, screenHeight) {
    this.scale = Math.min(screenWidth / width, screenHeight / height) * 0.98;
    this.smallest = this.scale / 2;
    this.x = (width - screenWidth / this.scale) / 2;
    this.y = (height - screenHeight / this.scale) / 2;
    this.fitted = true;
  }

  /** Zoom by a factor; the image point under the screen point stays where it is. */
  zoom(factor, screenX, screenY) {
    this.fitted = false;
    const [x, y] = this.toImage(screenX, screenY);
    this.scale = Math.min(LARGEST, Math.max(this.smallest ?? 0.01, this.scale * factor));
    this.x = x - screenX / this.scale;
    this.y = y - screenY / this.scale;
  }

  /** Move by screen pixels. */
  pan(dx, dy) {
    this.fitted = false;
    this.x -= dx / this.scale;
    this.y -= dy / this.scale;
  }

  toImage(screenX, screenY) {
    return [this.x + screenX / this.scale, this.y + screenY / this.scale];
  }

  toScreen(x, y) {
    return [(x - this.x) * this.scale, (y - this.y) * this.scale];
  }
}
