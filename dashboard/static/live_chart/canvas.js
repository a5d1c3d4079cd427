// Canvas and page in small pieces: sized canvases, lines, marks, elements. Knows no data.

/** A straight line, one pixel wide unless told otherwise. */
export function line(context, color, [x0, y0], [x1, y1], width = 1) {
  context.strokeStyle = color;
  context.lineWidth = width;
  context.beginPath();
  context.moveTo(x0, y0);
  context.lineTo(x1, y1);
  context.stroke();
}

/** Sizes a canvas to the screen's own pixels and gives back its cleared context in page pixels. */
export function prepare(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [deviceWidth, deviceHeight] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== deviceWidth || canvas.height !== deviceHeight) {
    canvas.width = deviceWidth;
    canvas.height = deviceHeight;
    canvas.style.width = `${width}px`;
    canvas.style.height = `${height}px`;
  }
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return context;
}

/** A new element; text is set as text, never as markup. */
export function element(tag, className, text) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  return node;
}

/** A diamond around (x, y), filled with the page's own colour: the mark of a value that was measured apart. */
export function diamond(context, [x, y], radius, { stroke, fill }) {
  context.beginPath();
  context.moveTo(x, y - radius);
  context.lineTo(x + radius, y);
  context.lineTo(x, y + radius);
  context.lineTo(x - radius, y);
  context.closePath();
  context.fillStyle = fill;
  context.fill();
  context.strokeStyle = stroke;
  context.stroke();
}

/** A filled disc around (x, y). */
export function disc(context, [x, y], radius, fill) {
  context.fillStyle = fill;
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fill();
}

/** A small triangle that stands on the point (x, y). */
export function triangle(context, [x, y], fill) {
  context.fillStyle = fill;
  context.beginPath();
  context.moveTo(x - 4, y + 0.5);
  context.lineTo(x + 4, y + 0.5);
  context.lineTo(x, y - 6);
  context.fill();
}
