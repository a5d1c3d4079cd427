// Arithmetic on one curve: smoothing, extents, look-up, and thinning to what a screen can show. Pure.

/**
 * Exponential moving average without the pull towards zero at the start. `weight` in [0, 1) is the share kept per
 * point; gaps (NaN) stay gaps and do not reset it.
 */
export function smooth(values, weight) {
  const out = new Array(values.length);
  let sum = 0;
  let norm = 0;
  for (let i = 0; i < values.length; i++) {
    if (Number.isNaN(values[i])) {
      out[i] = NaN;
      continue;
    }
    sum = weight * sum + (1 - weight) * values[i];
    norm = weight * norm + (1 - weight);
    out[i] = sum / norm;
  }
  return out;
}

/** First index whose x is not below `x`, in ascending `xs`. */
export function lowerBound(xs, x) {
  let low = 0;
  let high = xs.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (xs[middle] < x) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Index of the point nearest to `x`, or -1 when there is none. */
export function nearest(xs, x) {
  const right = lowerBound(xs, x);
  if (right === 0) return xs.length ? 0 : -1;
  if (right === xs.length) return right - 1;
  return x - xs[right - 1] <= xs[right] - x ? right - 1 : right;
}

/** The index range [first, end) that covers [low, high], with one neighbour on either side so lines reach the edge. */
export function window(xs, low, high) {
  const first = Math.max(0, lowerBound(xs, low) - 1);
  let end = lowerBound(xs, high);
  while (end < xs.length && xs[end] === high) end++;
  return [first, Math.min(xs.length, end + 1)];
}

/** Least, greatest and least positive value of values[first, end), gaps left out; null when there is none. */
export function extent(values, first, end) {
  let min = Infinity;
  let max = -Infinity;
  let smallest = Infinity;
  for (let i = first; i < end; i++) {
    const value = values[i];
    if (value < min) min = value;
    if (value > max) max = value;
    if (value > 0 && value < smallest) smallest = value;
  }
  return min > max ? null : { min, max, smallest: smallest === Infinity ? 0 : smallest };
}

/**
 * The points of one curve as runs of [pixel x, value], one run per unbroken stretch. Where more than four points fall
 * on a pixel column only the first, least, greatest and last are kept, in their order: a spike is never lost.
 */
export function runsOf(xs, values, [first, end], toPixel, width) {
  const keepAll = end - first <= width * 4;
  const runs = [];
  let run = [];
  let column = null;
  const flush = () => {
    if (column) for (const i of distinct(column)) run.push([toPixel(xs[i]), values[i]]);
    column = null;
  };
  for (let i = first; i < end; i++) {
    const value = values[i];
    if (Number.isNaN(value)) {
      flush();
      if (run.length) runs.push(run);
      run = [];
      continue;
    }
    if (keepAll) {
      run.push([toPixel(xs[i]), value]);
      continue;
    }
    const pixel = Math.round(toPixel(xs[i]));
    if (!column || column.pixel !== pixel) {
      flush();
      column = { pixel, first: i, low: i, high: i, last: i };
    } else {
      if (value < values[column.low]) column.low = i;
      if (value > values[column.high]) column.high = i;
      column.last = i;
    }
  }
  flush();
  if (run.length) runs.push(run);
  return runs;
}

function distinct({ first, low, high, last }) {
  return low < high ? unique([first, low, high, last]) : unique([first, high, low, last]);
}

function unique(ordered) {
  return ordered.filter((index, at) => index !== ordered[at - 1]);
}
