// The points of one run as columns, kept in the order of their steps. Knows the wire's rows and no drawing.

import { lowerBound, nearest } from "./series.js";

class Table {
  constructor() {
    this.steps = [];
    this.times = [];
    this.values = new Map();
  }

  column(key) {
    return this.values.get(key) ?? [];
  }

  cut(step) {
    const length = lowerBound(this.steps, step);
    this.steps.length = length;
    this.times.length = length;
    for (const column of this.values.values()) column.length = Math.min(column.length, length);
  }

  /** The rows from `step` onwards, as the wire has them. */
  rowsFrom(step) {
    const rows = [];
    for (let at = lowerBound(this.steps, step); at < this.steps.length; at++) {
      const values = Object.fromEntries([...this.values].map(([key, column]) => [key, column[at]]));
      rows.push({ step: this.steps[at], created_at: this.times[at], values });
    }
    return rows;
  }

  push(row) {
    this.cut(row.step);
    const at = this.steps.length;
    this.steps.push(row.step);
    this.times.push(row.created_at);
    for (const [key, value] of Object.entries(row.values)) {
      let column = this.values.get(key);
      if (!column) this.values.set(key, (column = []));
      while (column.length < at) column.push(NaN);
      column.push(value ?? NaN);
    }
    for (const column of this.values.values()) if (column.length <= at) column.push(NaN);
  }
}

export class RunData {
  constructor() {
    this.tables = { train: new Table(), evaluation: new Table() };
    this.restarts = [];
    this.lastSeq = 0;
    this.attempt = null;
    this.startTime = null;
  }

  /** Takes one row of the wire. A step that comes again (a later attempt) replaces what lay from it onwards. */
  add(row) {
    const table = this.tables[row.kind];
    if (!table) return;
    if (this.attempt !== null && row.attempt > this.attempt) this.restart(row);
    this.attempt = Math.max(this.attempt ?? 0, row.attempt);
    this.startTime = Math.min(this.startTime ?? Infinity, row.created_at);
    table.push(row);
    this.lastSeq = Math.max(this.lastSeq, row.seq);
  }

  restart(row) {
    this.restarts = this.restarts.filter((mark) => mark.step < row.step);
    this.restarts.push({ step: row.step, attempt: row.attempt });
    this.tables.train.cut(row.kind === "train" ? row.step : row.step + 1);
    this.tables.evaluation.cut(row.step);
  }

  /** Puts rows of a stretch between those that are there: they replace that stretch, and nothing behind it. */
  fill(rows) {
    for (const [kind, table] of Object.entries(this.tables)) {
      const own = rows.filter((row) => row.kind === kind);
      if (!own.length) continue;
      const later = table.rowsFrom(own.at(-1).step + 1);
      table.cut(own[0].step);
      for (const row of [...own, ...later]) table.push(row);
    }
    for (const row of rows) this.startTime = Math.min(this.startTime ?? Infinity, row.created_at);
    this.fillRestarts(rows.filter((row) => row.kind === "train"));
  }

  fillRestarts(rows) {
    if (!rows.length) return;
    const outside = this.restarts.filter(({ step }) => step <= rows[0].step || step > rows.at(-1).step);
    const inside = rows.filter((row, at) => at && row.attempt > rows[at - 1].attempt);
    this.restarts = [...outside, ...inside.map(({ step, attempt }) => ({ step, attempt }))];
  }

  /** First and last step inside a range of the axis. */
  stepsWithin([low, high], axis) {
    const { steps } = this.tables.train;
    const xs = this.positions("train", axis);
    const first = Math.max(0, lowerBound(xs, low) - 1);
    return [steps[first] ?? 0, steps[Math.min(steps.length - 1, lowerBound(xs, high))] ?? 0];
  }

  get lastStep() {
    return this.tables.train.steps.at(-1) ?? 0;
  }

  /** The horizontal positions of a kind's points on the axis `axis`: step, time (seconds of the run) or tokens. */
  positions(kind, axis) {
    const table = this.tables[kind];
    if (axis === "time") return table.times.map((time) => time - this.startTime);
    if (axis === "tokens") return table.steps.map((step) => this.tokensAt(step));
    return table.steps;
  }

  /** Where a step lies on the axis. */
  positionOf(step, axis) {
    if (axis === "step") return step;
    if (axis === "tokens") return this.tokensAt(step);
    const { steps, times } = this.tables.train;
    const at = nearest(steps, step);
    return at < 0 ? NaN : times[at] - this.startTime;
  }

  tokensAt(step) {
    const { steps } = this.tables.train;
    const at = lowerBound(steps, step + 1) - 1;
    return at < 0 ? 0 : this.tables.train.column("tokens/total")[at] ?? NaN;
  }
}
