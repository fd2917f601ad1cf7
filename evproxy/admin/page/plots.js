// The plots of the last 15 minutes.

import { count, element, rate, setText, took } from "./text.js";

const SPAN = 900; // seconds that are shown, once there are so many
const LEAST = 60;
const WIDTH = 300;
const HEIGHT = 64;
const APART = 12; // of WIDTH: points that are further apart are not joined
const SVG = "http://www.w3.org/2000/svg";

// A sample: at, sessions, started, to_upstream, to_downstream, connect_mean, connect_most, lag.
const PLOTS = [
  {
    title: "Throughput",
    series: [
      { name: "to clients", at: 4, color: "one", area: true },
      { name: "to servers", at: 3, color: "two" },
    ],
    show: rate,
    value: (sample) => rate(sample[3] + sample[4]),
    note: (sample) => `${rate(sample[4])} to clients, ${rate(sample[3])} to servers`,
  },
  {
    title: "Sessions",
    series: [{ name: "sessions", at: 1, color: "one", area: true }],
    show: count,
    value: (sample) => count(sample[1]),
    note: (sample, look) => `${sample[2] >= 10 ? count(sample[2]) : Number(sample[2].toFixed(1))} new a second`
      + (look ? `, at most ${count(look.max_sessions)}` : ""),
  },
  {
    title: "Connect time",
    series: [
      { name: "slowest", at: 6, color: "two" },
      { name: "mean", at: 5, color: "one", area: true },
    ],
    show: took,
    value: (sample, look, last) => took(sample[5] ?? last(5)),
    note: (sample, look, last) => {
      const most = sample[6] ?? last(6);
      return most == null ? "no session has connected" : `mean; the slowest took ${took(most)}`;
    },
  },
  {
    title: "Loop lag",
    series: [{ name: "longest turn", at: 7, color: "one", area: true }],
    show: took,
    value: (sample) => (sample[7] == null ? "off" : took(sample[7])),
    note: (sample) => (sample[7] == null ? "the watchdog is off" : "longest turn of the event loop"),
  },
];

function svg(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

class Plot {
  constructor(kind) {
    this.kind = kind;
    this.value = element("span", { class: "value" });
    this.note = element("span", { class: "note" });
    this.most = element("span", { class: "most", "aria-hidden": "true" });
    this.drawing = svg("svg", {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img",
    });
    this.paths = kind.series.map((series) => {
      const area = svg("path", { class: `${series.color} area` });
      const line = svg("path", { class: `${series.color} line` });
      this.drawing.append(...(series.area ? [area, line] : [line]));
      return { area, line };
    });
    this.cursor = svg("line", { class: "cursor", y1: 0, y2: HEIGHT, x1: -1, x2: -1 });
    this.drawing.append(this.cursor);
    const frame = element("div", { class: "frame" });
    frame.append(this.drawing, this.most);
    this.from = element("span");
    this.root = element("figure", { class: "card plot" },
      element("figcaption", {}, element("span", { class: "title" }, kind.title), this.value, this.note),
      frame,
      element("div", { class: "axis", "aria-hidden": "true" },
        this.from, element("span", {}, "now")));
    frame.addEventListener("pointermove", (event) => this.point(event));
    frame.addEventListener("pointerleave", () => { this.pointed = null; this.label(); });
    this.pointed = null;
    this.samples = [];
  }

  draw(samples, look) {
    this.samples = samples;
    this.look = look;
    const now = samples.length ? samples[samples.length - 1][0] : 0;
    const columns = this.kind.series.map((series) => series.at);
    let most = 0;
    for (const sample of samples) for (const at of columns) most = Math.max(most, sample[at] ?? 0);
    const height = (value) => HEIGHT - 2 - (most ? (value / most) * (HEIGHT - 8) : 0);
    const span = Math.min(SPAN, Math.max(LEAST, samples.length ? now - samples[0][0] : 0));
    this.across = (at) => WIDTH - ((now - at) / span) * WIDTH;
    this.when = (across) => now - (1 - across) * span;
    setText(this.from, `${Math.round(span / 60)} min ago`);
    this.kind.series.forEach((series, number) => {
      const pieces = pieced(samples, series.at, this.across, height);
      this.paths[number].line.setAttribute("d", pieces.map(line).join(""));
      this.paths[number].area.setAttribute("d", pieces.map(area).join(""));
    });
    setText(this.most, most ? this.kind.show(most) : "");
    this.label(most);
  }

  label(most) {
    const { kind, samples, look } = this;
    const sample = this.pointed ?? samples[samples.length - 1];
    if (!sample) return;
    const last = (at) => samples.findLast((each) => each[at] != null)?.[at];
    const ago = this.pointed ? samples[samples.length - 1][0] - this.pointed[0] : 0;
    setText(this.value, kind.value(sample, look, this.pointed ? () => null : last));
    setText(this.note, this.pointed
      ? `${took(Math.round(ago))} ago` : kind.note(sample, look, last));
    const x = this.pointed ? this.across(sample[0]) : -1;
    this.cursor.setAttribute("x1", x);
    this.cursor.setAttribute("x2", x);
    if (most !== undefined) {
      const highest = most ? `, at most ${kind.show(most)} in the last 15 minutes` : "";
      this.drawing.setAttribute("aria-label", `${kind.title}: ${this.value.textContent}${highest}`);
    }
  }

  point(event) {
    const box = this.drawing.getBoundingClientRect();
    const { samples } = this;
    if (!samples.length) return;
    const at = this.when((event.clientX - box.left) / box.width);
    const next = samples.findIndex((sample) => sample[0] >= at);
    this.pointed = next < 0 || at < samples[0][0] - 5 ? null : samples[next];
    this.label();
  }
}

// The points of a series, in pieces: where there is no value for some time, there is no line.
function pieced(samples, column, across, height) {
  const pieces = [];
  let piece = [];
  for (const sample of samples) {
    if (sample[column] == null) continue;
    const point = [across(sample[0]), height(sample[column])];
    if (!piece.length || point[0] - piece[piece.length - 1][0] > APART) {
      piece = [];
      pieces.push(piece);
    }
    piece.push(point);
  }
  return pieces;
}

const joined = (piece) => piece.map(([x, y]) => `${x.toFixed(1)} ${y.toFixed(1)}`).join("L");

function line(piece) {
  return `M${joined(piece)}${piece.length > 1 ? "" : "h0.01"}`;
}

function area(piece) {
  const [first, last] = [piece[0][0], piece[piece.length - 1][0]];
  return `M${first.toFixed(1)} ${HEIGHT}L${joined(piece)}L${last.toFixed(1)} ${HEIGHT}Z`;
}

export class Plots {
  constructor(root) {
    this.plots = PLOTS.map((kind) => new Plot(kind));
    root.append(...this.plots.map((plot) => plot.root));
    this.samples = [];
    this.look = null;
  }

  history(samples) {
    this.samples = samples;
    this.draw();
  }

  add(sample, look) {
    this.samples.push(sample);
    this.look = look;
    const oldest = sample[0] - SPAN;
    while (this.samples[0][0] < oldest) this.samples.shift();
    this.draw();
  }

  draw() {
    for (const plot of this.plots) plot.draw(this.samples, this.look);
  }
}

