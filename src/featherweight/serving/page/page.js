// The chat page. What a model writes enters the page through textContent only, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const state = { models: [], compare: false, turns: [], stopper: null };
const numbers = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];

function make(tag, kind, text) {
  const made = document.createElement(tag);
  if (kind) made.className = kind;
  if (text !== undefined) made.textContent = text;
  return made;
}

function headers() {
  const key = byId("key").value;
  const found = { "Content-Type": "application/json" };
  if (key) found.Authorization = `Bearer ${key}`;
  return found;
}

async function problem(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

function size(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function described(model) {
  const facts = model.featherweight || {};
  const parts = [];
  if (facts.bits) parts.push(`${facts.bits.toFixed(2)} bits a weight`);
  if (facts.file_bytes) parts.push(size(facts.file_bytes));
  return parts;
}

const shown = () => (state.compare ? state.models : state.models.slice(0, 1));
const role = (model) => ((model.featherweight || {}).role === "original" ? "original" : "light");

function showModels() {
  const place = byId("models");
  place.replaceChildren();
  const two = shown().length > 1;
  place.classList.toggle("two", two);
  byId("main").classList.toggle("two", two);
  for (const model of shown()) {
    const line = make("div", `model ${role(model)}`);
    line.append(make("strong", "", model.id));
    for (const part of described(model)) line.append(" · ", make("span", "number", part));
    const facts = model.featherweight || {};
    if (facts.description) line.title = facts.description;
    place.append(line);
  }
  const sizes = state.models.map((model) => (model.featherweight || {}).file_bytes);
  let told = state.models.length ? `${state.models[0].id}: ${described(state.models[0]).join(", ") || "ready"}.` : "";
  if (sizes.length > 1 && sizes[0] && sizes[1]) {
    told += ` The original, ${state.models[1].id}, is ${(sizes[1] / sizes[0]).toFixed(1)} times as large.`;
  }
  const first = state.models.length && state.models[0].featherweight;
  byId("facts").textContent = first && first.description ? `${told} (${first.description})` : told;
}

async function load() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (response.status === 401) {
      byId("facts").textContent = "This server wants an API key: give it in the settings.";
      showSettings(true);
      return;
    }
    if (!response.ok) throw new Error(await problem(response));
    state.models = (await response.json()).data;
    byId("compare").hidden = state.models.length < 2;
    showModels();
  } catch (error) {
    byId("facts").textContent = `The server does not answer: ${error.message}`;
  }
}

function showSettings(open) {
  byId("settings").hidden = !open;
  byId("open").setAttribute("aria-expanded", String(open));
}

function wanted(model) {
  const messages = [];
  const system = byId("system").value.trim();
  if (system) messages.push({ role: "system", content: system });
  for (const turn of state.turns) {
    messages.push({ role: "user", content: turn.question });
    const said = turn.answers.get(model.id);
    if (said) messages.push({ role: "assistant", content: said });
  }
  const asked = { model: model.id, messages, stream: true, stream_options: { include_usage: true } };
  for (const name of numbers) {
    const value = byId(name).value;
    if (value !== "") asked[name] = Number(value);
  }
  return asked;
}

// Yields the data of each server-sent event.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    rest += value;
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) yield part.slice(6);
  }
}

function rate(box, made, first, last, asked, finish) {
  // A short answer may reach the page in one piece; then all that is known is how long it took from the question on.
  const pieces = last - first >= 100;
  const perSecond = 1000 * (pieces ? (made - 1) / (last - first) : made / (last - asked));
  const parts = [`${made} ${made === 1 ? "token" : "tokens"}`];
  if (made > 1 && last > asked) parts.push(`${perSecond.toFixed(1)} tokens/s`);
  if (first) parts.push(`first after ${((first - asked) / 1000).toFixed(2)} s`);
  if (finish) parts.push(finish);
  box.textContent = parts.join(" · ");
}

async function answer(model, turn, place, signal) {
  const box = make("article", `answer busy ${role(model)}`);
  box.setAttribute("aria-busy", "true");
  const words = make("div", "words");
  const speed = make("p", "rate");
  box.append(make("h3", "", model.id), words, speed);
  place.append(box);
  const asked = performance.now();
  const ends = { stop: "", length: "reached the most tokens" };
  let made = 0, first = 0, last = 0, said = "", end = "";
  try {
    const body = JSON.stringify(wanted(model));
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body, signal });
    if (!response.ok) throw new Error(await problem(response));
    for await (const data of events(response)) {
      if (data === "[DONE]") break;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (choice && choice.delta.content) {
        const follow = window.innerHeight + window.scrollY >= document.body.scrollHeight - 60;
        last = performance.now();
        first = first || last;
        made += 1;
        said += choice.delta.content;
        words.textContent = said;
        if (follow) window.scrollTo(0, document.body.scrollHeight);
      }
      if (choice && choice.finish_reason) end = ends[choice.finish_reason] || "";
      if (event.usage) made = event.usage.completion_tokens;
      rate(speed, made, first, last, asked, end);
    }
  } catch (error) {
    if (error.name === "AbortError") rate(speed, made, first, last, asked, "stopped");
    else box.append(make("p", "problem", error.message));
  }
  turn.answers.set(model.id, said);
  box.classList.remove("busy");
  box.setAttribute("aria-busy", "false");
}

async function ask(question) {
  if (state.stopper || !question.trim() || !state.models.length) return;
  if (!byId("settings").checkValidity()) {
    showSettings(true);
    byId("settings").reportValidity();
    return;
  }
  const turn = { question, answers: new Map() };
  state.turns.push(turn);
  byId("welcome").hidden = true;
  const place = make("div", "answers");
  byId("talk").append(make("div", "mine", question), place);
  state.stopper = new AbortController();
  working(true);
  window.scrollTo(0, document.body.scrollHeight);
  await Promise.all(shown().map((model) => answer(model, turn, place, state.stopper.signal)));
  state.stopper = null;
  working(false);
  byId("question").focus();
}

function working(busy) {
  byId("send").hidden = busy;
  byId("stop").hidden = !busy;
  byId("compare").disabled = byId("fresh").disabled = busy;
  byId("status").textContent = busy ? "Answering…" : "";
}

function fit() {
  const box = byId("question");
  box.style.height = "auto";
  box.style.height = `${box.scrollHeight + 2}px`;
}

function send() {
  const question = byId("question").value;
  if (state.stopper || !question.trim()) return;
  byId("question").value = "";
  fit();
  ask(question);
}

function fresh() {
  state.turns = [];
  byId("talk").replaceChildren();
  byId("welcome").hidden = false;
  byId("question").focus();
}

byId("composer").addEventListener("submit", (event) => { event.preventDefault(); send(); });
byId("settings").addEventListener("submit", (event) => event.preventDefault());
byId("question").addEventListener("input", fit);
byId("question").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && state.stopper) state.stopper.abort();
});
byId("stop").addEventListener("click", () => state.stopper && state.stopper.abort());
byId("fresh").addEventListener("click", fresh);
byId("open").addEventListener("click", () => showSettings(byId("settings").hidden));
byId("compare").addEventListener("click", () => {
  state.compare = !state.compare;
  byId("compare").setAttribute("aria-pressed", String(state.compare));
  fresh();
  showModels();
});
byId("key").value = sessionStorage.getItem("key") || "";
byId("key").addEventListener("change", () => { sessionStorage.setItem("key", byId("key").value); load(); });
for (const idea of document.querySelectorAll(".idea")) idea.addEventListener("click", () => ask(idea.textContent));
load();
