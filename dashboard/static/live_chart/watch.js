// Asks now and then for what the stream does not tell: when the run will end, its place in the queue, its checkpoints.
// An API that takes the question and never answers is noticed here: a stream that stands still says nothing of it.

const EVERY_S = 15;
const PATIENCE_S = 10;
const REFUSED = 401;
const PAGE = 100;

export class JobWatch {
  /** `on.job(job)`, `on.checkpoints(steps)`, `on.silence()`, `on.refusal()` when the ticket is good no longer. */
  constructor(source, on) {
    this.source = source;
    this.on = on;
    this.timer = setInterval(() => document.hidden || this.look(), EVERY_S * 1000);
  }

  update(source) {
    this.source = source;
  }

  close() {
    clearInterval(this.timer);
  }

  async look() {
    if (!this.source.active || this.isAsking) return;
    this.isAsking = true;
    try {
      const [job, steps] = await Promise.all([this.ask(""), this.checkpoints()]);
      if (!job || !steps) return;
      this.on.job(job);
      this.on.checkpoints(steps.sort((one, other) => one - other));
    } catch {
      this.on.silence();
    } finally {
      this.isAsking = false;
    }
  }

  /** The steps of all checkpoints, page after page. */
  async checkpoints() {
    const steps = [];
    let page = { has_more: true };
    while (page.has_more) {
      page = await this.ask("/checkpoints", page.last_id ? { limit: PAGE, after: page.last_id } : { limit: PAGE });
      if (!page) return null;
      steps.push(...page.data.map((each) => each.step_number));
    }
    return steps;
  }

  async ask(part, wanted = {}) {
    const { url, ticket } = this.source;
    const query = new URLSearchParams({ ...wanted, ticket });
    const answer = await fetch(`${url}${part}?${query}`, { signal: AbortSignal.timeout(PATIENCE_S * 1000) });
    if (answer.status === REFUSED) {
      this.on.refusal();
      return null;
    }
    if (!answer.ok) throw new Error(`The API answered ${answer.status}.`);
    return answer.json();
  }
}
