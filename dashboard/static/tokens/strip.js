// A response as a strip of tokens, one coloured piece of text each, and a panel with the values of the one in focus.
// Model text is hostile input: it enters the page as text alone.

import { element } from "../live_chart/canvas.js";
import { numberText } from "../live_chart/scale.js";
import { readTheme } from "../live_chart/theme.js";
import { MEASURES, colorOf, shade, topOf } from "./colors.js";
import { tokenText, verdict, visible } from "./words.js";

const VALUES = [
  ["p", "Probability"], ["logprob", "log p"], ["sampler_logprob", "log p, sampler"], ["entropy", "Entropy H"],
  ["advantage", "Advantage A"], ["ratio", "Ratio"], ["grad_norm", "Gradient norm"], ["weight", "Weight"],
];
const HELP = "Arrow keys walk from token to token and from line to line, n goes to the next silenced token, p to the one before.";

export class View {
  constructor(root, data) {
    this.root = root;
    root.className = "view strip-view";
    this.legend = element("div", "legend");
    this.prompt = element("div", "prompt");
    this.strip = element("div", "strip");
    this.panel = element("div", "panel");
    this.build();
    root.replaceChildren(this.legend, this.prompt, this.strip, this.panel);
    this.update(data);
  }

  build() {
    this.strip.tabIndex = 0;
    this.strip.setAttribute("role", "listbox");
    this.strip.setAttribute("aria-label", `Tokens of the response. ${HELP}`);
    this.strip.onkeydown = (event) => this.key(event);
    this.strip.onclick = (event) => this.point(event, (at) => this.focus(at));
    this.strip.onmouseover = (event) => this.point(event, (at) => this.show(at));
    this.strip.onmouseleave = () => this.show(this.at);
    this.panel.setAttribute("role", "status");
  }

  /** `data`: rollout, prompt, color, focus (a position or null), tokens as columns. */
  update(data) {
    const isNew = data.rollout !== this.data?.rollout || data.focus !== this.data?.focus;
    const began = performance.now();
    if (data.rollout !== this.data?.rollout) this.fill(data);
    this.data = data;
    this.paint();
    this.root.dataset.builtMs = (performance.now() - began).toFixed(1);
    if (isNew) this.focus(data.focus ?? Math.max(0, data.tokens.masked.indexOf(true)), { quiet: true });
  }

  close() {
    this.root.replaceChildren();
  }

  // --- building ---

  fill({ prompt, tokens }) {
    this.prompt.textContent = visible(prompt);
    const pieces = document.createDocumentFragment();
    this.tokens = tokens.text.map((text, at) => {
      const piece = element("span", classOf(tokens, at), tokenText(text));
      piece.dataset.at = at;
      piece.id = `token-${at}`;
      piece.setAttribute("role", "option");
      pieces.append(piece);
      return piece;
    });
    this.strip.replaceChildren(pieces);
    this.root.dataset.numTokens = this.tokens.length;
    this.root.dataset.numMasked = tokens.masked.filter(Boolean).length;
  }

  paint() {
    const measure = MEASURES[this.data.color];
    const values = this.data.tokens[measure.field];
    const top = topOf(values);
    const scheme = readTheme(this.root).dark ? "dark" : "light";
    this.tokens.forEach((piece, at) => (piece.style.backgroundColor = colorOf(measure, values[at], top, scheme)));
    this.paintLegend(measure, top, scheme);
  }

  paintLegend(measure, top, scheme) {
    const stops = [];
    for (let amount = measure.below ? -1 : 0; amount <= 1; amount += 0.25) stops.push(shade(measure, amount, scheme));
    const bar = element("span", "bar");
    bar.style.background = `linear-gradient(to right, ${stops.join(", ")})`;
    const [low, ...rest] = measure.ends(top);
    const keys = [["token masked", "silenced"], ["token nearly", "A > 0 and improbable, kept"], ["token clipped", "clipped"]];
    this.legend.replaceChildren(
      element("span", "", low), bar, element("span", "", rest.join(" · ")),
      ...keys.map(([look, name]) => {
        const key = element("span", "key");
        key.append(element("span", look, "ab"), element("span", "", name));
        return key;
      }),
    );
  }

  // --- what the reader does ---

  point(event, act) {
    const at = event.target.dataset?.at;
    if (at !== undefined) act(Number(at));
  }

