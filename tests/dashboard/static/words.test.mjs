import assert from "node:assert/strict";
import test from "node:test";

// What is said of a token and how it is coloured, by hand.
const { tokenText, verdict, visible } = await import("../../../dashboard/static/tokens/words.js");
const { MEASURES, colorOf, topOf } = await import("../../../dashboard/static/tokens/colors.js");

const token = {
  scored: true, masked: true, clipped: false, positive_advantage: true, low_p: true, low_h: true,
  advantage: 0.5, p: 0.001, entropy: 0.1, tau_p: 0.002, tau_h: 0.8,
};

test("what cannot be seen is named, and markup stays what it is", () => {
  assert.equal(visible("a\u202eb\u200bc<b>"), "a⟨U+202E⟩b⟨U+200B⟩c<b>");
  assert.equal(visible("\u{e0041}\u{e007f}"), "⟨U+E0041⟩⟨U+E007F⟩");
  assert.equal(visible("\u180e\u3164\ufe0f😀"), "⟨U+180E⟩⟨U+3164⟩⟨U+FE0F⟩😀");
  assert.equal(tokenText("a\nb"), "a⏎\nb");
  assert.equal(tokenText("  "), "␣␣");
  assert.equal(tokenText(""), "∅");
});

test("a silenced token names the three conditions that it met", () => {
  const { headline, conditions } = verdict(token);
  assert.equal(headline, "Silenced");
  assert.deepEqual(conditions.map(({ text }) => text), ["A = 0.5 > 0", "p = 0.001 < tau_p = 0.002", "H = 0.1 < tau_h = 0.8"]);
});

test("a token that was kept names the condition that it did not meet", () => {
  const { headline, conditions } = verdict({ ...token, masked: false, low_h: false, entropy: 0.9 });
  assert.equal(headline, "Kept: improbable, and the policy was unsure here");
  assert.equal(conditions[2].text, "H = 0.9 ≥ tau_h = 0.8");
  assert.equal(verdict({ ...token, masked: false, low_h: false, tau_h: null }).conditions[2].text, "its mini-batch had no tau_h");
});

test("a token whose figures were not kept still says which conditions it met", () => {
  const { conditions } = verdict({ ...token, masked: false, low_p: false, low_h: false, p: null, entropy: null });
  assert.deepEqual(conditions.map(({ text }) => text), ["A = 0.5 > 0", "p ≥ tau_p = 0.002", "H ≥ tau_h = 0.8"]);
});

test("a certain token has no colour and one in ten thousand has all of it", () => {
  assert.equal(Math.abs(MEASURES.probability.amount(1)), 0);
  assert.equal(MEASURES.probability.amount(1e-4), 1);
  assert.equal(MEASURES.probability.amount(0.01), 0.5);
  assert.equal(MEASURES.ratio.amount(0.5), -1);
  assert.equal(topOf([null, -3, 2]), 3);
  assert.equal(colorOf(MEASURES.entropy, null, 1, "light"), "");
});
