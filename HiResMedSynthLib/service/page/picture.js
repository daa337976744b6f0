// Pictures of one trial: 16-bit values drawn through a window, all zoomed, moved and windowed together.

const SMALLEST_WIDTH = 1;
const LARGEST_ZOOM = 32;

// How the pictures are seen: window in values of the modality, zoom, and the point of the image in the middle (0..1).
export class View {
  constructor(facts) {
    this.facts = facts;
    this.ring = true;
    this.resetWindow();
    this.resetPlace();
  }

  resetWindow() {
    [this.center, this.width] = this.facts.window;
  }

  resetPlace() {
    this.zoom = 1;
    this.x = 0.5;
    this.y = 0.5;
  }

  shiftWindow(right, down) {
    const span = this.facts.highest / 1024; // a drag over 1024 pixels covers the whole range
    const step = Math.max(this.width / 512, span / 8);
    this.width = Math.min(Math.max(this.width + right * step, SMALLEST_WIDTH), 2 * this.facts.highest);
    this.center = Math.min(
      Math.max(this.center + down * step, this.facts.offset), this.facts.offset + this.facts.highest);
  }

  zoomBy(factor) {
    this.zoom = Math.min(Math.max(this.zoom * factor, 1), LARGEST_ZOOM);
    this.keepInside();
  }

  moveTo(x, y) {
    this.x = x;
    this.y = y;
    this.keepInside();
  }

  keepInside() {
    const reach = 0.5 - 0.5 / this.zoom;
    this.x = Math.min(Math.max(this.x, 0.5 - reach), 0.5 + reach);
    this.y = Math.min(Math.max(this.y, 0.5 - reach), 0.5 + reach);
  }

  // Grey of each value 0..highest, as the four bytes of a pixel.
  table() {
    const { highest, offset } = this.facts;
    const table = new Uint32Array(highest + 1);
    const low = this.center - this.width / 2 - offset;
    for (let value = 0; value <= highest; value += 1) {
      const grey = Math.round(Math.min(Math.max((value - low) / this.width, 0), 1) * 255);
      table[value] = 0xff000000 | (grey << 16) | (grey << 8) | grey;
    }
    return table;
  }
}

export class Picture {
  constructor(canvas, facts) {
    this.canvas = canvas;
    this.facts = facts;
    this.grey = document.createElement("canvas");
    this.grey.width = facts.columns;
    this.grey.height = facts.rows;
    this.context = this.grey.getContext("2d");
    this.image = this.context.createImageData(facts.columns, facts.rows);
    this.pixels = new Uint32Array(this.image.data.buffer);
    this.values = null;
    this.mark = null;
  }

  give(values, mark) {
    this.values = values;
    this.mark = mark;
  }

  clear() {
    this.values = null;
    this.pixels.fill(0);
    this.canvas.width = this.canvas.width; // empties it
  }

  // Values to grey; needed when the window or the values changed.
  window(table) {
    if (this.values === null) return;
    const { pixels, values } = this;
    for (let k = 0; k < values.length; k += 1) pixels[k] = table[values[k]];
    this.context.putImageData(this.image, 0, 0);
  }

  // Screen pixels of one image pixel, (across, down), and where the image's first corner is.
  placing(view) {
    const { rows, columns, pixel_aspect: aspect } = this.facts;
    const ratio = window.devicePixelRatio || 1;
    const width = Math.max(Math.round(this.canvas.clientWidth * ratio), 1);
    const height = Math.max(Math.round(this.canvas.clientHeight * ratio), 1);
    const scale = Math.min(width / columns, height / (rows * aspect)) * view.zoom;
    const down = scale * aspect;
    return {
      width, height, ratio, scale, down,
      left: width / 2 - view.x * columns * scale,
      top: height / 2 - view.y * rows * down,
    };
  }

