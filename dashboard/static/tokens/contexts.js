// Tokens in the text around them, in lists with a heading each. A click opens the response at that token.

import { element } from "../live_chart/canvas.js";
import { numberText } from "../live_chart/scale.js";
import { visible } from "./words.js";

export class View {
  constructor(root, data, open) {
    this.root = root;
    this.open = open;
    this.update(data);
  }

  /** `data`: sections[{title, empty, items[{rollout_id, position, before, token, after, p, entropy, advantage, and of a whole run count, step}], more}], frequent[{token, count}]. */
  update(data) {
    this.root.className = "view contexts";
    const parts = data.sections.map((section) => this.section(section));
    if (data.frequent.length) parts.unshift(frequent(data.frequent));
    this.root.replaceChildren(...parts);
  }

  close() {
    this.root.replaceChildren();
  }

  section({ title, empty, items, more }) {
    const part = element("section");
    part.dataset.section = title.split(" ")[0].toLowerCase();
    part.append(element("h4", "", title));
    if (!items.length) part.append(element("p", "muted", empty));
    for (const item of items) part.append(this.item(item));
    if (more) part.append(element("p", "muted", more));
    return part;
  }

  item({ rollout_id, position, before, token, after, p, entropy, advantage, count, step }) {
    const node = element("button", "context");
    node.type = "button";
    node.title = "Open the response at this token";
    node.onclick = () => this.open({ response: rollout_id, token: position, ...(step && { step }) });
    const text = element("bdi", "context-text");
    text.append(element("span", "muted", visible(before.slice(-60))), element("mark", "", visible(token) || "∅"), element("span", "muted", visible(after.slice(0, 60))));
    const figures = `p ${numberText(p)} · H ${numberText(entropy)} · A ${numberText(advantage)}`;
    const often = count ? `${count} × · here at step ${step} · ` : "";
    node.append(text, element("span", "figures", often + figures));
    return node;
  }
}

function frequent(tokens) {
  const row = element("div", "frequent");
  row.append(element("span", "muted", "Most often:"));
  for (const { token, count } of tokens) {
    const chip = element("span", "chip");
    chip.append(element("bdi", "", visible(token) || "∅"), element("span", "muted", ` × ${count}`));
    row.append(chip);
  }
  return row;
}
