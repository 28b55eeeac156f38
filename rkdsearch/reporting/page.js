"use strict";
// Draws the pictures in the reader's theme, and again when the theme changes. Nothing here knows
// what a picture shows.
const pictures = JSON.parse(document.getElementById("pictures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

// showSendToCloud: the page must offer no button that uploads a study
const options = {
  displaylogo: false, showSendToCloud: false, responsive: true, displayModeBar: "hover",
  modeBarButtonsToRemove: ["select2d", "lasso2d"],
};

function painted(value, colours) {
  if (Array.isArray(value)) return value.map((part) => painted(part, colours));
  if (value !== null && typeof value === "object") {
    const parts = Object.entries(value).map(([key, part]) => [key, painted(part, colours)]);
    return Object.fromEntries(parts);
  }
  return typeof value === "string" && Object.hasOwn(colours, value) ? colours[value] : value;
}

function axis(colours) {
  const { $grid: grid, $faint: faint } = colours;
  return { gridcolor: grid, linecolor: faint, zerolinecolor: grid, automargin: true };
}

function draw() {
  const style = getComputedStyle(document.documentElement);
  const named = (name) => ["$" + name, style.getPropertyValue("--" + name).trim()];
  const colours = Object.fromEntries(["ink", "faint", "paper", "grid"].map(named));
  for (const [name, picture] of Object.entries(pictures)) {
    const { data, layout } = painted(picture, colours);
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis/.test(key)) layout[key] = { ...axis(colours), ...layout[key] };
    }
    const common = {
      paper_bgcolor: "rgba(0,0,0,0)",
      plot_bgcolor: "rgba(0,0,0,0)",
      font: { family: style.fontFamily, size: 12.5, color: colours.$ink },
      hoverlabel: {
        bgcolor: colours.$paper, bordercolor: colours.$faint, font: { color: colours.$ink },
        align: "left",
      },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: colours.$faint, activecolor: colours.$ink },
      margin: { l: 64, r: 16, t: 40, b: 56 },
    };
    Plotly.react(name, data, { ...common, ...layout }, options);
  }
}

draw();
dark.addEventListener("change", draw);
