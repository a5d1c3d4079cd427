// Colours and strokes of a panel: the page's own variables, and the Okabe-Ito palette that colour-blind readers tell
// apart. Every curve has a second cue besides its colour: a dash pattern or a marker.

const ON_LIGHT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00"];
const ON_DARK = ["#56b4e9", "#e69f00", "#2bc39a", "#e29bc3", "#f0e442", "#ff8f4d"];
export const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3], [4, 2], [1, 4]];

/** Reads the colours in force at `host`; call it again when the reader changes the theme. */
export function readTheme(host) {
  const style = getComputedStyle(host);
  const value = (name, fallback) => {
    const text = style.getPropertyValue(name).trim();
    return text && text !== "unset" ? text : fallback;
  };
  const background = value("--st-background-color", "#ffffff");
  const dark = luminance(background) < 0.4;
  return {
    dark,
    background,
    text: value("--st-text-color", dark ? "#fafafa" : "#20242b"),
    muted: dark ? "rgba(255,255,255,0.62)" : "rgba(20,26,36,0.62)",
    grid: dark ? "rgba(255,255,255,0.09)" : "rgba(20,26,36,0.08)",
    axis: dark ? "rgba(255,255,255,0.28)" : "rgba(20,26,36,0.28)",
    selection: dark ? "rgba(86,180,233,0.20)" : "rgba(0,114,178,0.14)",
    font: value("--st-font", "sans-serif"),
    palette: dark ? ON_DARK : ON_LIGHT,
  };
}

function luminance(color) {
  const canvas = document.createElement("canvas").getContext("2d");
  canvas.fillStyle = color;
  const hex = canvas.fillStyle;
  if (!hex.startsWith("#")) return 1;
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255);
  return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
}
