// The board of panels of one run page: one stream, one view (range, axis, smoothing, crosshair) shared by all panels.

import { readView, withView } from "./address.js";
import { element } from "./canvas.js";
import { Header } from "./header.js";
import { Panel } from "./panel.js";
import { RunData } from "./run_data.js";
import { durationText, numberText } from "./scale.js";
import { lowerBound, nearest } from "./series.js";
import { RunStream } from "./stream.js";
import { readTheme } from "./theme.js";
import { JobWatch } from "./watch.js";

const AXES = { step: "Step", time: "Time", tokens: "Tokens" };
const SMOOTHINGS = [0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99];
const TICKET_MARGIN_S = 60;
const MARKS = [["▲", "checkpoint"], ["◇", "evaluation"], ["┆", "restart"]];
const STATUS = {
  loading: "Loading the curves",
  live: "Live",
  waiting: "The API does not answer; trying again",
  ended: "Ended",
};

export class Board {
  /**
   * `config`: source{url, ticket, expires_at, active, state, keys}, run (for the header), rows[{title, panels}],
   * checkpoints[steps]. `tell.moved(state)` asks the page's server to look again, `tell.lapsed()` for another ticket.
   */
  constructor(root, config, tell) {
    this.root = root;
    this.tell = tell;
    this.data = new RunData();
    this.checkpoints = config.checkpoints;
    const known = { axes: Object.keys(AXES), smoothings: SMOOTHINGS };
    this.view = { cursor: null, selection: null, ...readView(location.search, known) };
    this.theme = readTheme(root);
    this.header = new Header(config.run);
    root.append(this.header.root);
    this.buildToolbar();
    this.panels = config.rows.flatMap((row) => this.buildRow(row));
    for (const panel of this.panels) panel.paintLegend();
    this.stream = new RunStream(config.source, this.data, {
      rows: (rows) => this.take(rows),
      earlier: (rows) => this.takeEarlier(rows),
      status: (word, detail) => this.showStatus(word, detail),
      state: (progress) => this.takeState(progress),
      refusal: () => this.tell.lapsed(),
    });
    this.watch = new JobWatch(config.source, {
      job: (job) => this.takeJob(job),
      checkpoints: (steps) => this.takeCheckpoints(steps),
      silence: () => this.stream.suspect(),
      refusal: () => this.tell.lapsed(),
    });
    this.awaitLapse(config.source);
    this.redraw();
  }

  /** Takes what the page's server side says anew: ticket, how the run stands, checkpoints, theme. */
  update(config) {
    this.checkpoints = config.checkpoints;
    this.theme = readTheme(this.root);
    for (const panel of this.panels) panel.paintLegend();
    this.header.update(config.run);
    this.stream.update(config.source);
    this.watch.update(config.source);
    this.awaitLapse(config.source);
    this.redraw();
  }

  close() {
    this.stream.close();
    this.watch.close();
    this.header.close();
    clearTimeout(this.lapse);
    cancelAnimationFrame(this.frame);
    for (const panel of this.panels) panel.close();
    this.root.replaceChildren();
  }

  // --- building ---

  buildToolbar() {
    const bar = element("div", "toolbar");
    this.status = element("span", "status");
    this.status.setAttribute("role", "status");
    this.readout = element("span", "readout");
    const key = element("span", "marks", MARKS.map(([sign, name]) => `${sign} ${name}`).join("  "));
    bar.append(this.status, this.readout, this.buildTokensLink(), this.buildReset(), key, this.buildAxes(), this.buildSmoothing());
    this.root.append(bar);
  }

  buildTokensLink() {
    this.tokensLink = element("a", "tokens-link");
    this.tokensLink.target = "_self";
    this.tokensLink.title = "Look at the recorded tokens of the step that was clicked";
    return this.tokensLink;
  }

  buildReset() {
    this.reset = element("button", "reset", "Show all");
    this.reset.type = "button";
    this.reset.title = "Undo the zoom (double-click on a chart, or the key 0)";
    this.reset.onclick = () => this.zoom(null);
    this.reset.classList.toggle("offered", this.view.range !== null);
    return this.reset;
  }

