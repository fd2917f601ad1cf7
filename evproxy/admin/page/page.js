// The status page: asks for a stream of looks at the proxy, and shows each one.

import { endSession, manage } from "./actions.js";
import { Plots } from "./plots.js";
import { Table, button, text } from "./tables.js";
import { age, bytes, count, element, plural, rate, setText, took } from "./text.js";

const FEW = 100;
const MANY = 500;
const LATE = 5000; // milliseconds without a look, until the page says so
const AGAIN = 2000; // milliseconds until it asks again after a refusal
const find = (id) => document.getElementById(id);

const question = { filter: "", sort: "rate", reversed: false, limit: FEW };
const plots = new Plots(find("plots"));
const pools = new Map();
let stream = null;
let paused = false;
let lastLook = 0;
let interval = 1;
let retry;

// Tables.

const listeners = new Table(find("listeners"), "Listeners", [
  text("Listener", (each) => each.name, { class: "name" }),
  text("Address", (each) => each.address || "does not listen"),
  text("Sessions", (each) => count(each.sessions), { class: "number" }),
  text("Refused", (each) => Object.entries(each.refused)
    .map(([why, number]) => `${count(number)} ${why}`).join(", ") || "0", { class: "titled" }),
], (each) => `${each.name} ${each.address}`);

const sorting = {
  sort: question.sort,
  reversed: false,
  choose(sort) {
    this.reversed = sort === this.sort && !this.reversed;
    this.sort = sort;
    Object.assign(question, { sort, reversed: this.reversed });
    connect();
  },
};

const number = (title, get, sort, more = "") => text(
  title, get, { class: `number ${more}`, sort, number: true });

const sessions = new Table(find("sessions-table"), "Sessions", [
  number("Session", (each) => String(each.id), "id"),
  text("Client", (each) => each.peer || "unix", { class: "name", sort: "peer" }),
  text("Listener, route", (each) => (each.route ? `${each.listener}: ${each.route}` : each.listener),
    { class: "wrap", sort: "route" }),
  text("Server", (each) => each.server || "–", { class: "name server", sort: "server" }),
  text("Pool", (each) => each.pool || "–", { class: "titled" }),
  text("Phase", (each) => each.phase, { sort: "phase" }),
  number("Age", (each) => age(each.duration), "age"),
  number("Bytes", (each) => `${bytes(each.bytes_to_upstream)} up, ${bytes(each.bytes_to_downstream)} down`,
    "bytes"),
  number("Rate", (each) => rate(each.rate_to_upstream + each.rate_to_downstream), "rate"),
  button("End", "End", (each) => `End session ${each.id}`, endSession),
], (each) => each.id, sorting);

function state(item, cell) {
  if (!cell.firstChild) cell.append(element("span", { class: "pill" }));
  setText(cell.firstChild, item.state);
  cell.firstChild.className = `pill ${item.state}`;
}

function load(item, cell) {
  if (!cell.firstChild) cell.append(element("span"), element("span", { class: "bar" }, element("span")));
  const [label, bar] = cell.children;
  setText(label, item.max_sessions ? `${count(item.sessions)} of ${count(item.max_sessions)}`
    : count(item.sessions));
  bar.hidden = !item.max_sessions;
  bar.firstChild.style.width = `${Math.min(100, (100 * item.sessions) / (item.max_sessions || 1))}%`;
}

function named(item, cell) {
  if (!cell.firstChild) cell.append(element("span"), element("span", { class: "tag" }));
  setText(cell.firstChild, item.name);
  setText(cell.lastChild, item.backup ? "backup" : "");
}

const SERVER = [
  { title: "Server", class: "name", show: named },
  { title: "State", show: state },
  text("Since", (each) => age(each.for), { class: "number" }),
  text("Why", (each) => each.why, { class: "wrap why" }),
  { title: "Sessions", class: "number", show: load },
  text("Rate", (each) => rate(each.rate_to_upstream + each.rate_to_downstream), { class: "number" }),
  text("Connect", (each) => (each.connect_time ? took(each.connect_time) : "–"), { class: "number" }),
  text("Failed", (each) => count(each.connect_failures), { class: "number" }),
  text("Weight", (each) => String(each.weight), { class: "number" }),
  button("Manage", "Manage", (each) => `Manage ${each.name} in pool ${each.pool}`, manage),
];

function makePool(name) {
  const id = `pool-${pools.size}-${Date.now()}`;
  const table = element("table");
  const title = element("h3", { id }, name);
  const about = element("span", { class: "quiet" });
  const counts = element("span", { class: "counts" });
  const none = element("p", { class: "none" });
  const scroll = element("div", {
    class: "scroll", tabindex: "0", role: "region", "aria-labelledby": id,
  }, table);
  const root = element("div", { class: "card pool" },
    element("div", { class: "head" }, title, counts, about), scroll, none);
  const servers = new Table(table, `Servers of pool ${name}`, SERVER, (each) => each.name);
  return { root, about, counts, none, scroll, servers };
}

