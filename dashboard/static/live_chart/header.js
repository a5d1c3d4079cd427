// The head of a run page: state, progress, the newest figures and one line of notice, drawn from what the browser
// hears itself. While a page is open its server does nothing for it.

import { element } from "./canvas.js";
import { durationText, numberText } from "./scale.js";

const SILENT_STEPS = 6;
const SILENT_S = 60;
const FACTS = {
  step: "Step", left: "Time left", reward: "Reward", validation: "Validation", entropy: "Entropy", masked: "Masked",
  attempt: "Attempt", updated: "Updated",
};

export class Header {
  /** `looks`: {state: {word, color, icon}}, `ended`: the states that are the last, `job`: as the wire has it. */
  constructor({ looks, ended, where, job }) {
    this.looks = looks;
    this.ended = new Set(ended);
    this.root = element("div", "head");
    this.build();
    this.heardAt = Date.now();
    this.status = "loading";
    this.update({ where, job });
    this.ticker = setInterval(() => document.hidden || this.tick(), 1000);
  }

  close() {
    clearInterval(this.ticker);
  }

  build() {
    const line = element("div", "head-line");
    this.badge = element("span", "badge");
    this.badge.setAttribute("role", "status");
    this.icon = element("span", "icon");
    this.icon.setAttribute("aria-hidden", "true");
    this.word = element("span", "word");
    this.badge.append(this.icon, this.word);
    this.where = element("bdi", "where");
    line.append(this.badge, this.where);
    this.bar = element("div", "progress");
    this.bar.setAttribute("role", "progressbar");
    this.bar.setAttribute("aria-label", "Steps done");
    this.bar.append(element("span"));
    const facts = element("dl", "facts");
    this.values = {};
    for (const [name, label] of Object.entries(FACTS)) {
      const pair = element("div", "fact");
      this.values[name] = element("dd", "", "–");
      this.values[name].dataset.fact = name;
      pair.append(element("dt", "", label), this.values[name]);
      facts.append(pair);
    }
    this.labels = Object.fromEntries([...facts.children].map((pair, at) => [Object.keys(FACTS)[at], pair.firstChild]));
    this.notice = element("div", "notice");
    this.root.append(line, this.bar, facts, this.notice);
  }

  // --- what is heard ---

  /** The run as the page's server or the API tells of it. */
  update({ where, job }) {
    if (where) this.where.textContent = where;
    this.job = { ...this.job, ...job };
    this.values.updated.title = "Since the newest step was reported";
    this.draw();
  }

  /** A step's own figures, or an evaluation's. */
  take(rows) {
    this.heard();
    for (const { kind, step, values, created_at: at, attempt } of rows) {
      this.newsAt = Math.max(this.newsAt ?? 0, at * 1000);
      if (kind === "evaluation") this.job.latest_evaluation = values;
      else Object.assign(this.job, { latest: values, step, attempt: Math.max(attempt, this.job.attempt ?? 0) });
    }
    this.draw();
  }

  /** How the stream fares: loading, live, waiting, ended. */
  takeStatus(status) {
    this.status = status;
    if (status === "live") this.heard();
    this.tick();
  }

  heard() {
    this.heardAt = Date.now();
  }

  // --- drawing: a text is touched only when it changes ---

  draw() {
    const { job } = this;
    const look = this.looks[job.state] ?? { word: job.state, color: "gray", icon: "help" };
    set(this.word, look.word);
    set(this.icon, look.icon);
    this.badge.style.setProperty("--tint", `var(--st-${look.color}-background-color)`);
    this.badge.style.setProperty("--ink", `var(--st-${look.color}-text-color)`);
    const share = job.num_steps ? Math.min(1, job.step / job.num_steps) : 0;
    this.bar.firstChild.style.width = `${(100 * share).toFixed(2)}%`;
    this.bar.setAttribute("aria-valuenow", Math.round(100 * share));
    const { latest = {}, latest_evaluation: evaluation = {} } = job;
    set(this.values.step, job.num_steps ? `${whole(job.step)} / ${whole(job.num_steps)}` : "–");
    set(this.values.reward, numberText(latest["reward/mean"] ?? NaN));
    set(this.values.validation, numberText(evaluation["eval/reward_mean"] ?? NaN));
    set(this.values.entropy, numberText(latest["policy/entropy"] ?? NaN));
    set(this.values.masked, "mask/ppm" in latest ? `${numberText(latest["mask/ppm"] ?? NaN)} ppm` : "–");
    set(this.values.attempt, String(job.attempt || "–"));
    this.tick();
  }

  /** What changes with the clock alone. */
  tick() {
    const now = Date.now();
    set(this.labels.left, this.hasEnded ? "Took" : "Time left");
    set(this.values.left, this.hasEnded ? this.took() : this.timeLeft(now));
    set(this.values.updated, this.newsAt ? `${durationText(Math.max(0, now - this.newsAt) / 1000)} ago` : "–");
    const [kind, text] = this.words(now);
    // Who listens is told when the kind of news changes, and not again at every second that it grows older.
    this.notice.setAttribute("aria-live", kind === this.noticeKind ? "off" : "polite");
    this.noticeKind = kind;
    this.notice.className = `notice ${kind}`;
    set(this.notice, text);
  }

  get hasEnded() {
    return this.ended.has(this.job.state);
  }

  took() {
    const { started_at: start, created_at: made, finished_at: end } = this.job;
    return end ? durationText(end - (start ?? made)) : "–";
  }

  timeLeft(now) {
    const { estimated_finish: finish, state } = this.job;
    return finish && state === "running" ? durationText(Math.max(0, finish - now / 1000)) : "–";
  }

  /** The line of notice: that nobody answers, that the run has fallen silent, where it waits, or what it does. */
  words(now) {
    const { job } = this;
    if (this.status === "waiting") {
      return ["stale", `The API does not answer. What you see is ${durationText((now - this.heardAt) / 1000)} old. This page tries again by itself.`];
    }
    const usual = job.latest?.["speed/step_s"] ?? 0;
    const silent = this.newsAt ? (now - this.newsAt) / 1000 : 0;
    if (job.state === "running" && silent > Math.max(SILENT_S, SILENT_STEPS * usual)) {
      return ["stale", `No news for ${durationText(silent)}; the last step took ${durationText(usual)}. The curves below are as old.`];
    }
    if (job.queue) return ["waits", `Waiting, no. ${job.queue.position} in the queue. ${job.queue.reason}`];
    if (job.state === "running" && job.stage) return ["", `${job.stage[0].toUpperCase()}${job.stage.slice(1)}`];
    if (this.hasEnded && job.finished_at) return ["", `Ended ${timeText(job.finished_at)}`];
    return ["", ""];
  }
}

/** A point in time as every list of the dashboard has it: 2026-11-24 15:04:05 UTC. */
function timeText(seconds) {
  return `${new Date(seconds * 1000).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

function set(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function whole(value) {
  return Math.round(value ?? 0).toLocaleString("en");
}
