// What the page says about a token: its text made visible, and why the mask took it or let it be. Pure.

import { numberText } from "../live_chart/scale.js";

const NAMES = { "\n": "⏎", "\r": "␍", "\t": "⇥" };
// Control characters, marks that turn the direction of text, fillers, selectors and tags: what has no look of its own.
// dashboard/formats.py has the same list.
const UNSEEN =
  /[\u0000-\u001f\u007f-\u009f\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\u{e0000}-\u{e01ef}]/gu;

/** The text with every character that cannot be seen named in its place; it stays text, never markup. */
export function visible(text) {
  return text.replace(UNSEEN, (mark) => NAMES[mark] ?? `⟨U+${mark.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/** A token as the strip shows it: a line break also breaks the line, white space alone and nothing at all get a sign. */
export function tokenText(text) {
  if (text === "") return "∅";
  if (/^ +$/.test(text)) return "␣".repeat(text.length);
  return text.split("\n").map(visible).join("⏎\n");
}

/** What became of a token: `headline`, and the mask's three conditions in words, each with whether it holds. */
export function verdict(token) {
  return { headline: headline(token), conditions: conditions(token) };
}

function conditions({ positive_advantage, low_p, low_h, advantage, p, entropy, tau_p, tau_h }) {
  return [
    { holds: positive_advantage, text: `A = ${numberText(advantage)} ${positive_advantage ? ">" : "≤"} 0` },
    { holds: low_p, text: `${told("p", p)} ${low_p ? "<" : "≥"} tau_p = ${numberText(tau_p)}` },
    {
      holds: low_h,
      text: tau_h === null
        ? "its mini-batch had no tau_h"
        : `${told("H", entropy)} ${low_h ? "<" : "≥"} tau_h = ${numberText(tau_h)}`,
    },
  ];
}

/** A figure with its value, or its name alone where the record keeps only what it was compared with. */
function told(name, value) {
  return value === null ? name : `${name} = ${numberText(value)}`;
}

function headline(token) {
  if (!token.scored) return "Not scored: its group had no advantage, so the figures are the sampler's";
  if (token.masked) return token.positive_advantage && token.low_p && token.low_h ? "Silenced" : "Silenced by the algorithm's own rule";
  if (token.positive_advantage && token.low_p) return "Kept: improbable, and the policy was unsure here";
  return token.clipped ? "Kept, and its ratio is clipped" : "Kept";
}