  buildAxes() {
    const group = element("span", "axes");
    group.setAttribute("role", "radiogroup");
    group.setAttribute("aria-label", "Horizontal axis");
    for (const [axis, name] of Object.entries(AXES)) {
      const label = element("label");
      const input = element("input");
      input.type = "radio";
      input.name = "axis";
      input.checked = axis === this.view.axis;
      input.onchange = () => {
        this.view.axis = axis;
        this.zoom(null);
      };
      label.append(input, element("span", "", name));
      group.append(label);
    }
    return group;
  }

  buildSmoothing() {
    const label = element("label", "smoothing");
    const input = element("input");
    const value = element("output", "", String(this.view.smoothing));
    input.type = "range";
    input.min = 0;
    input.max = SMOOTHINGS.length - 1;
    input.value = SMOOTHINGS.indexOf(this.view.smoothing);
    input.oninput = () => {
      this.view.smoothing = SMOOTHINGS[input.value];
      value.textContent = this.view.smoothing;
      this.name();
      this.redraw();
    };
    label.append(element("span", "", "Smoothing"), input, value);
    return label;
  }

  buildRow({ title, panels, dense }) {
    this.root.append(element("h3", "row-title", title));
    const row = element("div", dense ? "row dense" : "row");
    this.root.append(row);
    return panels.map((spec) => {
      const panel = new Panel(spec, this);
      row.append(panel.root);
      return panel;
    });
  }

  // --- data ---

  take(rows) {
    for (const row of rows) this.data.add(row);
    this.root.dataset.lastSeq = this.data.lastSeq;
    this.header.take(rows);
    this.redraw();
  }

  takeEarlier(rows) {
    this.data.fill(rows);
    this.redraw();
  }

  takeState(progress) {
    const state = `${progress.state} ${progress.attempt}`;
    const last = this.root.dataset.state ?? this.stream?.source.state;
    this.root.dataset.state = state;
    this.header.heard();
    this.header.update({ job: progress });
    if (last === undefined || state === last) return;
    this.tell.moved(state);
    this.watch.look();
  }

  takeJob(job) {
    this.header.heard();
    this.header.update({ job });
  }

  // The first checkpoint is what a run can be forked from: the page's server offers that.
  takeCheckpoints(steps) {
    const isFirst = !this.checkpoints.length && steps.length > 0;
    if (steps.join() === this.checkpoints.join()) return;
    this.checkpoints = steps;
    this.redraw();
    if (isFirst) this.tell.moved("checkpoint");
  }

  showStatus(word, detail = "") {
    this.root.dataset.stream = word;
    this.status.textContent = STATUS[word] + detail;
    this.header.takeStatus(word);
  }

  awaitLapse({ expires_at: expiresAt, active }) {
    clearTimeout(this.lapse);
    const seconds = expiresAt - Date.now() / 1000 - TICKET_MARGIN_S;
    if (active) this.lapse = setTimeout(() => this.tell.lapsed(), Math.max(5, seconds) * 1000);
  }

  // --- the shared view ---

  /** What the panels show: the reader's range, else everything there is. */
  shownRange() {
    if (this.view.range) return this.view.range;
    const xs = this.data.positions("train", this.view.axis);
    const last = xs.at(-1);
    return [this.view.axis === "step" ? 0 : Math.min(0, xs[0] ?? 0), last > 0 ? last : 1];
  }

  /** Puts the crosshair on the step nearest to `value` in all panels; null takes it away. */
  hover(value) {
    if (value === null) this.readout.setAttribute("aria-live", "off");
    const xs = value === null ? [] : this.data.positions("train", this.view.axis);
    this.view.cursor = xs[nearest(xs, value)] ?? null;
    this.redrawOverlays();
  }

  /** Offers the tokens of the step at `value`, or of the crosshair's; the link stays until another is chosen. */
  pin(value = null) {
    const xs = this.data.positions("train", this.view.axis);
    const at = value ?? this.view.cursor;
    const step = at === null ? undefined : this.data.tables.train.steps[nearest(xs, at)];
    if (step === undefined || !this.stream.source.tokens) return;
    this.tokensLink.href = `${this.stream.source.tokens}&step=${step}`;
    this.tokensLink.textContent = `Tokens of step ${step}`;
  }