  draw(view) {
    if (this.values === null) return;
    const { rows, columns } = this.facts;
    const at = this.placing(view);
    if (this.canvas.width !== at.width) this.canvas.width = at.width;
    if (this.canvas.height !== at.height) this.canvas.height = at.height;
    const context = this.canvas.getContext("2d");
    context.fillStyle = "#000";
    context.fillRect(0, 0, at.width, at.height);
    context.imageSmoothingEnabled = view.zoom < 8; // farther in, pixels are shown as they are
    context.imageSmoothingQuality = "high";
    context.drawImage(this.grey, at.left, at.top, columns * at.scale, rows * at.down);
    if (view.ring && this.mark !== null && this.facts.mark_radius !== null) {
      const [row, column] = this.mark;
      context.strokeStyle = "#ffb000";
      context.lineWidth = 1.5 * at.ratio;
      context.beginPath();
      context.ellipse(
        at.left + (column + 0.5) * at.scale, at.top + (row + 0.5) * at.down,
        this.facts.mark_radius * at.scale, this.facts.mark_radius * at.scale, 0, 0, 2 * Math.PI);
      context.stroke();
    }
  }
}

// Mouse and touch on the pictures. `changed(windowed)` is called after each change of the view.
export class Hand {
  constructor(element, changed) {
    this.fingers = new Map();
    this.changed = changed;
    element.addEventListener("pointerdown", (event) => this.down(event));
    element.addEventListener("pointermove", (event) => this.move(event));
    for (const end of ["pointerup", "pointercancel"]) {
      element.addEventListener(end, (event) => this.fingers.delete(event.pointerId));
    }
    element.addEventListener("contextmenu", (event) => event.preventDefault());
    element.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
  }

  use(view, pictures) {
    this.view = view;
    this.pictures = pictures;
  }

  picture(event) {
    return this.pictures.find((one) => one.canvas === event.target) ?? this.pictures[0];
  }

  down(event) {
    if (event.target.tagName !== "CANVAS") return;
    event.target.setPointerCapture(event.pointerId);
    const moves = event.button !== 0 || event.shiftKey;
    this.fingers.set(event.pointerId, { x: event.clientX, y: event.clientY, moves });
    event.preventDefault();
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (before === undefined) return;
    const right = event.clientX - before.x;
    const down = event.clientY - before.y;
    const others = [...this.fingers].filter(([id]) => id !== event.pointerId).map(([, finger]) => finger);
    this.fingers.set(event.pointerId, { ...before, x: event.clientX, y: event.clientY });
    if (others.length === 1) {
      const [other] = others;
      const was = Math.hypot(before.x - other.x, before.y - other.y);
      const now = Math.hypot(event.clientX - other.x, event.clientY - other.y);
      this.pan(event, right / 2, down / 2); // each finger moves the middle by half
      const middle = { x: (event.clientX + other.x) / 2, y: (event.clientY + other.y) / 2 };
      if (was > 0) this.zoomAt(this.picture(event), middle.x, middle.y, now / was);
      this.changed(false);
    } else if (before.moves) {
      this.pan(event, right, down);
      this.changed(false);
    } else if (others.length === 0) {
      this.view.shiftWindow(right, down);
      this.changed(true);
    }
  }

  pan(event, right, down) {
    const picture = this.picture(event);
    const at = picture.placing(this.view);
    const { rows, columns } = picture.facts;
    this.view.moveTo(
      this.view.x - (right * at.ratio) / (columns * at.scale), this.view.y - (down * at.ratio) / (rows * at.down));
  }

  wheel(event) {
    event.preventDefault();
    this.zoomAt(this.picture(event), event.clientX, event.clientY, Math.exp(-event.deltaY / 500));
    this.changed(false);
  }

  // Zooms so that the point under the pointer stays there.
  zoomAt(picture, clientX, clientY, factor) {
    const { rows, columns } = picture.facts;
    const box = picture.canvas.getBoundingClientRect();
    const point = (at) => ({
      x: ((clientX - box.left) * at.ratio - at.left) / (columns * at.scale),
      y: ((clientY - box.top) * at.ratio - at.top) / (rows * at.down),
    });
    const before = point(picture.placing(this.view));
    this.view.zoomBy(factor);
    const after = point(picture.placing(this.view));
    this.view.moveTo(this.view.x + before.x - after.x, this.view.y + before.y - after.y);
  }
}
