"use strict";

// Seconds of callbacks in the timeline, and for which a dot is shown in the batch.
const SPAN = 3;
const LINGER = 0.25;
// A callback of this many seconds or more is red: the watchdog's threshold.
const HELD = 0.02;
const LONGEST = 1;
const SHORTEST = 0.00003;

const at = (id) => document.getElementById(id);
const show = (id, text) => { at(id).textContent = text; };
const milliseconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(0)} ms`;

const loop = { callbacks: [], running: [], now: 0, seen: 0, descriptors: {}, batch: new Map() };
const dots = new Map();

// The time of the proxy's clock now: that of its last news, and what has passed since.
const clock = () => loop.now + (performance.now() - loop.seen) / 1000;

function heardOfLoop(event) {
  loop.now = event.now;
  loop.seen = performance.now();
  loop.descriptors = event.descriptors;
  loop.running = event.running.filter(([, began]) => event.now - began >= HELD);
  for (const callback of event.callbacks) {
    loop.callbacks.push(callback);
    loop.batch.set(String(callback[0]), event.now);
  }
  for (const [descriptor] of event.running) loop.batch.set(String(descriptor), event.now);
  show("turns", event.turns.toLocaleString("en"));
  show("sessions", event.sessions);
  for (const report of event.reports) heardOfHold(report.text);
}

function heardOfHold(text) {
  const list = at("reports");
  if (!list.dataset.begun) list.replaceChildren();
  list.dataset.begun = "yes";
  const item = document.createElement("li");
  item.textContent = text;
  list.prepend(item);
  while (list.children.length > 5) list.lastChild.remove();
}

function heardOfThreads(event) {
  const box = at("threads");
  while (box.children.length < event.threads.length) box.append(document.createElement("i"));
  while (box.children.length > event.threads.length) box.lastChild.remove();
  event.threads.forEach((state, number) => {
    box.children[number].className = `thread ${state}`;
    box.children[number].title = state;
  });
  const busy = event.threads.filter((state) => state !== "free").length;
  show("busy", `${busy} of ${event.threads.length}`);
  show("queue", event.queue);
}

function heardOfLatencies(event) {
  const sorted = event.latencies.sort((one, other) => one - other);
  const place = (share) => sorted[Math.max(0, Math.ceil(sorted.length * share) - 1)];
  const text = (share) => (sorted.length ? milliseconds(place(share)) : "–");
  show(`${event.proxy}-p50`, text(0.5));
  show(`${event.proxy}-p99`, text(0.99));
  show(`${event.proxy}-lost`, `${event.unanswered} of ${event.unanswered + sorted.length}`);
}

function heardOfButton(event) {
  const button = document.querySelector(`[data-action="${event.action}"]`);
  if (button.hasAttribute("aria-pressed")) button.setAttribute("aria-pressed", String(event.on));
  button.disabled = false;
}

const HEARD = {
  loop: heardOfLoop, threads: heardOfThreads, latencies: heardOfLatencies, done: heardOfButton,
};

function placeDots(now) {
  const count = { waiting: 0, batch: 0 };
  for (const [descriptor, kind] of Object.entries(loop.descriptors)) {
    let dot = dots.get(descriptor);
    if (!dot) {
      dot = document.createElement("i");
      dots.set(descriptor, dot);
    }
    const last = loop.batch.get(descriptor);
    const place = last !== undefined && now - last < LINGER ? "batch" : "waiting";
    dot.className = `dot ${kind}`;
    if (dot.parentNode !== at(place)) at(place).append(dot);
    count[place] += 1;
  }
  for (const [descriptor, dot] of dots) {
    if (!(descriptor in loop.descriptors)) {
      dot.remove();
      dots.delete(descriptor);
      loop.batch.delete(descriptor);
    }
  }
  show("waiting-count", count.waiting);
  show("batch-count", count.batch);
}

function drawTimeline(now) {
  const canvas = at("timeline");
  const pen = canvas.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(name).trim();
  // A change of the size also clears the canvas.
  const sharp = window.devicePixelRatio;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * sharp;
  canvas.height = height * sharp;
  pen.scale(sharp, sharp);
  const x = (time) => width * (1 - (now - time) / SPAN);
  const y = (seconds) => {
    const share = Math.log(Math.max(seconds, SHORTEST * 1.2) / SHORTEST) / Math.log(LONGEST / SHORTEST);
    return height * (1 - Math.min(share, 1));
  };
  pen.strokeStyle = colour("--line");
  pen.fillStyle = colour("--quiet");
  pen.font = "12px sans-serif";
  for (const [seconds, label] of [[0.0001, "0.1 ms"], [0.001, "1 ms"], [0.01, "10 ms"], [0.1, "100 ms"]]) {
    pen.beginPath();
    pen.moveTo(0, y(seconds));
    pen.lineTo(width, y(seconds));
    pen.stroke();
    pen.fillText(label, 4, y(seconds) - 3);
  }
  const bars = [...loop.callbacks, ...loop.running.map(([descriptor, began]) => [descriptor, began, now])];
  let longest = 0;
  for (const [descriptor, began, ended] of bars) {
    const took = ended - began;
    longest = Math.max(longest, took);
    const kind = loop.descriptors[descriptor] === "server" ? "--server" : "--client";
    pen.fillStyle = colour(took >= HELD ? "--held" : kind);
    pen.fillRect(x(began), y(took), Math.max(x(ended) - x(began), 2), height - y(took));
  }
  show("longest", bars.length ? milliseconds(longest * 1000) : "–");
  show("rate", Math.round(loop.callbacks.filter(([, , ended]) => now - ended < 1).length));
}

function draw() {
  const now = clock();
  loop.callbacks = loop.callbacks.filter(([, , ended]) => now - ended < SPAN);
  const held = loop.running.length > 0;
  at("loop").classList.toggle("held", held);
  const busy = [...loop.batch.values()].some((last) => now - last < LINGER);
  show("state", held ? `held for ${(now - loop.running[0][1]).toFixed(2)} s` : busy ? "turns" : "waits");
  placeDots(now);
  drawTimeline(now);
  requestAnimationFrame(draw);
}

for (const button of document.querySelectorAll("[data-action]")) {
  button.addEventListener("click", async () => {
    button.disabled = true;
    const on = button.getAttribute("aria-pressed") === "true" ? 0 : 1;
    await fetch(`do/${button.dataset.action}?on=${on}`, { method: "POST", headers: { "X-Study": "1" } });
    button.disabled = false;
  });
}

const events = new EventSource("events");
events.onopen = () => show("link", "live");
events.onerror = () => show("link", "no connection");
events.onmessage = (message) => {
  const event = JSON.parse(message.data);
  HEARD[event.kind](event);
};
requestAnimationFrame(draw);
