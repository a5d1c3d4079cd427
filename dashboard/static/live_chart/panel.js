// One chart on the page: title, legend and plot. Shows what the board's view says and tells the board what the
// reader does: hover, drag, double-click, keys.

import { diamond, element, line, prepare } from "./canvas.js";
import { Plot, lastPoint } from "./plot.js";
import { numberText } from "./scale.js";
import { smooth } from "./series.js";
import { DASHES } from "./theme.js";

const DRAG_PX = 5;
const KEYS_HELP =
  "Arrow keys move the crosshair, plus and minus zoom, 0 shows everything, l turns the axis, Enter offers the step's tokens.";

export class Panel {
  /** `spec`: title, unit, scale, color, note, series[{key, name, kind}]; `board`: the shared view. */
  constructor(spec, board) {
    this.spec = spec;
    this.board = board;
    this.build();
    this.plot = new Plot(this.base, this.overlay);
    this.listen();
    this.resizer = new ResizeObserver(() => board.redraw());
    this.resizer.observe(this.area);
    this.watcher = new IntersectionObserver((entries) => this.moved(entries.at(-1).isIntersecting));
    this.watcher.observe(this.area);
  }

  close() {
    this.resizer.disconnect();
    this.watcher.disconnect();
  }

  // --- building ---

  build() {
    const { spec } = this;
    this.root = element("figure", "panel");
    this.root.dataset.panel = spec.series[0].key;
    if (spec.note) this.root.title = spec.note;
    const caption = element("figcaption");
    const title = element("span", "title", spec.title);
    if (spec.unit) title.append(element("span", "unit", ` ${spec.unit}`));
    this.legend = element("span", "legend");
    this.entries = spec.series.map((series, index) => this.buildEntry(series, index));
    caption.append(title, this.legend, this.buildLog());
    this.root.append(caption, this.buildArea());
  }

  buildArea() {
    this.area = element("div", "plot");
    this.base = element("canvas");
    this.overlay = element("canvas", "overlay");
    this.overlay.tabIndex = 0;
    this.overlay.setAttribute("role", "img");
    this.empty = element("div", "empty", "No points yet");
    this.area.append(this.base, this.overlay, this.empty);
    return this.area;
  }

  buildLog() {
    this.log = element("button", "log", "log");
    this.log.type = "button";
    this.log.onclick = () => this.board.toggleLog(this.spec.series[0].key);
    return this.log;
  }

  /** The vertical axis: the panel's own, unless the reader has turned it. */
  get scale() {
    const isTurned = this.board.view.logs.includes(this.spec.series[0].key);
    return (this.spec.scale === "log") === isTurned ? "linear" : "log";
  }

  buildEntry(series, index) {
    const entry = element("span", "entry");
    const swatch = element("canvas", "swatch");
    const value = element("span", "value", "–");
    entry.append(swatch, element("span", "name", series.name), value);
    this.legend.append(entry);
    return { series, index, swatch, value };
  }

  // --- drawing ---

  /** A panel that comes into sight catches up; one that is out of sight costs nothing. */
  moved(isInSight) {
    this.isInSight = isInSight;
    if (isInSight) this.board.redraw();
  }

  /** Draws the board's present view. */
  draw() {
    const { data, view, theme } = this.board;
    this.curves = this.spec.series.map((series, index) => this.curveOf(series, index));
    this.report();
    if (!this.isInSight || !this.area.clientWidth) return;
    this.plot.draw({
      size: [this.area.clientWidth, this.area.clientHeight],
      range: this.board.shownRange(),
      axis: view.axis,
      scale: this.scale,
      theme,
      checkpoints: this.board.checkpoints.map((step) => data.positionOf(step, view.axis)),
      evaluations: data.positions("evaluation", view.axis),
      restarts: data.restarts.map(({ step, attempt }) => ({ position: data.positionOf(step, view.axis), attempt })),
      curves: this.curves.map((curve) => ({ ...curve, smoothed: this.smoothedOf(curve) })),
    });
    this.empty.hidden = !this.plot.isEmpty;
    this.drawOverlay();
  }

