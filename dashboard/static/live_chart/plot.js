// The drawing of one chart on two canvases: axes, marks and curves below, crosshair and selection above.
// Is handed everything it shows; knows neither the board nor what the reader does.

import { diamond, disc, line, prepare, triangle } from "./canvas.js";
import { durationText, linearScale, valueScale } from "./scale.js";
import { extent, nearest, runsOf, window as indexWindow } from "./series.js";

const EDGE = { left: 52, right: 12, top: 8, bottom: 22 };
const MARK = 6;
const MAX_DIAMONDS = 60;
const FEW_DOTS = 400;

export class Plot {
  constructor(base, overlay) {
    this.base = base;
    this.overlay = overlay;
  }

  /** Whether something has been drawn, so that pixels mean positions. */
  get isDrawn() {
    return this.x !== undefined;
  }

  /** The position on the axis under a pixel of the overlay. */
  valueAt(pixel) {
    return this.x.toValue(pixel);
  }

  /**
   * Draws a scene: size [width, height], range [low, high], axis, scale (linear or log), theme, checkpoints and
   * evaluations [position], restarts [{position, attempt}], curves [{kind, xs, raw, smoothed, color, dash}].
   */
  draw(scene) {
    const [width, height] = scene.size;
    this.scene = scene;
    this.right = width - EDGE.right;
    this.bottom = height - EDGE.bottom;
    this.x = linearScale(...scene.range, EDGE.left, this.right);
    this.y = this.verticalScale();
    this.context = prepare(this.base, width, height);
    this.drawAxes();
    this.drawMarks();
    for (const curve of scene.curves) this.drawCurve(curve);
  }

  verticalScale() {
    const all = { min: Infinity, max: -Infinity, smallest: Infinity };
    for (const { xs, raw } of this.scene.curves) {
      const found = extent(raw, ...this.span(xs));
      if (!found) continue;
      all.min = Math.min(all.min, found.min);
      all.max = Math.max(all.max, found.max);
      all.smallest = Math.min(all.smallest, found.smallest || Infinity);
    }
    this.isEmpty = all.min > all.max;
    const shown = this.isEmpty ? { min: 0, max: 1, smallest: 1 } : all;
    if (shown.smallest === Infinity) shown.smallest = 0;
    return valueScale(this.scene.scale, shown, this.bottom, EDGE.top);
  }

  /** The indices of the points that are in sight, and one on either side. */
  span(xs) {
    return indexWindow(xs, this.x.low, this.x.high);
  }

  drawAxes() {
    const { context, right, bottom, scene } = this;
    const { theme } = scene;
    context.font = `11px ${theme.font}`;
    context.textBaseline = "middle";
    context.textAlign = "right";
    for (const { value, label } of this.y.ticks(4)) {
      const y = Math.round(this.y.toPixel(value)) + 0.5;
      line(context, theme.grid, [EDGE.left, y], [right, y]);
      context.fillStyle = theme.muted;
      context.fillText(label, EDGE.left - 7, y);
    }
    line(context, theme.axis, [EDGE.left, bottom + 0.5], [right, bottom + 0.5]);
    context.textBaseline = "top";
    context.textAlign = "center";
    for (const { value, label } of this.x.ticks(Math.max(2, Math.floor(scene.size[0] / 90)))) {
      const x = this.x.toPixel(value);
      if (!this.isInside(x)) continue;
      context.fillStyle = theme.muted;
      context.fillText(scene.axis === "time" ? durationText(value) : label, x, bottom + 6.5);
    }
  }

  isInside(x) {
    return x >= EDGE.left - 1 && x <= this.right + 1;
  }

  // Checkpoints are small triangles on the axis, evaluations small diamonds at the upper edge where no curve of theirs
  // is drawn; a restart is a dashed line with its attempt.
  drawMarks() {
    const { context, bottom } = this;
    const { theme, checkpoints, evaluations, restarts, curves } = this.scene;
    if (!curves.some(({ kind }) => kind === "evaluation")) this.drawEvaluations(evaluations, theme);
    for (const position of checkpoints) {
      const x = this.x.toPixel(position);
      if (this.isInside(x)) triangle(context, [x, bottom], theme.muted);
    }
    context.textAlign = "left";
    for (const { position, attempt } of restarts) {
      const x = Math.round(this.x.toPixel(position)) + 0.5;
      if (!this.isInside(x)) continue;
      context.setLineDash([3, 3]);
      line(context, theme.muted, [x, EDGE.top], [x, bottom]);
      context.setLineDash([]);
      context.fillStyle = theme.muted;
      context.fillText(`attempt ${attempt}`, x + 4, EDGE.top);
    }
  }

