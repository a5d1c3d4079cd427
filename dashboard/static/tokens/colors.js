// What colours a token: each measure as an amount between -1 and 1, and the ends of its legend. Pure.

import { numberText } from "../live_chart/scale.js";

const BLUE = { light: "0, 114, 178", dark: "86, 180, 233" };
const ORANGE = { light: "213, 94, 0", dark: "255, 143, 77" };
const GREEN = { light: "0, 158, 115", dark: "43, 195, 154" };
const PINK = { light: "178, 84, 136", dark: "226, 155, 195" };
const STRONGEST = 0.62; // text stays readable above it
const RAREST = 4; // decades of probability from white to full

/** Each measure: the token's field, the colours above and below its middle, and its amount for a value. */
export const MEASURES = {
  probability: { field: "p", above: ORANGE, amount: (p) => clamp(-Math.log10(Math.max(p, 1e-30)) / RAREST), ends: () => ["1", "≤ 1e-4"] },
  entropy: { field: "entropy", above: GREEN, amount: (value, top) => Math.sqrt(clamp(value / top)), ends: ends },
  advantage: { field: "advantage", above: BLUE, below: ORANGE, amount: (value, top) => clamp(value / top), ends: (top) => [numberText(-top), "0", numberText(top)] },
  ratio: { field: "ratio", above: BLUE, below: ORANGE, amount: (value) => clamp(Math.log2(Math.max(value, 1e-9))), ends: () => ["½", "1", "2"] },
  gradient: { field: "grad_norm", above: PINK, amount: (value, top) => Math.sqrt(clamp(value / top)), ends: ends },
};

/** The greatest size that a measure takes in a column of values, never 0. */
export function topOf(values) {
  return values.reduce((top, value) => (value === null ? top : Math.max(top, Math.abs(value))), 0) || 1;
}

/** The CSS colour of a value; none where there is no value. */
export function colorOf(measure, value, top, scheme) {
  if (value === null) return "";
  return shade(measure, measure.amount(value, top), scheme);
}

/** The CSS colour of an amount between -1 and 1. */
export function shade(measure, amount, scheme) {
  const hue = (amount < 0 ? measure.below : measure.above)[scheme];
  return `rgba(${hue}, ${(Math.abs(amount) * STRONGEST).toFixed(3)})`;
}

function ends(top) {
  return ["0", numberText(top)];
}

function clamp(value) {
  return Math.min(1, Math.max(-1, value));
}
