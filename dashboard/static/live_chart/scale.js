// Axes: values to pixels and back, the ticks between them, and numbers as text. Knows neither canvas nor data.

/** A straight axis over [low, high], drawn from pixel `from` to pixel `to`. */
export function linearScale(low, high, from, to) {
  const perUnit = (to - from) / (high - low || 1);
  return {
    low,
    high,
    toPixel: (value) => from + (value - low) * perUnit,
    toValue: (pixel) => low + (pixel - from) / perUnit,
    ticks: (count) => linearTicks(low, high, count),
  };
}

/** A logarithmic axis. Values at or below `low`, zero above all, sit on its bottom line, which is labelled 0. */
export function logScale(low, high, from, to) {
  const inner = linearScale(Math.log10(low), Math.log10(high), from, to);
  return {
    low,
    high,
    toPixel: (value) => inner.toPixel(Math.log10(Math.max(value, low))),
    toValue: (pixel) => 10 ** inner.toValue(pixel),
    ticks: () => logTicks(low, high),
  };
}

/** The vertical axis of a panel for values between min and max; `smallest` is the least value above zero. */
export function valueScale(kind, { min, max, smallest }, from, to) {
  if (kind === "log") {
    const least = smallest > 0 ? smallest : 1;
    const bottom = 10 ** (Math.floor(Math.log10(least)) - 1);
    return logScale(bottom, 10 ** Math.max(Math.ceil(Math.log10(Math.max(max, least)) + 0.02), Math.log10(bottom) + 2), from, to);
  }
  const room = (max - min) * 0.08 || Math.abs(max) * 0.1 || 1;
  const low = min >= 0 ? Math.max(0, min - room) : min - room;
  return linearScale(low, max + room, from, to);
}

function linearTicks(low, high, count) {
  const rough = (0.75 * (high - low)) / Math.max(count, 1); // rather a third more ticks than half as many
  const power = 10 ** Math.floor(Math.log10(rough || 1));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((size) => size >= rough) ?? power;
  const top = Math.max(Math.abs(low), Math.abs(high));
  const ticks = [];
  for (let index = Math.ceil(low / step - 1e-9); index * step <= high + step * 1e-9; index++) {
    ticks.push({ value: index * step, label: tickText(index * step, step, top) });
  }
  return ticks;
}

function logTicks(low, high) {
  const first = Math.round(Math.log10(low));
  const last = Math.round(Math.log10(high));
  const stride = Math.ceil((last - first) / 6);
  const ticks = [{ value: low, label: "0" }];
  for (let exponent = first + 1; exponent <= last; exponent += stride) {
    ticks.push({ value: 10 ** exponent, label: numberText(10 ** exponent) });
  }
  return ticks;
}

/** A tick in as many digits as its `step` needs; every label of an axis up to `top` has the same unit. */
function tickText(value, step, top) {
  if (Math.abs(value) < step * 1e-6) return "0";
  if (top < 1e-3) return value.toExponential(exponent(value) - exponent(step));
  const [unit, name] = UNITS.find(([size, , least]) => top >= least && step >= size / 100) ?? [1, ""];
  return (value / unit).toFixed(Math.max(0, -exponent(step / unit))) + name;
}

const UNITS = [[1e6, "M", 1e6], [1e3, "k", 1e4]]; // size, name, where it begins

function exponent(value) {
  return Math.floor(Math.log10(Math.abs(value)) + 1e-9);
}

/** A number with three significant digits, or to the unit below ten thousand: 0.0123, 42.1, 1234, 12.5k, 3.4M, 2.1e-6. */
export function numberText(value) {
  if (value === null || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size === 0) return "0";
  if (size < 1e-3) return value.toExponential(1).replace("e+", "e");
  if (size >= 1e6) return `${trimmed(value / 1e6)}M`;
  if (size >= 1e4) return `${trimmed(value / 1e3)}k`;
  return trimmed(value);
}

function trimmed(value) {
  return String(Math.abs(value) >= 1000 ? Math.round(value) : Number(value.toPrecision(3)));
}

/** Seconds as text: 42 s, 3 min 5 s, 2 h 4 min. */
export function durationText(seconds) {
  const whole = Math.round(seconds);
  if (whole < 60) return `${whole} s`;
  if (whole < 3600) return `${Math.floor(whole / 60)} min${whole % 60 ? ` ${whole % 60} s` : ""}`;
  return `${Math.floor(whole / 3600)} h${Math.floor((whole % 3600) / 60) ? ` ${Math.floor((whole % 3600) / 60)} min` : ""}`;
}
