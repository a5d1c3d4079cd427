// The columns of a run, fed with rows of the wire.
import assert from "node:assert/strict";
import { test } from "node:test";
import { RunData } from "../../../dashboard/static/live_chart/run_data.js";

const row = (step, seq, values, rest = {}) => ({
  kind: "train", step, seq, created_at: 1000 + step, attempt: 1, values, ...rest,
});

test("a key that comes late, or not at every step, leaves gaps and shifts nothing", () => {
  const data = new RunData();
  data.add(row(1, 1, { a: 1 }));
  data.add(row(2, 2, { a: 2, b: 20 }));
  data.add(row(3, 3, { b: null }));
  assert.deepEqual(data.tables.train.column("a"), [1, 2, NaN]);
  assert.deepEqual(data.tables.train.column("b"), [NaN, 20, NaN]);
});

test("a later attempt replaces the steps it does again and leaves a mark", () => {
  const data = new RunData();
  for (const step of [1, 2, 3, 4]) data.add(row(step, step, { a: step }));
  data.add(row(2, 5, { a: 5 }, { kind: "evaluation" }));
  data.add(row(3, 9, { a: 30 }, { attempt: 2 }));
  assert.deepEqual(data.tables.train.steps, [1, 2, 3]);
  assert.deepEqual(data.tables.train.column("a"), [1, 2, 30]);
  assert.deepEqual(data.tables.evaluation.steps, [2]);
  assert.deepEqual(data.restarts, [{ step: 3, attempt: 2 }]);
  assert.equal(data.lastSeq, 9);
});

test("an evaluation that a later attempt repeats takes no training step away", () => {
  const data = new RunData();
  for (const step of [1, 2, 3]) data.add(row(step, step, { a: step }));
  data.add(row(2, 7, { a: 0.5 }, { kind: "evaluation", attempt: 2 }));
  assert.deepEqual(data.tables.train.steps, [1, 2]);
});

test("the axis may be steps, seconds since the first point, or tokens", () => {
  const data = new RunData();
  data.add(row(1, 1, { "tokens/total": 500 }));
  data.add(row(3, 2, { "tokens/total": 1500 }));
  data.add(row(3, 3, {}, { kind: "evaluation", created_at: 1009 }));
  assert.deepEqual(data.positions("train", "step"), [1, 3]);
  assert.deepEqual(data.positions("train", "time"), [0, 2]);
  assert.deepEqual(data.positions("train", "tokens"), [500, 1500]);
  assert.deepEqual(data.positions("evaluation", "time"), [8]);
  assert.deepEqual(data.positions("evaluation", "tokens"), [1500]);
});

test("a stretch that is fetched in full goes between what is there", () => {
  const data = new RunData();
  for (const step of [1, 10, 20, 30]) data.add(row(step, step, { a: step }));
  data.fill([row(10, 10, { a: 10 }), row(14, 14, { a: 14 }), row(20, 20, { a: 20 })]);
  assert.deepEqual(data.tables.train.steps, [1, 10, 14, 20, 30]);
  assert.deepEqual(data.tables.train.column("a"), [1, 10, 14, 20, 30]);
});

test("earlier evaluations and restarts find their place, however often a stretch is fetched", () => {
  const data = new RunData();
  for (const step of [8, 9]) data.add(row(step, step, { a: step }, { attempt: 2, created_at: 2000 }));
  const earlier = [
    row(0, 1, { e: 0.1 }, { kind: "evaluation", created_at: 900 }),
    row(1, 2, { a: 1 }), row(4, 3, { a: 4 }), row(5, 9, { a: 5 }, { attempt: 2 }),
  ];
  data.fill(earlier);
  data.fill(earlier);
  assert.deepEqual(data.tables.train.steps, [1, 4, 5, 8, 9]);
  assert.deepEqual(data.tables.evaluation.column("e"), [0.1]);
  assert.deepEqual(data.restarts, [{ step: 5, attempt: 2 }]);
  assert.equal(data.startTime, 900);
});
