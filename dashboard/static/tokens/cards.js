// Responses as cards: reward, length, silenced tokens and how they begin. A click opens one.

import { element } from "../live_chart/canvas.js";
import { numberText } from "../live_chart/scale.js";
import { visible } from "./words.js";

export class View {
  constructor(root, data, open) {
    this.root = root;
    this.open = open;
    this.update(data);
  }

  /** `data`: layout ("grid" or "list"), chosen, cards[{id, title, reward, advantage, length, num_masked, finish, text}]. */
  update(data) {
    this.root.className = `view cards ${data.layout}`;
    this.root.replaceChildren(...data.cards.map((card) => this.card(card, card.id === data.chosen)));
  }

  close() {
    this.root.replaceChildren();
  }

  card(card, isChosen) {
    const node = element("button", isChosen ? "card chosen" : "card");
    node.type = "button";
    node.dataset.rollout = card.id;
    if (isChosen) node.setAttribute("aria-current", "true");
    node.onclick = () => this.open({ response: card.id });
    const head = element("span", "card-head");
    head.append(
      element("strong", "", card.title),
      element("span", "reward", `reward ${numberText(card.reward)}`),
      element("span", "muted", `A ${card.advantage > 0 ? "+" : ""}${numberText(card.advantage)}`),
      element("span", "muted", `${card.length} tokens${card.finish === "length" ? ", cut" : ""}`),
    );
    if (card.num_masked) head.append(element("span", "badge", `⊘ ${card.num_masked}`));
    node.append(head, element("bdi", "card-text", visible(card.text)));
    return node;
  }
}
