// One chart: a title with its legend, a canvas with the curves, and one above it for crosshair and selection.
// Draws what the board shows (range, axis, smoothing, hovered position) and tells the board what the reader does.

import { diamond, disc, element, line, prepare, triangle } from "./canvas.js";
import { durationText, linearScale, numberText, valueScale } from "./scale.js";
import { extent, nearest, runsOf, smooth, window as indexWindow } from "./series.js";
import { DASHES } from "./theme.js";

const EDGE = { left: 52, right: 12, top: 8, bottom: 22 };
const MARK = 6;
const DRAG_PX = 5;

export class Panel {
  /** `spec`: title, unit, scale, note, series[{key, name, kind}]; `board`: the shared view and what it may be told. */
  constructor(spec, board) {
    this.spec = spec;
    this.board = board;
    this.build();
    this.listen();
    this.resizer = new ResizeObserver(() => board.redraw());
    this.resizer.observe(this.plot);
  }

  close() {
    this.resizer.disconnect();
  }

  build() {
    const { spec } = this;
    this.root = element("figure", "panel");
    this.root.dataset.panel = spec.series[0].key;
    const caption = element("figcaption");
    const title = element("span", "title", spec.title);
    if (spec.unit) title.append(element("span", "unit", spec.unit));
    this.legend = element("span", "legend");
    this.entries = spec.series.map((series, index) => this.buildEntry(series, index));
    caption.append(title, this.legend);
    if (spec.note) this.root.title = spec.note;
    this.plot = element("div", "plot");
    this.base = element("canvas");
    this.overlay = element("canvas", "overlay");
    this.overlay.tabIndex = 0;
    this.overlay.setAttribute("role", "img");
    this.empty = element("div", "empty", "No points yet");
    this.plot.append(this.base, this.overlay, this.empty);
    this.root.append(caption, this.plot);
  }

  buildEntry(series, index) {
    const entry = element("span", "entry");
    const swatch = element("canvas", "swatch");
    const value = element("output", "value", "–");
    entry.append(swatch, element("span", "name", series.name), value);
    this.legend.append(entry);
    return { series, index, swatch, value };
  }

  // --- drawing ---

  /** Draws curves and axes for the board's present view. */
  draw() {
    const { data, view } = this.board;
    const { clientWidth: width, clientHeight: height } = this.plot;
    if (!width) return;
    Object.assign(this, { width, height, right: width - EDGE.right, bottom: height - EDGE.bottom });
    this.curves = this.spec.series.map((series, index) => this.curveOf(series, index, data, view));
    const [low, high] = this.board.shownRange();
    this.x = linearScale(low, high, EDGE.left, this.right);
    this.y = this.verticalScale(low, high);
    this.context = prepare(this.base, width, height);
    this.drawAxes(width);
    this.drawMarks(width);
    for (const curve of this.curves) this.drawCurve(curve, width);
    this.report();
    this.drawOverlay();
  }

  curveOf(series, index, data, view) {
    const xs = data.positions(series.kind, view.axis);
    const raw = data.tables[series.kind].column(series.key);
    const smoothed = series.kind === "train" && view.smoothing > 0 ? smooth(raw, view.smoothing) : null;
    return { series, xs, raw, smoothed, color: this.colorOf(index), dash: DASHES[index % DASHES.length] };
  }

  colorOf(index) {
    const { palette } = this.board.theme;
    return palette[(this.spec.color + index) % palette.length];
  }

  verticalScale(low, high) {
    const all = { min: Infinity, max: -Infinity, smallest: Infinity };
    for (const { xs, raw } of this.curves) {
      const found = extent(raw, ...indexWindow(xs, low, high));
      if (!found) continue;
      all.min = Math.min(all.min, found.min);
      all.max = Math.max(all.max, found.max);
      if (found.smallest) all.smallest = Math.min(all.smallest, found.smallest);
    }
    this.isEmpty = all.min > all.max;
    const shown = this.isEmpty ? { min: 0, max: 1, smallest: 1 } : all;
    if (shown.smallest === Infinity) shown.smallest = 0;
    return valueScale(this.spec.scale, shown, this.bottom, EDGE.top);
  }