function showPools(look) {
  const left = new Map(pools);
  for (const pool of look.pools) {
    let shown = pools.get(pool.name);
    if (!shown) {
      shown = makePool(pool.name);
      pools.set(pool.name, shown);
      find("pools").append(shown.root);
    }
    left.delete(pool.name);
    setText(shown.about, [
      pool.balance,
      pool.checks ? `checks: ${pool.checks}` : "no checks",
      plural(pool.sessions, "session"),
      pool.waiting ? `${count(pool.waiting)} waiting` : "",
    ].filter(Boolean).join(" · "));
    const states = Object.entries(pool.servers).filter(([, total]) => total);
    shown.counts.replaceChildren(...states.map(
      ([name, total]) => element("span", { class: `pill ${name}` }, `${count(total)} ${name}`)));
    const servers = look.servers.filter((each) => each.pool === pool.name);
    shown.scroll.hidden = !servers.length;
    shown.none.hidden = servers.length > 0;
    setText(shown.none, states.length ? "No server fits the filter." : "This pool has no servers.");
    shown.servers.show(servers);
  }
  for (const [name, shown] of left) {
    shown.root.remove();
    pools.delete(name);
  }
  const more = look.servers_matching - look.servers.length;
  find("servers-more").hidden = more <= 0;
  setText(find("servers-more"), `${plural(more, "more server")}: filter to see them. `
    + "Servers that are not up come first.");
}

function showSessions(look) {
  sessions.show(look.sessions);
  const hidden = look.matching - look.sessions.length;
  const total = question.filter ? `${count(look.matching)} of ${count(look.sessions_total)}`
    : count(look.sessions_total);
  setText(find("sessions-count"), hidden > 0 ? `${total}, the first ${look.sessions.length} here` : total);
  const more = find("more");
  more.hidden = question.limit === MANY ? true : hidden <= 0;
  setText(more, `Show up to ${MANY}`);
  find("sessions-none").hidden = look.sessions.length > 0;
  setText(find("sessions-none"), question.filter ? "No session fits the filter." : "There is no session now.");
}

function show(look) {
  setText(find("state"), look.state);
  find("state").className = `pill ${look.state === "running" ? "up" : "draining"}`;
  setText(find("about"), [
    look.version,
    `process ${look.pid}`,
    look.workers ? plural(look.workers.length, "worker") : "",
  ].filter(Boolean).join(" · "));
  const bad = look.pools.reduce((sum, pool) => sum + pool.servers.down + pool.servers.ejected || sum, 0);
  document.title = `${bad ? `(${bad}) ` : ""}evproxy · ${plural(look.sessions_total, "session")}`;
  showPools(look);
  listeners.show(look.listeners);
  showSessions(look);
  plots.add(look.sample, look);
}

// What a look lacks, because workers have not answered; empty: nothing.
function silence(look) {
  if (look.state !== "running") return "";
  const silent = (look.workers ?? []).filter((each) => !each.answered).map((each) => each.number);
  if (!silent.length) return "";
  return silent.length > 1 ? `Workers ${silent.join(", ")} do not answer. Their sessions are not shown.`
    : `Worker ${silent[0]} does not answer. Its sessions are not shown.`;
}

// The stream.

function where() {
  const { filter, sort, reversed, limit } = question;
  const order = reversed ? "reversed" : "";
  return `live?${new URLSearchParams({ filter, sort, order, limit })}`;
}

function connect() {
  disconnect();
  if (paused || document.hidden) {
    // What is missing from now on was not asked for.
    lastLook = 0;
    return;
  }
  stream = new EventSource(where());
  stream.addEventListener("history", (event) => {
    const found = JSON.parse(event.data);
    interval = found.interval;
    plots.history(found.samples);
    lastLook ||= Date.now();
  });
  stream.addEventListener("look", (event) => {
    lastLook = Date.now();
    const look = JSON.parse(event.data);
    problem(silence(look));
    show(look);
    tell();
  });
  stream.addEventListener("error", () => {
    // A browser tries again by itself, unless evproxy has refused.
    if (stream.readyState === EventSource.CLOSED) refused();
  });
}

function disconnect() {
  clearTimeout(retry);
  if (stream) stream.close();
  stream = null;
}

async function refused() {
  disconnect();
  retry = setTimeout(connect, AGAIN);
  const asking = new AbortController();
  try {
    const answer = await fetch(where(), { signal: asking.signal });
    if (!answer.ok) problem((await answer.json()).error);
    asking.abort();
  } catch {
    problem("");
  }
}

function problem(line) {
  find("banner").hidden = !line;
  setText(find("banner"), line);
}

function tell() {
  const link = find("link");
  const late = lastLook && Date.now() - lastLook > LATE + 2000 * interval;
  link.className = `link ${paused ? "paused" : late ? "late" : lastLook ? "live" : ""}`;
  setText(link, paused ? "paused" : late ? `no answer for ${age((Date.now() - lastLook) / 1000)}`
    : lastLook ? "live" : "connecting");
}

// Controls.

let typing;

function filter(now) {
  clearTimeout(typing);
  typing = setTimeout(() => {
    const given = find("filter").value.trim();
    if (given === question.filter) return;
    question.filter = given;
    connect();
  }, now ? 0 : 300);
}

function pause() {
  paused = !paused;
  find("pause").setAttribute("aria-pressed", String(paused));
  setText(find("pause"), paused ? "Go on" : "Pause");
  connect();
  tell();
}

function keys(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || find("dialog").open) return;
  if (event.target === find("filter")) {
    if (event.key !== "Escape") return;
    find("filter").value = "";
    find("filter").blur();
    filter(true);
  } else if (event.target.matches("input, select, textarea")) return;
  else if (event.key === "/") find("filter").focus();
  else if (event.key === "p") pause();
  else if (event.key === "s") find("sessions").focus();
  else return;
  event.preventDefault();
}

find("filter").addEventListener("input", () => filter(false));
find("pause").addEventListener("click", pause);
find("more").addEventListener("click", () => {
  question.limit = MANY;
  connect();
});
document.addEventListener("keydown", keys);
document.addEventListener("visibilitychange", connect);
setInterval(tell, 1000);
connect();
