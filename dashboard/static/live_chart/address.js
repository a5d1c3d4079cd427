// The view of a board in the page's address, so that a link reproduces it. What is as usual is not named.

const USUAL = { axis: "step", smoothing: 0.7 };

/** The view that the address names, the usual one where it names none or what cannot be. */
export function readView(search, { axes, smoothings }) {
  const query = new URLSearchParams(search);
  const smoothing = Number(query.get("smoothing") ?? USUAL.smoothing);
  return {
    axis: axes.includes(query.get("axis")) ? query.get("axis") : USUAL.axis,
    smoothing: smoothings.includes(smoothing) ? smoothing : USUAL.smoothing,
    range: readRange(query.get("zoom") ?? ""),
    logs: (query.get("log") ?? "").split(",").filter(Boolean),
  };
}

/** The address with the view in it; everything else in it stays. */
export function withView(address, { axis, smoothing, range, logs = [] }) {
  const url = new URL(address);
  const named = {
    axis: axis === USUAL.axis ? null : axis,
    smoothing: smoothing === USUAL.smoothing ? null : smoothing,
    zoom: range ? range.map((edge) => Number(edge.toPrecision(6))).join("~") : null,
    log: logs.join(",") || null,
  };
  for (const [name, value] of Object.entries(named)) {
    if (value === null) url.searchParams.delete(name);
    else url.searchParams.set(name, value);
  }
  return url.href;
}

function readRange(text) {
  const [low, high, ...more] = text.split("~").map(Number);
  return !more.length && Number.isFinite(low) && Number.isFinite(high) && low < high ? [low, high] : null;
}