  drawAxes(width) {
    const { context, board } = this;
    context.font = `11px ${board.theme.font}`;
    context.lineWidth = 1;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const { value, label } of this.y.ticks(4)) {
      const y = Math.round(this.y.toPixel(value)) + 0.5;
      line(context, board.theme.grid, [EDGE.left, y], [this.right, y]);
      context.fillStyle = board.theme.muted;
      context.fillText(label, EDGE.left - 7, y);
    }
    const bottom = this.bottom + 0.5;
    line(context, board.theme.axis, [EDGE.left, bottom], [this.right, bottom]);
    context.textBaseline = "top";
    context.textAlign = "center";
    for (const { value, label } of this.x.ticks(Math.max(2, Math.floor(width / 90)))) {
      const x = this.x.toPixel(value);
      if (x < EDGE.left - 1 || x > this.right + 1) continue;
      context.fillStyle = board.theme.muted;
      context.fillText(board.view.axis === "time" ? durationText(value) : label, x, bottom + 6);
    }
  }

  // Checkpoints are small triangles on the axis; a restart is a dashed line with its attempt.
  drawMarks(width) {
    const { context, board } = this;
    const inside = (x) => x >= EDGE.left && x <= this.right;
    const { bottom } = this;
    for (const step of board.checkpoints) {
      const x = this.x.toPixel(board.data.positionOf(step, board.view.axis));
      if (!inside(x)) continue;
      triangle(context, [x, bottom], board.theme.muted);
    }
    for (const { step, attempt } of board.data.restarts) {
      const x = Math.round(this.x.toPixel(board.data.positionOf(step, board.view.axis))) + 0.5;
      if (!inside(x)) continue;
      context.setLineDash([3, 3]);
      line(context, board.theme.muted, [x, EDGE.top], [x, bottom]);
      context.setLineDash([]);
      context.fillStyle = board.theme.muted;
      context.textAlign = "left";
      context.textBaseline = "top";
      context.fillText(`attempt ${attempt}`, x + 4, EDGE.top);
    }
  }

  drawCurve(curve, width) {
    const { context } = this;
    const evaluation = curve.series.kind === "evaluation";
    const dots = curve.smoothed && this.spec.scale === "log";
    context.lineJoin = "round";
    context.strokeStyle = curve.color;
    this.clipped(0, () => {
      if (evaluation) this.stroke(curve, curve.raw, width, { alpha: 0.55, lineWidth: 1.25, dash: [4, 4] });
      else if (!curve.smoothed) this.stroke(curve, curve.raw, width, { alpha: 1, lineWidth: 1.5, dash: curve.dash });
      else if (!dots) this.stroke(curve, curve.raw, width, { alpha: 0.28, lineWidth: 1, dash: [] });
    });
    this.clipped(MARK, () => {
      if (evaluation) this.drawDiamonds(curve);
      if (dots) this.drawDots(curve, width);
    });
    this.clipped(0, () => {
      if (curve.smoothed) this.stroke(curve, curve.smoothed, width, { alpha: 1, lineWidth: 2, dash: curve.dash });
    });
  }

  // Lines end at the plot's edge; a mark that stands on the edge is drawn whole.
  clipped(room, draw) {
    const { context } = this;
    context.save();
    context.beginPath();
    context.rect(EDGE.left - room, 0, this.right - EDGE.left + 2 * room, this.bottom + MARK);
    context.clip();
    draw();
    context.restore();
  }

  // On a log axis the raw values are points: lines down to zero would hide everything.
  drawDots(curve, width) {
    const { context, x, y } = this;
    context.globalAlpha = 0.45;
    for (const run of runsOf(curve.xs, curve.raw, this.span(curve.xs), x.toPixel, width)) {
      for (const [px, value] of run) disc(context, [px, y.toPixel(value)], 1.8, curve.color);
    }
    context.globalAlpha = 1;
  }

  span(xs) {
    return indexWindow(xs, this.x.low, this.x.high);
  }

  stroke({ xs }, values, width, { alpha, lineWidth, dash }) {
    const { context, x, y } = this;
    context.globalAlpha = alpha;
    context.lineWidth = lineWidth;
    context.setLineDash(dash);
    for (const run of runsOf(xs, values, this.span(xs), x.toPixel, width)) {
      context.beginPath();
      run.forEach(([px, value], at) => (at ? context.lineTo(px, y.toPixel(value)) : context.moveTo(px, y.toPixel(value))));
      context.stroke();
      if (run.length === 1) disc(context, [run[0][0], y.toPixel(run[0][1])], 2, context.strokeStyle);
    }
    context.globalAlpha = 1;
    context.setLineDash([]);
  }

  drawDiamonds({ xs, raw, color }) {
    const { context, x, y, board } = this;
    const [first, end] = this.span(xs);
    const stride = Math.ceil((end - first) / 60);
    context.lineWidth = 1.75;
    for (let i = first; i < end; i += stride) {
      if (Number.isNaN(raw[i])) continue;
      const at = [x.toPixel(xs[i]), y.toPixel(raw[i])];
      diamond(context, at, 5, { stroke: color, fill: board.theme.background });
    }
  }

  /** Crosshair, the points under it, the stretch being selected, and the legend's numbers. */
  drawOverlay() {
    if (!this.x) return;
    const { board } = this;
    const context = prepare(this.overlay, this.width, this.height);
    const at = board.view.cursor;
    if (board.view.selection) {
      const [from, to] = board.view.selection.map((value) => this.x.toPixel(value));
      context.fillStyle = board.theme.selection;
      context.fillRect(Math.min(from, to), EDGE.top, Math.abs(to - from), this.bottom - EDGE.top);
    }
    const inside = at !== null && at >= this.x.low && at <= this.x.high;
    if (inside) {
      const px = Math.round(this.x.toPixel(at)) + 0.5;
      line(context, board.theme.axis, [px, EDGE.top], [px, this.bottom]);
    }
    for (const [index, curve] of this.curves.entries()) this.markPoint(context, curve, index, inside ? at : null);
  }

  markPoint(context, curve, index, at) {
    const point = at === null ? lastPoint(curve.raw) : nearest(curve.xs, at);
    this.entries[index].value.textContent = numberText(curve.raw[point] ?? NaN);
    if (at === null || point < 0 || Number.isNaN(curve.raw[point])) return;
    const where = [this.x.toPixel(curve.xs[point]), this.y.toPixel(curve.raw[point])];
    disc(context, where, 5, this.board.theme.background);
    disc(context, where, 3.5, curve.color);
  }

  /** Draws each series' line, dash and mark beside its name; again when the theme changes. */
  paintLegend() {
    for (const { series, index, swatch } of this.entries) {
      const context = prepare(swatch, 22, 12);
      context.setLineDash(series.kind === "evaluation" ? [4, 4] : DASHES[index % DASHES.length]);
      line(context, this.colorOf(index), [0, 6], [22, 6], 2);
      if (series.kind !== "evaluation") continue;
      context.setLineDash([]);
      diamond(context, [11, 6], 4.5, { stroke: this.colorOf(index), fill: this.board.theme.background });
    }
  }

  /** What a reader without eyes, and a test, can know of the panel. */
  report() {
    const counts = this.curves.map(({ raw }) => raw.reduce((sum, value) => sum + !Number.isNaN(value), 0));
    const { range } = this.board.view;
    this.empty.hidden = !this.isEmpty;
    this.root.dataset.numPoints = counts[0];
    this.root.dataset.zoom = range ? range.map((value) => Math.round(value * 1000) / 1000).join(":") : "";
    const last = this.curves.map(({ series, raw }) => `${series.name} ${numberText(raw[lastPoint(raw)] ?? NaN)}`);
    this.overlay.setAttribute(
      "aria-label",
      `${this.spec.title}: ${last.join(", ")} at step ${this.board.data.lastStep}. Arrow keys move the crosshair, plus and minus zoom, 0 shows everything.`,
    );
  }

  // --- what the reader does ---

  listen() {
    const { overlay, board } = this;
    let start = null;
    const valueAt = (event) => this.x.toValue(event.clientX - overlay.getBoundingClientRect().left);
    overlay.onpointerdown = (event) => {
      if (event.button !== 0 || !this.x) return;
      start = { pixel: event.clientX, value: valueAt(event) };
      overlay.setPointerCapture(event.pointerId);
    };
    overlay.onpointermove = (event) => {
      if (!this.x) return;
      board.hover(valueAt(event));
      if (start && Math.abs(event.clientX - start.pixel) > DRAG_PX) board.select([start.value, valueAt(event)]);
    };
    overlay.onpointerup = (event) => {
      const dragged = start && Math.abs(event.clientX - start.pixel) > DRAG_PX;
      if (dragged) board.zoom([start.value, valueAt(event)]);
      start = null;
      board.select(null);
    };
    overlay.onpointercancel = () => {
      start = null;
      board.select(null);
    };
    overlay.onpointerleave = () => board.hover(null);
    overlay.ondblclick = () => board.zoom(null);
    overlay.onkeydown = (event) => board.key(event);
    overlay.onblur = () => board.hover(null);
  }
}

function lastPoint(values) {
  let at = values.length - 1;
  while (at >= 0 && Number.isNaN(values[at])) at--;
  return at;
}
