"use strict";
// Asks the device for its status every few seconds and shows it. Texts from the device are set as text, never as markup.
const $ = id => document.getElementById(id);
const EVERY = 3000;
let token = sessionStorage.getItem("token");
let previous = null;

function show(id, text) {
  $(id).textContent = text || "";
  $(id).hidden = !text;
}

class Refused extends Error {
  constructor(status, body) {
    super(body.code ? `${body.code}: ${body.Error}` : `The device answered with ${status}.`);
    this.code = body.code;
  }
}

async function ask(method, path, body) {
  const headers = token ? { Authorization: "Bearer " + token } : {};
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, cache: "no-store", signal: AbortSignal.timeout(15000) });
  } catch {
    throw new Error("The device does not answer. It may be restarting.");
  }
  const text = await answer.text();
  let value = {};
  try { value = JSON.parse(text); } catch { /* an empty answer is one */ }
  if (!answer.ok) throw new Refused(answer.status, value);
  return value;
}

function row(cells) {
  const tr = document.createElement("tr");
  for (const { text, small, look } of cells) {
    const td = tr.insertCell();
    td.textContent = text;
    if (look) td.className = look;
    if (small) td.appendChild(document.createElement("small")).textContent = small;
  }
  return tr;
}

function ago(ms) {
  const s = Math.max(0, Math.round(ms / 1000));
  if (s < 120) return `${s} s`;
  return s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}

const GOOD = ["READY", "STARTED", "MOUNTED"];

function render(s) {
  const good = GOOD.includes(s.status);
  $("status").textContent = s.status;
  $("status").className = "badge " + (good ? "good" : s.degraded ? "bad" : "");
  $("revision").textContent = s.revision;
  $("committed").textContent = s.candidate && s.candidate !== s.committed
    ? `on trial: ${s.candidate}; if it fails, the device comes back to ${s.committed}` : "committed: this is what the device boots";
  $("containers").replaceChildren(...s.containers.map(c => row([
    { text: c.name },
    { text: c.status, look: GOOD.includes(c.status) ? "good" : c.code ? "bad" : "",
      small: c.code ? `${c.code}: ${c.reason}` : c.started_ms === undefined ? "" : `for ${ago(s.now_ms - c.started_ms)}` },
    { text: c.restarts },
  ])));
  const u = s.update;
  const reason = u && [u["status-msg"], u.code && `${u.reason} (${u.code})`].filter(Boolean).join(": ");
  $("update").textContent = u ? `${u.revision}: ${u.status}. ${reason}` : "None is known.";
  $("update").className = u && /ERROR|WONTGO/.test(u.status) ? "bad" : "";
  previous = s.previous && s.previous !== s.revision ? s.previous : null;
  $("previous").textContent = previous ? `The revision before was ${previous}.` : "There is no revision to go back to.";
  $("back").disabled = !previous || Boolean(s.candidate);
  const facts = [["Up", ago(s.now_ms)]];
  if (s.memory) facts.push(["Memory", `${Math.round(s.memory.available_kb / 1024)} of ${Math.round(s.memory.total_kb / 1024)} MB free`]);
  for (const text of s.not_survived || []) facts.push(["Note", text]);
  $("facts").replaceChildren(...facts.flatMap(([name, text]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    [dt.textContent, dd.textContent] = [name, text];
    return [dt, dd];
  }));
  $("state").hidden = false;
  $("state").setAttribute("aria-busy", "false");
}

async function refresh() {
  try {
    render(await ask("GET", "status"));
    show("trouble");
    $("pair").hidden = true;
  } catch (error) {
    const stranger = ["SB1516", "SB1517"].includes(error.code);
    if (stranger) {
      $("state").hidden = true;
      $("pair").hidden = false;
    }
    show("trouble", stranger && !token ? "" : error.message);
    if (stranger) token = null;
    $("back").disabled = true;
  }
  setTimeout(refresh, document.hidden ? 10 * EVERY : EVERY);
}

async function greet() {
  $("compare").hidden = location.protocol !== "https:";
  try {
    const remote = await ask("GET", ".pvrremote");
    $("device").textContent = remote["switchback.name"] || "";
    if (remote["switchback.access"] === "open")
      show("danger", "Development device: everybody who reaches it can change it. Nothing is encrypted. Never ship it.");
    else if (location.protocol === "http:")
      show("danger", "Nothing is encrypted here: whoever listens on the way can read the token and use it.");
  } catch { /* the status says what is wrong */ }
}

$("pair").addEventListener("submit", async event => {
  event.preventDefault();
  try {
    const answer = await ask("POST", "pair", JSON.stringify({ secret: $("code").value.trim().slice(-9), name: "browser" }));
    token = answer.token;
    sessionStorage.setItem("token", token);
    $("code").value = "";
    $("pair").hidden = true;
    show("trouble");
    render(await ask("GET", "status"));
  } catch (error) {
    show("trouble", error.message);
  }
});

$("back").addEventListener("click", () => {
  $("what").textContent = `The device goes from ${$("revision").textContent} back to ${previous}.`;
  $("sure").returnValue = "no";
  $("sure").showModal();
});

$("sure").addEventListener("close", async () => {
  // One answer counts once: on a slow machine the event of the answer before may come only now.
  const yes = $("sure").returnValue === "yes";
  $("sure").returnValue = "no";
  if (!yes) return;
  $("back").disabled = true;
  try {
    await ask("POST", "rollback");
  } catch (error) {
    show("trouble", error.message);
  }
});

greet();
refresh();
