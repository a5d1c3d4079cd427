// The view of a board in the page's address.
import assert from "node:assert/strict";
import { test } from "node:test";
import { readView, withView } from "../../../dashboard/static/live_chart/address.js";

const known = { axes: ["step", "time", "tokens"], smoothings: [0, 0.7, 0.9] };

test("the usual view is not named, and everything else in the address stays", () => {
  const usual = { axis: "step", smoothing: 0.7, range: null, logs: [] };
  assert.equal(withView("http://h/run?run=a&tab=Log&zoom=1~2", usual), "http://h/run?run=a&tab=Log");
  assert.deepEqual(readView("?run=a", known), usual);
});

test("a view that was named is read again", () => {
  const view = { axis: "tokens", smoothing: 0.9, range: [10.5, 200], logs: ["policy/entropy", "mask/ppm"] };
  const address = withView("http://h/run?run=a", view);
  assert.deepEqual(readView(new URL(address).search, known), view);
});

test("what cannot be is read as the usual view", () => {
  const usual = { axis: "step", smoothing: 0.7, range: null, logs: [] };
  assert.deepEqual(readView("?axis=weather&smoothing=7&zoom=9~1", known), usual);
  assert.deepEqual(readView("?zoom=a~b", known), usual);
});
