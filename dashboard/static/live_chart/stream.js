// One run's points over HTTP: history first, then the live stream, for as long as the page is open.
// Reconnects by itself with the last id it has seen; a hidden page lets its connection go. Draws nothing.

const FIRST_WAIT_S = 1;
const LONGEST_WAIT_S = 15;
const HIDDEN_S = 60;
const MAX_HISTORY = 4000;
const NEWEST_STEPS = 1000;
const UNREACHABLE = 3;
const REFUSED = 401;

export class RunStream {
  /** `on.rows(rows)` at the end, `on.earlier(rows)` before it, `on.status(word, detail)` with loading, live, waiting, ended; `on.state(progress)`, `on.refusal()`. */
  constructor(source, data, on) {
    this.source = source;
    this.data = data;
    this.on = on;
    this.failures = 0;
    this.onVisibility = () => this.visibilityChanged();
    document.addEventListener("visibilitychange", this.onVisibility);
    this.start();
  }

  /** Takes a fresher ticket and whether the run still moves; a run that moves again is followed again. */
  update(source) {
    const revived = source.active && !this.source.active;
    this.source = source;
    if (this.closed || !revived || this.events) return;
    this.schedule(0);
  }

  close() {
    this.closed = true;
    document.removeEventListener("visibilitychange", this.onVisibility);
    for (const timer of [this.timer, this.earlierTimer, this.hiddenTimer]) clearTimeout(timer);
    this.disconnect();
  }

  async start() {
    this.on.status("loading");
    try {
      await this.loadNewest();
    } catch {
      this.retry();
      return;
    }
    this.follow();
  }

  // The newest steps come first and at once, however long the run; what lies before them follows.
  async loadNewest() {
    const from = Math.max(0, this.source.step - NEWEST_STEPS);
    const page = await this.fetchMetrics(from ? { from_step: from } : {});
    if (this.closed) return;
    this.hasHistory = true;
    this.on.rows(page.data);
    this.data.lastSeq = Math.max(this.data.lastSeq, page.last_seq ?? 0);
    if (from) this.loadEarlier(from - 1);
  }

  async loadEarlier(toStep) {
    try {
      const page = await this.fetchMetrics({ to_step: toStep });
      if (this.closed) return;
      this.thinned = page.num_points > page.data.length;
      this.on.earlier(page.data);
    } catch {
      if (!this.closed) this.earlierTimer = setTimeout(() => this.loadEarlier(toStep), LONGEST_WAIT_S * 1000);
    }
  }

  /** All points of a stretch of steps, as many as a screen can show. Raises when the API does not answer. */
  async loadStretch(fromStep, toStep) {
    return (await this.fetchMetrics({ kind: "train", from_step: fromStep, to_step: toStep })).data;
  }

  async fetchMetrics(wanted) {
    const { url, ticket, keys } = this.source;
    const query = new URLSearchParams({ ...wanted, max_points: MAX_HISTORY, keys: keys.join(","), ticket });
    const answer = await fetch(`${url}/metrics?${query}`);
    if (answer.status === REFUSED) this.on.refusal();
    if (!answer.ok) throw new Error(`The API answered ${answer.status}.`);
    return answer.json();
  }

  follow() {
    if (this.closed) return;
    if (!this.source.active) {
      this.on.status("ended");
      return;
    }
    const query = new URLSearchParams({ after: this.data.lastSeq, ticket: this.source.ticket });
    const events = new EventSource(`${this.source.url}/metrics/stream?${query}`);
    this.events = events;
    events.onopen = () => {
      this.failures = 0;
      this.on.status("live");
    };
    events.addEventListener("metrics", (event) => this.on.rows([JSON.parse(event.data)]));
    events.addEventListener("state", (event) => this.on.state(JSON.parse(event.data)));
    events.addEventListener("end", () => {
      this.disconnect();
      this.on.status("ended");
    });
    events.onerror = () => this.retry();
  }

  /** Somebody else found the API silent: a stream that is held open by nobody is given up and tried again. */
  suspect() {
    if (this.events) this.retry();
  }

  // EventSource hides the status of an answer, and its own retry would repeat an old ticket: each try is a new one.
  retry() {
    this.disconnect();
    this.failures += 1;
    this.on.status("waiting", this.hasHistory || this.failures < UNREACHABLE ? "" : this.addressText());
    this.schedule(Math.min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** (this.failures - 1)));
  }

  // A page that works beside charts that never load is a matter of addresses: say which one the browser needs.
  addressText() {
    return ` (this browser asks ${new URL(this.source.url).origin}, which must be reachable and allow ${location.origin})`;
  }

  schedule(seconds) {
    clearTimeout(this.timer);
    if (this.closed) return;
    this.timer = setTimeout(() => (this.hasHistory ? this.follow() : this.start()), seconds * 1000);
  }

  disconnect() {
    this.events?.close();
    this.events = null;
  }

  // Browsers allow six connections to a server: a page in the background gives its own back after a minute.
  visibilityChanged() {
    clearTimeout(this.hiddenTimer);
    if (document.hidden) {
      this.hiddenTimer = setTimeout(() => {
        this.parked = true;
        clearTimeout(this.timer);
        this.disconnect();
      }, HIDDEN_S * 1000);
    } else if (this.parked) {
      this.parked = false;
      this.schedule(0);
    }
  }
}