  curveOf(series, index) {
    const { data, view } = this.board;
    return {
      kind: series.kind,
      xs: data.positions(series.kind, view.axis),
      raw: data.tables[series.kind].column(series.key),
      color: this.colorOf(index),
      dash: DASHES[index % DASHES.length],
    };
  }

  smoothedOf({ kind, raw }) {
    const { smoothing } = this.board.view;
    return kind === "train" && smoothing > 0 ? smooth(raw, smoothing) : null;
  }

  colorOf(index) {
    const { palette } = this.board.theme;
    return palette[(this.spec.color + index) % palette.length];
  }

  /** Crosshair, selection, and the numbers of the legend. */
  drawOverlay() {
    if (!this.plot.isDrawn) return;
    const points = this.plot.drawOverlay(this.board.view);
    for (const { index, value } of this.entries) {
      value.textContent = numberText(this.curves[index].raw[points[index]] ?? NaN);
    }
  }

  /** Draws each series' line, dash and mark beside its name; again when the theme changes. */
  paintLegend() {
    for (const { series, index, swatch } of this.entries) {
      const isEvaluation = series.kind === "evaluation";
      const context = prepare(swatch, 22, 12);
      context.setLineDash(isEvaluation ? [4, 4] : DASHES[index % DASHES.length]);
      line(context, this.colorOf(index), [0, 6], [22, 6], 2);
      context.setLineDash([]);
      const look = { stroke: this.colorOf(index), fill: this.board.theme.background };
      if (isEvaluation) diamond(context, [11, 6], 4.5, look);
    }
  }

  /** What a reader without eyes, and a test, can know of the panel. */
  report() {
    const { range } = this.board.view;
    const known = this.curves[0].raw.reduce((sum, value) => sum + !Number.isNaN(value), 0);
    this.root.dataset.numPoints = known;
    this.root.dataset.scale = this.scale;
    this.log.setAttribute("aria-pressed", this.scale === "log");
    this.log.title = this.scale === "log" ? "Logarithmic axis, 0 on the bottom line; turn it linear (key l)" : "Turn the axis logarithmic (key l)";
    this.root.dataset.zoom = range ? range.map((value) => Math.round(value * 1000) / 1000).join(":") : "";
    const last = this.curves.map(({ raw }, at) => {
      return `${this.spec.series[at].name} ${numberText(raw[lastPoint(raw)] ?? NaN)}`;
    });
    const where = `at step ${this.board.data.lastStep}`;
    this.overlay.setAttribute("aria-label", `${this.spec.title}: ${last.join(", ")} ${where}. ${KEYS_HELP}`);
  }

  // --- what the reader does ---

  listen() {
    const { overlay, board } = this;
    let start = null;
    const valueAt = (event) => this.plot.valueAt(event.clientX - overlay.getBoundingClientRect().left);
    const isDrag = (event) => start && Math.abs(event.clientX - start.pixel) > DRAG_PX;
    const finish = () => {
      start = null;
      board.select(null);
    };
    overlay.onpointerdown = (event) => {
      if (event.button !== 0 || !this.plot.isDrawn) return;
      start = { pixel: event.clientX, value: valueAt(event) };
      overlay.setPointerCapture(event.pointerId);
    };
    overlay.onpointermove = (event) => {
      if (!this.plot.isDrawn) return;
      board.hover(valueAt(event));
      if (isDrag(event)) board.select([start.value, valueAt(event)]);
    };
    overlay.onpointerup = (event) => {
      if (isDrag(event)) board.zoom([start.value, valueAt(event)]);
      else if (start) board.pin(valueAt(event));
      finish();
    };
    overlay.onpointercancel = finish;
    overlay.onpointerleave = () => board.hover(null);
    overlay.ondblclick = () => board.zoom(null);
    overlay.onkeydown = (event) => {
      if (event.key === "l" && !event.ctrlKey && !event.metaKey && !event.altKey) this.log.click();
      else board.key(event);
    };
    overlay.onblur = () => board.hover(null);
  }
}