  key(event) {
    const last = this.tokens.length - 1;
    const moves = {
      ArrowLeft: () => this.at - 1,
      ArrowRight: () => this.at + 1,
      ArrowUp: () => this.onLine(-1),
      ArrowDown: () => this.onLine(1),
      Home: () => 0,
      End: () => last,
      n: () => this.nextMasked(),
      p: () => this.previousMasked(),
    };
    if (!moves[event.key] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.focus(Math.min(last, Math.max(0, moves[event.key]())));
  }

  nextMasked() {
    const { masked } = this.data.tokens;
    const next = masked.indexOf(true, this.at + 1);
    return next >= 0 ? next : Math.max(this.at * (masked.includes(true) ? 0 : 1), masked.indexOf(true));
  }

  previousMasked() {
    const { masked } = this.data.tokens;
    const before = this.at > 0 ? masked.lastIndexOf(true, this.at - 1) : -1;
    return before >= 0 ? before : masked.includes(true) ? masked.lastIndexOf(true) : this.at;
  }

  /** The token above or below the one in focus, as near to it as its line has one. */
  onLine(direction) {
    const { offsetTop, offsetLeft } = this.tokens[this.at];
    let best = this.at;
    let line = null;
    for (let at = this.at + direction; this.tokens[at]; at += direction) {
      const { offsetTop: top, offsetLeft: left } = this.tokens[at];
      if (Math.abs(top - offsetTop) < 4) continue;
      line ??= top;
      if (Math.abs(top - line) >= 4) break;
      if (best === this.at || Math.abs(left - offsetLeft) < Math.abs(this.tokens[best].offsetLeft - offsetLeft)) best = at;
    }
    return best;
  }

  focus(at, { quiet = false } = {}) {
    this.tokens[this.at]?.classList.remove("focus");
    this.tokens[this.at]?.removeAttribute("aria-selected");
    this.at = Math.min(at, this.tokens.length - 1);
    const piece = this.tokens[this.at];
    if (!piece) return;
    piece.classList.add("focus");
    piece.setAttribute("aria-selected", "true");
    this.strip.setAttribute("aria-activedescendant", piece.id);
    const { offsetTop, offsetHeight } = piece;
    const { scrollTop, clientHeight } = this.strip;
    if (offsetTop < scrollTop || offsetTop + offsetHeight > scrollTop + clientHeight) {
      this.strip.scrollTop = offsetTop - clientHeight / 2;
    }
    this.show(this.at, { quiet });
  }

  // --- the panel ---

  show(at, { quiet = false } = {}) {
    if (at === undefined || !this.tokens[at]) return;
    const token = Object.fromEntries(Object.entries(this.data.tokens).map(([name, column]) => [name, column[at]]));
    this.panel.setAttribute("aria-live", quiet ? "off" : "polite");
    this.panel.dataset.at = at;
    this.panel.replaceChildren(this.title(token, at), reasons(token), values(token));
  }

  title(token, at) {
    const title = element("div", "panel-title");
    title.append(
      element("bdi", "quoted", visible(token.text.length > 80 ? `${token.text.slice(0, 80)}…` : token.text) || "∅"),
      element("span", "muted", `token ${at + 1} of ${this.tokens.length} · id ${token.id}`),
    );
    return title;
  }
}

function classOf(tokens, at) {
  const isNearly = !tokens.masked[at] && tokens.positive_advantage[at] && tokens.low_p[at];
  const isUnknown = tokens.p[at] === null;
  const looks = { masked: tokens.masked[at], nearly: isNearly, clipped: tokens.clipped[at], unknown: isUnknown };
  return ["token", ...Object.keys(looks).filter((look) => looks[look])].join(" ");
}

function reasons(token) {
  const { headline, conditions } = verdict(token);
  const list = element("div", token.masked ? "reasons silenced" : "reasons");
  list.append(element("strong", "", headline));
  for (const { holds, text } of conditions) list.append(element("span", holds ? "holds" : "fails", `${holds ? "✓" : "✗"} ${text}`));
  return list;
}

function values(token) {
  const list = element("dl");
  for (const [name, label] of VALUES) {
    const pair = element("div");
    pair.append(element("dt", "", label), element("dd", "", token[name] === null ? "–" : numberText(token[name])));
    list.append(pair);
  }
  return list;
}