  drawEvaluations(positions, theme) {
    const [first, end] = this.span(positions);
    this.context.lineWidth = 1;
    for (let i = first; i < end; i += Math.ceil((end - first) / MAX_DIAMONDS)) {
      const x = this.x.toPixel(positions[i]);
      if (this.isInside(x)) diamond(this.context, [x, EDGE.top], 3, { stroke: theme.muted, fill: theme.background });
    }
  }

  // The smoothed line lies over the raw one. On a log axis the raw values are points: lines down to zero would hide
  // everything. Evaluations are diamonds.
  drawCurve(curve) {
    const isEvaluation = curve.kind === "evaluation";
    const isDotted = curve.smoothed && this.scene.scale === "log";
    this.context.strokeStyle = curve.color;
    this.context.lineJoin = "round";
    this.clipped(0, () => {
      if (isEvaluation) this.stroke(curve, curve.raw, { alpha: 0.55, lineWidth: 1.25, dash: [4, 4] });
      else if (!curve.smoothed) this.stroke(curve, curve.raw, { alpha: 1, lineWidth: 1.5, dash: curve.dash });
      else if (!isDotted) this.stroke(curve, curve.raw, { alpha: 0.28, lineWidth: 1, dash: [] });
    });
    this.clipped(MARK, () => {
      if (isEvaluation) this.drawDiamonds(curve);
      if (isDotted) this.drawDots(curve);
    });
    this.clipped(0, () => {
      if (curve.smoothed) this.stroke(curve, curve.smoothed, { alpha: 1, lineWidth: 2, dash: curve.dash });
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

  stroke({ xs }, values, { alpha, lineWidth, dash }) {
    const { context, y } = this;
    Object.assign(context, { globalAlpha: alpha, lineWidth });
    context.setLineDash(dash);
    for (const run of this.runs(xs, values)) {
      context.beginPath();
      for (const [px, value] of run) context.lineTo(px, y.toPixel(value));
      context.stroke();
      if (run.length === 1) disc(context, [run[0][0], y.toPixel(run[0][1])], 2, context.strokeStyle);
    }
  }

  drawDots({ xs, raw, color }) {
    const points = this.runs(xs, raw).flat();
    const radius = points.length < FEW_DOTS ? 2.5 : 1.6;
    this.context.globalAlpha = 0.55;
    for (const [px, value] of points) disc(this.context, [px, this.y.toPixel(value)], radius, color);
  }

  drawDiamonds({ xs, raw, color }) {
    const [first, end] = this.span(xs);
    const stride = Math.ceil((end - first) / MAX_DIAMONDS);
    this.context.lineWidth = 1.75;
    for (let i = first; i < end; i += stride) {
      if (Number.isNaN(raw[i])) continue;
      const at = [this.x.toPixel(xs[i]), this.y.toPixel(raw[i])];
      diamond(this.context, at, 5, { stroke: color, fill: this.scene.theme.background });
    }
  }

  runs(xs, values) {
    return runsOf(xs, values, this.span(xs), this.x.toPixel, this.scene.size[0]);
  }

  /** Draws crosshair and selection; gives back the index of each curve's point under the cursor, its last without. */
  drawOverlay({ cursor, selection }) {
    const { theme, curves, size } = this.scene;
    const context = prepare(this.overlay, ...size);
    if (selection) {
      const [from, to] = selection.map(this.x.toPixel);
      context.fillStyle = theme.selection;
      context.fillRect(Math.min(from, to), EDGE.top, Math.abs(to - from), this.bottom - EDGE.top);
    }
    if (cursor === null || cursor < this.x.low || cursor > this.x.high) return curves.map(({ raw }) => lastPoint(raw));
    const px = Math.round(this.x.toPixel(cursor)) + 0.5;
    line(context, theme.axis, [px, EDGE.top], [px, this.bottom]);
    return curves.map((curve) => this.markPoint(context, curve, nearest(curve.xs, cursor)));
  }

  markPoint(context, { xs, raw, color }, index) {
    if (index >= 0 && !Number.isNaN(raw[index])) {
      const at = [this.x.toPixel(xs[index]), this.y.toPixel(raw[index])];
      disc(context, at, 5, this.scene.theme.background);
      disc(context, at, 3.5, color);
    }
    return index;
  }
}

/** Index of the last value that is there, -1 when none is. */
export function lastPoint(values) {
  let at = values.length - 1;
  while (at >= 0 && Number.isNaN(values[at])) at--;
  return at;
}
