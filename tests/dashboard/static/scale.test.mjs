// Axes of the live chart, by hand.
import assert from "node:assert/strict";
import { test } from "node:test";
import { durationText, linearScale, logScale, numberText, valueScale } from "../../../dashboard/static/live_chart/scale.js";

test("a straight axis maps its ends to its pixels and back", () => {
  const axis = linearScale(10, 20, 100, 300);
  assert.equal(axis.toPixel(10), 100);
  assert.equal(axis.toPixel(15), 200);
  assert.equal(axis.toValue(300), 20);
});

test("ticks are round numbers inside the axis", () => {
  const labels = (low, high) => linearScale(low, high, 0, 1).ticks(4).map(({ label }) => label);
  assert.deepEqual(labels(0.13, 0.97), ["0.2", "0.4", "0.6", "0.8"]);
  assert.deepEqual(labels(0, 150), ["0", "50", "100", "150"]);
  assert.deepEqual(labels(-0.02, 0.05), ["-0.02", "0", "0.02", "0.04"]);
});

test("every tick has the digits that tell it from the next, and all of an axis one unit", () => {
  const labels = (low, high) => linearScale(low, high, 0, 1).ticks(4).map(({ label }) => label);
  assert.deepEqual(labels(1203, 1223), ["1205", "1210", "1215", "1220"]);
  assert.deepEqual(labels(50005, 50065), ["50.02k", "50.04k", "50.06k"]);
  assert.deepEqual(labels(50001, 50009), ["50002", "50004", "50006", "50008"]);
  assert.deepEqual(labels(0, 20000), ["0", "5k", "10k", "15k", "20k"]);
  assert.deepEqual(labels(1.2e6, 1.29e6), ["1.20M", "1.22M", "1.24M", "1.26M", "1.28M"]);
  assert.deepEqual(labels(1.0e-4, 1.9e-4), ["1.0e-4", "1.2e-4", "1.4e-4", "1.6e-4", "1.8e-4"]);
  assert.deepEqual(labels(0.50001, 0.5001), ["0.50002", "0.50004", "0.50006", "0.50008", "0.50010"]);
});

test("a log axis gives every decade the same height", () => {
  const axis = logScale(1, 1000, 300, 0);
  assert.equal(axis.toPixel(1), 300);
  assert.equal(Math.round(axis.toPixel(10)), 200);
  assert.equal(Math.round(axis.toPixel(100)), 100);
});

test("zero lies on the bottom line of a log axis, which is labelled 0", () => {
  const axis = valueScale("log", { min: 0, max: 300, smallest: 40 }, 200, 0);
  assert.equal(axis.toPixel(0), 200);
  assert.ok(axis.toPixel(40) < 200);
  assert.equal(axis.ticks()[0].label, "0");
  assert.deepEqual(axis.ticks().slice(1).map(({ value }) => value), [10, 100, 1000]);
});

test("an axis of zeros alone is still an axis", () => {
  for (const kind of ["linear", "log"]) {
    const axis = valueScale(kind, { min: 0, max: 0, smallest: 0 }, 200, 0);
    assert.equal(axis.toPixel(0), 200);
    assert.ok(Number.isFinite(axis.toPixel(1)));
  }
});

test("a flat curve lies inside its axis, and values from zero up never show a negative axis", () => {
  const flat = valueScale("linear", { min: 0.4, max: 0.4, smallest: 0.4 }, 200, 0);
  assert.ok(flat.toPixel(0.4) > 0 && flat.toPixel(0.4) < 200);
  assert.equal(valueScale("linear", { min: 0.01, max: 9, smallest: 0.01 }, 200, 0).low, 0);
});

test("numbers keep three digits and durations two units", () => {
  assert.deepEqual([0, 0.01234, 42.06, 1234, 12345, 3.4e6, 2.1e-6].map(numberText), [
    "0", "0.0123", "42.1", "1234", "12.3k", "3.4M", "2.1e-6",
  ]);
  assert.equal(numberText(NaN), "–");
  assert.deepEqual([42, 185, 7440, 3600].map(durationText), ["42 s", "3 min 5 s", "2 h 4 min", "1 h"]);
});
