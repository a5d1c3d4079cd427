// One drawn answer, whole or growing: plain text, or its tokens coloured by probability with the likeliest ones at the
// place in focus. Model text is hostile input: it enters the page as text alone.

import { element } from "../live_chart/canvas.js";
import { numberText } from "../live_chart/scale.js";
import { readTheme } from "../live_chart/theme.js";
import { MEASURES, colorOf } from "./colors.js";
import { tokenText, visible } from "./words.js";

export class View {
  constructor(root, data) {
    this.root = root;
    this.root.className = "view sampled";
    this.update(data);
  }

  /**
   * `data`: text, tail (what stands after it), and tokens{text, p, likely[[token, p]]} as columns or null.
   * What goes on from the answer before grows in its place: focus and scroll stay where the reader has them.
   */
  update({ text, tail, tokens }) {
    if (!this.strip || !goesOn(this.tokens, tokens)) this.build(tokens);
    const { scrollHeight, scrollTop, clientHeight } = this.strip;
    const isFollowing = this.tail.textContent !== "" && scrollHeight - scrollTop - clientHeight < 8;
    this.tokens = tokens;
    this.tail.textContent = tail || (text ? "" : "∅");
    if (tokens) this.grow();
    else this.text.textContent = text && tokenText(text);
    if (isFollowing) this.strip.scrollTop = this.strip.scrollHeight;
  }

  build(tokens) {
    this.strip = element("div", tokens ? "strip" : "strip plain");
    this.text = element("bdi");
    this.tail = element("span", "muted");
    this.strip.append(this.text, this.tail);
    this.pieces = [];
    this.at = 0;
    this.root.replaceChildren(this.strip);
    if (!tokens) return;
    this.strip.tabIndex = 0;
    this.strip.setAttribute("role", "listbox");
    this.strip.setAttribute("aria-label", "Tokens of the answer. Arrow keys walk from token to token.");
    this.strip.onkeydown = (event) => this.key(event);
    this.panel = element("div", "panel likely");
    this.panel.setAttribute("role", "status");
    this.root.append(this.panel);
  }

  grow() {
    const { text, p } = this.tokens;
    const more = text.slice(this.pieces.length).map((token, at) => this.piece(token, this.pieces.length + at));
    this.pieces.push(...more);
    this.tail.before(...more);
    const scheme = readTheme(this.root).dark ? "dark" : "light";
    this.pieces.forEach((piece, at) => (piece.style.backgroundColor = colorOf(MEASURES.probability, p[at], 1, scheme)));
    this.focus(this.at);
  }

  close() {
    this.root.replaceChildren();
  }

  piece(token, at) {
    const piece = element("span", "token", tokenText(token));
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
    this.panel.replaceChildren(title, likely[at] ? list : element("p", "muted", "What else was likely is listed once the answer is whole."));
  }
}

/** Whether an answer in tokens begins with all of another, so that it can grow from it; texts replace one another. */
function goesOn(before, tokens) {
  return before && tokens ? before.text.every((token, at) => token === tokens.text[at]) : !before === !tokens;
}
