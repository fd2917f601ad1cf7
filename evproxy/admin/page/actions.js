// What changes the proxy: each change after a question.

import { age, count, element, plural, setText, took } from "./text.js";

const TOKEN = "evproxy-token";
const find = (id) => document.getElementById(id);

class Refused extends Error {}

async function send(path, body) {
  const headers = { "Content-Type": "application/json" };
  const token = sessionStorage.getItem(TOKEN);
  if (token) headers.Authorization = `Bearer ${token}`;
  let answer;
  try {
    answer = await fetch(path, { method: "POST", headers, body: JSON.stringify(body ?? {}) });
  } catch {
    throw new Refused("evproxy does not answer");
  }
  const found = await answer.json().catch(() => ({}));
  if (answer.status === 401) {
    sessionStorage.removeItem(TOKEN);
    return null;
  }
  if (!answer.ok) throw new Refused(found.error ?? `the answer has the status ${answer.status}`);
  return found;
}

// Ask for the token until it is right; null: the user gave up.
async function change(path, body) {
  let found = await send(path, body);
  for (let tries = 0; found === null; tries += 1) {
    const token = element("input", { type: "password", autocomplete: "off", required: true });
    const given = await ask({
      title: "Token",
      body: [
        element("p", {}, tries ? "The token is wrong." : "A change needs the token of this admin interface."),
        element("label", {}, "Token ", token),
        element("p", { class: "quiet" }, "It stays in this tab until the tab is closed."),
      ],
      verb: "Use the token",
      value: () => token.value.trim(),
    });
    if (given === null) return null;
    // A header of HTTP carries ASCII only, and so does a token.
    if (/^[!-~]+$/.test(given)) sessionStorage.setItem(TOKEN, given);
    found = await send(path, body);
  }
  return found;
}

// A question in the dialog; its promise has the value, or null if the user says no.
function ask({ title, body, verb, danger = false, choices = [], value = () => true }) {
  const dialog = find("dialog");
  const form = dialog.querySelector("form");
  setText(find("dialog-title"), title);
  find("dialog-body").replaceChildren(...body);
  const no = element("button", { type: "button" }, verb ? "Cancel" : "Close");
  const yes = verb
    ? element("button", { type: "submit", class: danger ? "danger" : "primary" }, verb) : null;
  const others = choices.map(([label, chosen]) => {
    const made = element("button", { type: "button" }, label);
    made.addEventListener("click", () => answer(chosen));
    return made;
  });
  find("dialog-buttons").replaceChildren(...others, no, ...(yes ? [yes] : []));
  let answer;
  return new Promise((resolve) => {
    answer = (result) => {
      dialog.oncancel = form.onsubmit = null;
      if (dialog.open) dialog.close();
      resolve(result);
    };
    no.addEventListener("click", () => answer(null));
    // Not `onclose`: that comes late, when the next question may be open.
    dialog.oncancel = () => answer(null);
    form.onsubmit = (event) => {
      event.preventDefault();
      answer(value());
    };
    dialog.showModal();
    (form.querySelector("input") ?? no).focus();
  });
}

async function act(question, path, body, done) {
  const value = await ask(question);
  if (value === null) return;
  try {
    const found = await change(path, body(value));
    if (found !== null) say(done(found, value));
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    await ask({ title: "Not done", body: [element("p", {}, error.message)] });
  }
}

let clearing;

function say(text) {
  const place = find("done");
  setText(place, text);
  place.classList.add("shown");
  clearTimeout(clearing);
  clearing = setTimeout(() => place.classList.remove("shown"), 6000);
}

const paragraph = (text) => element("p", {}, text);

function of(server) {
  return `pools/${encodeURIComponent(server.pool)}/servers/${encodeURIComponent(server.name)}`;
}

export function endSession(session) {
  const where = session.server ? ` with ${session.server}` : "";
  return act({
    title: `End session ${session.id}?`,
    body: [paragraph(`Resets both sides of the session of ${session.peer || "a client"}${where}.`)],
    verb: "End the session",
    danger: true,
  }, `sessions/${session.id}/end`, () => ({}), () => `Session ${session.id} is ended.`);
}

export async function manage(server) {
  const facts = [
    ["Pool", server.pool],
    ["State", `${server.state} for ${age(server.for)}`],
    ["Why", server.why || "–"],
    ["Ejected for", server.ejected_for === null ? null : `another ${took(server.ejected_for)}`],
    ["Sessions", `${count(server.sessions)} now, ${count(server.sessions_total)} so far`],
    ["Weight", String(server.weight)],
    ["Tier", `${server.backup ? "backup, " : ""}priority ${server.priority}`],
    ["Failed connects", count(server.connect_failures)],
    ["Ejections", count(server.ejections)],
    ["Tags", server.tags.join(", ") || null],
  ].filter(([, value]) => value !== null);
  const drains = server.state === "draining";
  const chosen = await ask({
    title: server.name,
    body: [element("dl", {}, ...facts.flatMap(
      ([name, value]) => [element("dt", {}, name), element("dd", {}, value)]))],
    choices: [
      drains ? ["Resume…", resume] : ["Drain…", drain],
      ["Set the weight…", weigh],
      ["End its sessions…", endSessions],
    ],
  });
  if (chosen !== null) await chosen(server);
}

function drain(server) {
  return act({
    title: `Drain ${server.name}?`,
    body: [paragraph(`It gets no new sessions until it is resumed. Its ${plural(server.sessions, "session")} `
      + "may go on.")],
    verb: "Drain",
  }, `${of(server)}/drain`, () => ({}), () => `${server.name} drains.`);
}

function resume(server) {
  return act({
    title: `Resume ${server.name}?`,
    body: [paragraph("It gets new sessions again.")],
    verb: "Resume",
  }, `${of(server)}/resume`, () => ({}), () => `${server.name} is resumed.`);
}

function weigh(server) {
  const weight = element("input", {
    type: "number", min: 0, max: 256, step: 1, required: true, value: Math.round(server.weight),
  });
  return act({
    title: `Set the weight of ${server.name}?`,
    body: [
      element("label", {}, "Weight ", weight),
      element("p", { class: "quiet" }, "A whole number from 0 to 256. 0: no new sessions."),
    ],
    verb: "Set the weight",
    value: () => weight.valueAsNumber,
  }, `${of(server)}/weight`, (value) => ({ weight: value }),
  (found, value) => `${server.name} has the weight ${value}.`);
}

function endSessions(server) {
  const over = element("input", {
    type: "number", min: 0, max: 86400, step: "any", required: true, value: 10,
  });
  return act({
    title: `End the sessions of ${server.name}?`,
    body: [
      paragraph(`Resets its ${plural(server.sessions, "session")}, evenly within this time.`
        + (server.state === "draining" ? "" : " Drain it first: a client that is reset may come back.")),
      element("label", {}, "Seconds ", over),
    ],
    verb: "End the sessions",
    danger: true,
    value: () => over.valueAsNumber,
  }, `${of(server)}/end`, (value) => ({ over: value }),
  (found) => `${plural(found.sessions, "session")} of ${server.name} will end.`);
}