  select(range) {
    this.view.selection = range;
    this.redrawOverlays();
  }

  /** Shows a stretch of the axis in all panels and keeps it while points arrive; null shows everything. */
  zoom(range) {
    this.view.range = range && this.bounded(range);
    this.reset.classList.toggle("offered", this.view.range !== null);
    this.name();
    this.redraw();
    this.refine();
  }

  /** Turns one panel's vertical axis from linear to logarithmic, or back. */
  toggleLog(panel) {
    const { logs } = this.view;
    this.view.logs = logs.includes(panel) ? logs.filter((each) => each !== panel) : [...logs, panel];
    this.name();
    this.redraw();
  }

  /** Names the view in the page's address. */
  name() {
    const address = withView(location.href, this.view);
    if (address !== location.href) history.replaceState(history.state, "", address);
  }

  bounded([from, to]) {
    const xs = this.data.positions("train", this.view.axis);
    const low = Math.max(Math.min(from, to), Math.min(0, xs[0] ?? 0));
    const high = Math.min(Math.max(from, to), xs.at(-1) ?? 1);
    const least = this.view.axis === "step" ? 2 : (xs.at(-1) ?? 1) / 1e5;
    return high - low >= least ? [low, high] : null;
  }

  key(event) {
    const [low, high] = this.shownRange();
    const middle = this.view.cursor ?? (low + high) / 2;
    const around = (factor) => [middle - (middle - low) * factor, middle + (high - middle) * factor];
    const moves = {
      ArrowLeft: () => this.step(-1, event.shiftKey),
      ArrowRight: () => this.step(1, event.shiftKey),
      "+": () => this.zoom(around(0.5)),
      "=": () => this.zoom(around(0.5)),
      "-": () => this.zoom(this.view.range && around(2)),
      0: () => this.zoom(null),
      Enter: () => this.pin(),
      Escape: () => this.zoom(null),
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    moves[event.key]();
  }

  step(direction, far) {
    const xs = this.data.positions("train", this.view.axis);
    if (!xs.length) return;
    this.readout.setAttribute("aria-live", "polite"); // who walks by keys may be listening
    const [low, high] = this.shownRange();
    const stride = far ? Math.max(1, Math.round((lowerBound(xs, high) - lowerBound(xs, low)) / 10)) : 1;
    const at = this.view.cursor === null ? lowerBound(xs, high) : nearest(xs, this.view.cursor) + direction * stride;
    this.hover(Math.min(high, Math.max(low, xs[Math.max(0, Math.min(xs.length - 1, at))])));
  }

  // A long run arrives thinned out; a zoomed stretch of it is fetched in full.
  refine() {
    clearTimeout(this.refineTimer);
    if (!this.stream.thinned || !this.view.range) return;
    this.refineTimer = setTimeout(async () => {
      const steps = this.data.stepsWithin(this.view.range, this.view.axis);
      try {
        this.takeEarlier(await this.stream.loadStretch(...steps));
      } catch {
        return; // the thinned points stay; the stream says that the API does not answer
      }
    }, 150);
  }

  // --- drawing, at most once per frame ---

  redraw() {
    this.stale = true;
    this.redrawOverlays();
  }

  redrawOverlays() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      for (const panel of this.panels) this.stale ? panel.draw() : panel.drawOverlay();
      this.stale = false;
      this.showReadout();
    });
  }

  showReadout() {
    const { cursor, axis } = this.view;
    const { steps, times } = this.data.tables.train;
    const xs = this.data.positions("train", axis);
    const at = cursor === null ? steps.length - 1 : nearest(xs, cursor);
    if (at < 0) {
      this.readout.textContent = "";
      return;
    }
    const since = durationText(Math.max(0, times[at] - this.data.startTime));
    const tokens = numberText(this.data.tokensAt(steps[at]));
    this.readout.textContent = `Step ${steps[at]} · ${since} since the first point · ${tokens} tokens`;
  }
}
