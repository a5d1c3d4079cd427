// Arithmetic on curves, by hand and by brute force.
import assert from "node:assert/strict";
import { test } from "node:test";
import { extent, lowerBound, nearest, runsOf, smooth, window } from "../../../dashboard/static/live_chart/series.js";

test("smoothing starts at the first value and leans on the weight", () => {
  assert.deepEqual(smooth([4, 4, 4], 0.9).map((value) => Math.round(value * 1e9) / 1e9), [4, 4, 4]);
  const [, second] = smooth([0, 1], 0.5); // (0.5*0.5*0 + 0.5*1) / (0.25 + 0.5)
  assert.ok(Math.abs(second - 2 / 3) < 1e-12);
});

test("a gap stays a gap and does not begin the average anew", () => {
  const smoothed = smooth([2, NaN, 2, 5], 0.5);
  assert.ok(Number.isNaN(smoothed[1]));
  assert.equal(smoothed[2], 2);
  assert.ok(smoothed[3] < 5);
});

test("a value is found by its place", () => {
  assert.equal(lowerBound([1, 3, 5], 3), 1);
  assert.equal(lowerBound([1, 3, 5], 6), 3);
  assert.deepEqual([0, 1.9, 2.1, 9].map((x) => nearest([1, 3, 5], x)), [0, 0, 1, 2]);
  assert.equal(nearest([], 1), -1);
});

test("a window reaches one neighbour past either edge", () => {
  assert.deepEqual(window([0, 10, 20, 30, 40], 15, 25), [1, 4]);
  assert.deepEqual(window([0, 10, 20], -5, 99), [0, 3]);
});

test("extents leave gaps out and know the least value above zero", () => {
  assert.deepEqual(extent([0, NaN, 7, 2], 0, 4), { min: 0, max: 7, smallest: 2 });
  assert.equal(extent([NaN, NaN], 0, 2), null);
});

test("thinning 100,000 points to 500 columns keeps the one spike and the one dip", () => {
  const xs = Array.from({ length: 100_000 }, (_, i) => i);
  const values = xs.map((x) => Math.sin(x / 9000));
  values[31_415] = 50;
  values[77_777] = -50;
  const runs = runsOf(xs, values, [0, xs.length], (x) => x / 200, 500);
  assert.equal(runs.length, 1);
  assert.ok(runs[0].length <= 501 * 4);
  const drawn = runs[0].map(([, value]) => value);
  assert.ok(drawn.includes(50) && drawn.includes(-50));
  assert.ok(runs[0].every(([x], at) => at === 0 || x >= runs[0][at - 1][0]));
});

test("a gap breaks a curve in two", () => {
  const runs = runsOf([0, 1, 2, 3], [1, NaN, 2, 3], [0, 4], (x) => x, 100);
  assert.deepEqual(runs, [[[0, 1]], [[2, 2], [3, 3]]]);
});
