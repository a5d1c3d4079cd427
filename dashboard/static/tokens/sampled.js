// One drawn answer: plain text, or its tokens coloured by probability with the likeliest ones at the place in focus.
// Model text is hostile input: it enters the page as text alone.

import { element } from "../live_chart/canvas.js";
import { numberText } from "../live_chart/scale.js";
import { readTheme } from "../live_chart/theme.js";
import { MEASURES, colorOf } from "./colors.js";
import { tokenText, visible } from "./words.js";

export class View {
  constructor(root, data) {
    this.root = root;
    this.update(data);
  }

  /** `data`: text, and tokens{text, p, likely[[token, p]]} as columns or null. */
  update({ text, tokens }) {
    this.root.className = "view sampled";
    if (!tokens) {
      this.root.replaceChildren(element("bdi", "strip plain", visible(text) || "∅"));
      return;
    }
    this.tokens = tokens;
    this.strip = element("div", "strip");
    this.strip.tabIndex = 0;
    this.strip.setAttribute("role", "listbox");
    this.strip.setAttribute("aria-label", "Tokens of the answer. Arrow keys walk from token to token.");
    this.panel = element("div", "panel likely");
    this.panel.setAttribute("role", "status");
    const scheme = readTheme(this.root).dark ? "dark" : "light";
    this.pieces = tokens.text.map((token, at) => this.piece(token, at, scheme));
    this.strip.replaceChildren(...this.pieces);
    this.strip.onkeydown = (event) => this.key(event);
    this.root.replaceChildren(this.strip, this.panel);
    this.focus(0);
  }

  close() {
    this.root.replaceChildren();
  }

  piece(token, at, scheme) {
    const piece = element("span", "token", tokenText(token));
    piece.style.backgroundColor = colorOf(MEASURES.probability, this.tokens.p[at], 1, scheme);
    piece.setAttribute("role", "option");
    piece.onclick = () => this.focus(at);
    piece.onmouseover = () => this.show(at);
    return piece;
  }

  key(event) {
    const move = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity }[event.key];
    if (move === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    this.focus(this.at + move);
  }

  focus(at) {
    this.pieces[this.at]?.classList.remove("focus");
    this.at = Math.min(this.pieces.length - 1, Math.max(0, at));
    this.pieces[this.at]?.classList.add("focus");
    this.show(this.at);
  }

  /** The token's probability, and what else was likely in its place. */
  show(at) {
    if (!this.pieces[at]) return;
    const { text, p, likely } = this.tokens;
    const title = element("div", "panel-title");
    title.append(element("bdi", "quoted", visible(text[at]) || "∅"), element("span", "muted", `p ${numberText(p[at])} · token ${at + 1} of ${text.length}`));
    const list = element("ol", "alternatives");
    for (const [token, share] of likely[at] ?? []) {
      const item = element("li", token === text[at] ? "drawn" : "");
      const bar = element("span", "share");
      bar.style.width = `${(100 * share).toFixed(1)}%`;
      item.append(element("bdi", "", tokenText(token)), element("span", "figures", numberText(share)), bar);
      list.append(item);
    }
    this.panel.replaceChildren(title, list);
  }
}
