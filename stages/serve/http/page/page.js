"use strict";
// Everything from the server goes in as text, never as markup: titles are what strangers wrote.
const at = (id) => document.getElementById(id);
let slates = [];

async function post(path, body) {
  const headers = { "content-type": "application/json" };
  if (at("key").value) headers.authorization = `Bearer ${at("key").value}`;
  const response = await fetch(path, { method: "POST", headers, body: JSON.stringify(body) });
  const answer = await response.json().catch(() => ({}));
  if (response.status === 401) at("key-row").hidden = false;
  if (!response.ok) throw new Error(answer.message || `the server answered ${response.status}`);
  return answer;
}

function say(text, bad = false) {
  at("message").textContent = text;
  at("message").className = bad ? "bad" : "";
}

function element(tag, className, text) {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

function line(place, item, marks, next, relevance) {
  const row = element("li", next ? "next" : "", "");
  const name = element("span", "name", item.title || item.id);
  const more = item.title && item.title !== item.id ? [item.id] : [];
  if (relevance !== undefined && relevance !== null) more.push(`relevance ${relevance}`);
  if (more.length) name.append(element("small", "", more.join(" · ")));
  row.append(element("span", "place", place), name, ...marks);
  return row;
}

function moved(from, to) {
  if (from === to) return element("span", "mark", "=");
  const up = from > to;
  return element("span", up ? "mark up" : "mark down", `${up ? "▲" : "▼"} ${Math.abs(from - to)}`);
}

function lines(text) {
  return text.split("\n").map((one) => one.trim()).filter(Boolean);
}

function show(history, items, answer, next) {
  const nextMark = (index) => (items[index].id === next ? [element("span", "mark", "taken next")] : []);
  at("taken").replaceChildren(...history.map((item) => line("", item, [], false)));
  at("incoming").replaceChildren(...items.map((item, place) => line(place + 1, item, nextMark(place), item.id === next)));
  at("ranked").replaceChildren(...answer.items.map((one, place) => {
    const marks = [...nextMark(one.index), moved(one.index, place)];
    return line(place + 1, items[one.index], marks, items[one.index].id === next, one.relevance);
  }));
  at("reasoning").textContent = answer.reasoning || "none: the model answered at once";
  at("result").hidden = false;
  const places = answer.items.filter((one, place) => one.index !== place).length;
  if (answer.fallback) say(`The incoming order, unchanged (${answer.fallback}): this is no rerank.`, true);
  else say(places ? `${places} of ${items.length} items moved.` : "Nothing moved: the model keeps the incoming order.");
}

async function asked() {
  if (document.forms.ask.whose.value === "user") {
    const slate = await post("page/slate", { user_id: at("user").value.trim() });
    return { history: slate.history, items: slate.items, scores: slate.scores, next: slate.next };
  }
  const [history, items] = [lines(at("history").value), lines(at("items").value)];
  if (!history.length || !items.length) throw new Error("Give at least one line of history and one item.");
  const titled = (await post("page/titles", { items: [...history, ...items] })).items;
  return { history: titled.slice(0, history.length), items: titled.slice(history.length), scores: null, next: null };
}

async function rank() {
  at("rank").disabled = true;
  say("Ranking…");
  try {
    const { history, items, scores, next } = await asked();
    const ids = (list) => list.map((item) => item.id);
    const answer = await post("rank", { history: ids(history), items: ids(items), scores, explain: true });
    show([...history].reverse(), items, answer, next);
  } catch (error) {
    at("result").hidden = true;
    say(error.message, true);
  } finally {
    at("rank").disabled = false;
  }
}

async function begin() {
  try {
    const version = await (await fetch("version")).json();
    at("served").textContent = `${version.model}, ${version.mode}`;
    slates = (await post("page/users", {})).users;
    at("users").replaceChildren(...slates.map((user) => Object.assign(document.createElement("option"), { value: user })));
    if (!at("user").value && slates.length) at("user").value = slates[0];
  } catch (error) {
    say(error.message, true);
  }
}

for (const radio of document.forms.ask.whose) {
  radio.addEventListener("change", () => {
    at("of-user").hidden = radio.value !== "user";
    at("of-pasted").hidden = radio.value === "user";
  });
}
at("another").addEventListener("click", () => {
  if (slates.length) at("user").value = slates[Math.floor(Math.random() * slates.length)];
  rank();
});
document.forms.ask.addEventListener("submit", (event) => {
  event.preventDefault();
  rank();
});
at("key").addEventListener("change", begin);
begin().then(() => {
  const linked = new URLSearchParams(location.hash.slice(1)).get("user"); // /#user=196
  if (linked === null) return;
  at("user").value = linked;
  rank();
});
