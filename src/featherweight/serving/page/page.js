// The chat page. What a model writes enters the page through textContent only, never as HTML.
"use strict";

const byId = (id) => document.getElementById(id);
const state = { models: [], compare: false, turns: [], stopper: null };
const numbers = ["temperature", "top_p", "top_k", "min_p", "repetition_penalty", "max_tokens", "seed"];

function make(tag, kind, text) {
  const element = document.createElement(tag);
  if (kind) element.className = kind;
  if (text !== undefined) element.textContent = text;
  return element;
}

function headers() {
  const key = byId("key").value;
  const fields = { "Content-Type": "application/json" };
  if (key) fields.Authorization = `Bearer ${key}`;
  return fields;
}

async function errorMessage(response) {
  try {
    return (await response.json()).error.message;
  } catch {
    return `the server answered ${response.status}`;
  }
}

function size(bytes) {
  return bytes >= 1e9 ? `${(bytes / 1e9).toFixed(2)} GB` : `${(bytes / 1e6).toFixed(1)} MB`;
}

function describe(model) {
  const facts = model.featherweight || {};
  const parts = [];
  if (facts.bits) parts.push(`${facts.bits.toFixed(2)} bits a weight`);
  if (facts.file_bytes) parts.push(size(facts.file_bytes));
  return parts;
}

const visibleModels = () => (state.compare ? state.models : state.models.slice(0, 1));
const role = (model) => ((model.featherweight || {}).role === "original" ? "original" : "light");

function showModels() {
  const list = byId("models");
  list.replaceChildren();
  const two = visibleModels().length > 1;
  list.classList.toggle("two", two);
  byId("main").classList.toggle("two", two);
  for (const model of visibleModels()) {
    const line = make("div", `model ${role(model)}`);
    line.append(make("strong", "", model.id));
    for (const part of describe(model)) line.append(" · ", make("span", "number", part));
    const facts = model.featherweight || {};
    if (facts.description) line.title = facts.description;
    list.append(line);
  }
  const [light, original] = state.models.map((model) => model.featherweight || {});
  let summary = state.models.length ? `${state.models[0].id}: ${describe(state.models[0]).join(", ") || "ready"}.` : "";
  // The files of the original can be a conversion to another dtype; a user had the published ones.
  const originalBytes = original && (original.published_bytes || original.file_bytes);
  if (originalBytes && light.file_bytes) {
    const dtype = original.published_dtype ? ` (${size(originalBytes)} in ${original.published_dtype} as published)` : "";
    summary += ` The original, ${state.models[1].id}${dtype}, is ${(originalBytes / light.file_bytes).toFixed(1)} times as large.`;
  }
  const first = state.models.length && state.models[0].featherweight;
  byId("facts").textContent = first && first.description ? `${summary} (${first.description})` : summary;
}

async function load() {
  try {
    const response = await fetch("v1/models", { headers: headers() });
    if (response.status === 401) {
      byId("facts").textContent = "This server wants an API key: give it in the settings.";
      showSettings(true);
      return;
    }
    if (!response.ok) throw new Error(await errorMessage(response));
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

function requestBody(model) {
  const messages = [];
  const system = byId("system").value.trim();
  if (system) messages.push({ role: "system", content: system });
  for (const turn of state.turns) {
    messages.push({ role: "user", content: turn.question });
    const content = turn.answers.get(model.id);
    if (content) messages.push({ role: "assistant", content });
  }
  const body = { model: model.id, messages, stream: true, stream_options: { include_usage: true } };
  for (const name of numbers) {
    const value = byId(name).value;
    if (value !== "") body[name] = Number(value);
  }
  return body;
}

// Yields the data of each server-sent event.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let buffer = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    buffer += value;
    const lines = buffer.split("\n\n");
    buffer = lines.pop();
    for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
  }
}

// Times in milliseconds: of the first and the last token, and of the question.
function rate(box, numTokens, first, last, start, finish) {
  // A short answer may arrive all at once; then the only known time is the one since the question.
  const isStreamed = last - first >= 100;
  const perSecond = 1000 * (isStreamed ? (numTokens - 1) / (last - first) : numTokens / (last - start));
  const parts = [`${numTokens} ${numTokens === 1 ? "token" : "tokens"}`];
  if (numTokens > 1 && last > start) parts.push(`${perSecond.toFixed(1)} tokens/s`);
  if (first) parts.push(`first after ${((first - start) / 1000).toFixed(2)} s`);
  if (finish) parts.push(finish);
  box.textContent = parts.join(" · ");
}

async function answer(model, turn, list, signal) {
  const box = make("article", `answer busy ${role(model)}`);
  box.setAttribute("aria-busy", "true");
  const words = make("div", "words");
  const speed = make("p", "rate");
  box.append(make("h3", "", model.id), words, speed);
  list.append(box);
  const start = performance.now();
  const ends = { stop: "", length: "reached the most tokens" };
  let numTokens = 0, first = 0, last = 0, text = "", end = "";
  try {
    const body = JSON.stringify(requestBody(model));
    const response = await fetch("v1/chat/completions", { method: "POST", headers: headers(), body, signal });
    if (!response.ok) throw new Error(await errorMessage(response));
    for await (const data of events(response)) {
      if (data === "[DONE]") break;
      const event = JSON.parse(data);
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (choice && choice.delta.content) {
        const follow = window.innerHeight + window.scrollY >= document.body.scrollHeight - 60;
        last = performance.now();
        first = first || last;
        numTokens += 1;
        text += choice.delta.content;
        words.textContent = text;
        if (follow) window.scrollTo(0, document.body.scrollHeight);
      }
      if (choice && choice.finish_reason) end = ends[choice.finish_reason] || "";
      if (event.usage) numTokens = event.usage.completion_tokens;
      rate(speed, numTokens, first, last, start, end);
    }
  } catch (error) {
    if (error.name === "AbortError") rate(speed, numTokens, first, last, start, "stopped");
    else box.append(make("p", "problem", error.message));
  }
  turn.answers.set(model.id, text);
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
  const list = make("div", "answers");
  byId("talk").append(make("div", "mine", question), list);
  state.stopper = new AbortController();
  setBusy(true);
  window.scrollTo(0, document.body.scrollHeight);
  await Promise.all(visibleModels().map((model) => answer(model, turn, list, state.stopper.signal)));
  state.stopper = null;
  setBusy(false);
  byId("question").focus();
}

function setBusy(busy) {
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

function startChat() {
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
byId("fresh").addEventListener("click", startChat);
byId("open").addEventListener("click", () => showSettings(byId("settings").hidden));
byId("compare").addEventListener("click", () => {
  state.compare = !state.compare;
  byId("compare").setAttribute("aria-pressed", String(state.compare));
  startChat();
  showModels();
});
byId("key").value = sessionStorage.getItem("key") || "";
byId("key").addEventListener("change", () => { sessionStorage.setItem("key", byId("key").value); load(); });
for (const idea of document.querySelectorAll(".idea")) idea.addEventListener("click", () => ask(idea.textContent));
load();
