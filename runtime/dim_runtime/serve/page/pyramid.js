// A picture at several sizes, so that a 50-megapixel photograph that is shown small is drawn from a small copy.

export class Pyramid {
  static async of(source) {
    const full = source instanceof ImageBitmap ? source : await createImageBitmap(source);
    const levels = [full];
    let { width, height } = full;
    while (Math.max(width, height) > 1024) {
      width = Math.max(1, Math.round(width / 2));
      height = Math.max(1, Math.round(height / 2));
      const options = { resizeWidth: width, resizeHeight: height, resizeQuality: "medium" };
      levels.push(await createImageBitmap(levels[levels.length - 1], options));
    }
    return new Pyramid(levels);
  }

  constructor(levels) {
    this.levels = levels;
    this.width = levels[0].width;
    this.height = levels[0].height;
  }

  /** Draw the rectangle that the camera sees, from the smallest copy that is large enough. */
  draw(context, camera, screenWidth, screenHeight) {
    let level = this.levels[0];
    for (const smaller of this.levels) if (smaller.width >= this.width * camera.scale) level = smaller;
    const left = Math.max(0, camera.x), top = Math.max(0, camera.y);
    const right = Math.min(this.width, camera.x + screenWidth / camera.scale);
    const bottom = Math.min(this.height, camera.y + screenHeight / camera.scale);
    if (right <= left || bottom <= top) return;
    const across = level.width / this.width, down = level.height / this.height;
    const [x, y] = camera.toScreen(left, top);
    context.imageSmoothingEnabled = camera.scale < 3;
    context.drawImage(
      level, left * across, top * down, (right - left) * across, (bottom - top) * down,
      x, y, (right - left) * camera.scale, (bottom - top) * camera.scale,
    );
  }

  close() {
    for (const level of this.levels) level.close();
  }
}
