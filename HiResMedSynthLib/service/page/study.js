// A reader study: shows trial after trial, fetches the next one ahead, sends each answer before showing another.

import { Hand, Picture, View } from "/picture.js";

const QUESTIONS = { "yes-no": "Real or synthetic?", "2afc": "Which one is synthetic?", "4afc": "Which one is synthetic?" };
const CONFIDENCE = ["1 guessed", "2", "3", "4", "5 certain"];
const CHOICE_KEYS = { r: "real", s: "synthetic" };
const $ = (id) => document.getElementById(id);

let facts = null;
let view = null;
let pictures = [];
let trial = null;
let choice = null;
let sending = false;
let clock = { since: 0, seconds: 0 };
const ahead = new Map(); // number of a trial -> promise of its pictures

class Refused extends Error {
  constructor(status, what) {
    super(what);
    this.status = status;
  }
}

async function ask(path, body) {
  const options = { credentials: "same-origin", cache: "no-store" };
  if (body !== undefined) {
    options.method = "POST";
    options.headers = { "content-type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (!response.ok) {
    const told = await response.json().catch(() => null);
    const error = told?.error;
    throw new Refused(response.status, error ? `${error.what}. ${error.remedy ?? ""}` : "The study can't be reached.");
  }
  return response;
}

// -- panel: everything that is not a trial ---------------------------------------------------------------------------
function panel(state, title, text, button = "") {
  document.body.dataset.state = state;
  $("title").textContent = title;
  $("text").textContent = text;
  $("go").textContent = button;
  $(state === "code" ? "code" : "go").focus();
}

function problem(error) {
  if (error instanceof Refused && error.status === 401) {
    panel("code", "Reader study", error.message, "Enter");
    return;
  }
  const text = error instanceof Refused ? error.message : "The study can't be reached: is it still being served?";
  panel("problem", "Something went wrong", `${text} Answers that were sent are kept.`, "Try again");
}

async function begin() {
  facts = await (await ask("/study")).json();
  ahead.clear();
  if (facts.next === null) {
    panel("done", "Done", `Thank you, ${facts.reader}. All ${facts.trials} answers are kept; you may close this page.`);
    return;
  }
  prepare();
  const done = facts.next - 1;
  const where = done ? `You have answered ${done} of ${facts.trials}.` : `There are ${facts.trials} to judge.`;
  panel("ready", `Reader: ${facts.reader}`, `${QUESTIONS[facts.task]} ${where}`, done ? "Go on" : "Start");
  load(facts.next).catch(() => ahead.delete(facts.next));
}

async function enter(code) {
  $("code").value = "";
  await ask("/session", { code });
  await begin();
}

$("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const state = document.body.dataset.state;
  if (state === "code") enter($("code").value).catch(problem);
  else if (state === "ready") show(facts.next).catch(problem);
  else if (state === "paused") resume();
  else begin().catch(problem);
});

// -- a trial ---------------------------------------------------------------------------------------------------------
function prepare() {
  const count = facts.choices.includes("real") ? 1 : facts.choices.length;
  view = new View(facts);
  $("pictures").dataset.count = count;
  $("pictures").replaceChildren();
  pictures = [];
  for (let k = 0; k < count; k += 1) {
    const figure = document.createElement("figure");
    const canvas = document.createElement("canvas");
    figure.append(canvas);
    if (count > 1) {
      const caption = document.createElement("figcaption");
      caption.textContent = facts.choices[k];
      figure.append(caption);
    }
    $("pictures").append(figure);
    pictures.push(new Picture(canvas, facts));
  }
  $("question").textContent = QUESTIONS[facts.task];
  $("answer-keys").textContent = count === 1
    ? "tap, or press R (real) or S (synthetic)" : `tap, or press ${facts.choices.join(", ")}`;
  buttons("choices", facts.choices, facts.choices.map((name) => count > 1 ? name : name === "real" ? "Real" : "Synthetic"), choose);
  buttons("confidence", [1, 2, 3, 4, 5], CONFIDENCE, send);
  hand.use(view, pictures);
  for (const part of document.querySelectorAll("#ring, .ring")) part.hidden = facts.mark_radius === null;
}

function buttons(group, values, texts, act) {
  for (const old of $(group).querySelectorAll("button")) old.remove();
  values.forEach((value, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.value = value;
    button.textContent = texts[k];
    button.addEventListener("click", () => act(value));
    $(group).append(button);
  });
}

function load(number) {
  if (!ahead.has(number)) {
    ahead.set(number, (async () => {
      const told = ask(`/trials/${number}`).then((response) => response.json());
      const fetched = pictures.map(async (_, k) => {
        const response = await ask(`/trials/${number}/images/${k + 1}`);
        const values = new Uint16Array(await response.arrayBuffer());
        if (values.length !== facts.rows * facts.columns) throw new Error("an image is not whole");
        return values;
      });
      return { marks: (await told).marks, values: await Promise.all(fetched) };
    })());
    ahead.get(number).catch(() => ahead.delete(number));
  }
  return ahead.get(number);
}

async function show(number) {
  const held = await load(number);
  for (const old of ahead.keys()) if (old < number) ahead.delete(old);
  trial = number;
  view.resetPlace();
  pictures.forEach((picture, k) => picture.give(held.values[k], held.marks[k]));
  const paused = document.body.dataset.state === "paused"; // while the answer before was on its way
  document.body.dataset.state = "showing";
  $("progress").textContent = `${number} / ${facts.trials}`;
  choose(null);
  draw(true);
  clock = { since: performance.now(), seconds: 0 };
  document.body.dataset.trial = number;
  if (paused) pause();
  if (number < facts.trials) load(number + 1).catch(() => {});
}

function draw(windowed) {
  if (windowed) {
    const table = view.table();
    pictures.forEach((picture) => picture.window(table));
    const unit = facts.units === "HU" ? " HU" : "";
    $("window").textContent = `W ${Math.round(view.width)} L ${Math.round(view.center)}${unit}`;
  }
  pictures.forEach((picture) => picture.draw(view));
}

let due = null;
function soon(windowed) {
  if (due === null) requestAnimationFrame(() => { const whole = due; due = null; draw(whole); });
  due = due || windowed;
}

const hand = new Hand($("pictures"), soon);

function choose(value) {
  choice = value;
  for (const button of $("choices").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.value === value));
  }
  [...$("pictures").children].forEach((figure, k) => {
    figure.dataset.chosen = String(pictures.length > 1 && facts.choices[k] === value);
  });
  $("confidence").dataset.ready = String(value !== null);
  for (const button of $("confidence").querySelectorAll("button")) button.disabled = value === null;
}

async function send(confidence) {
  if (choice === null || sending) return;
  sending = true;
  const seconds = clock.seconds + (performance.now() - clock.since) / 1000;
  try {
    const { next } = await (await ask("/answers", { trial, choice, confidence, seconds })).json();
    if (next === null) await begin();
    else await show(next);
  } catch (error) {
    problem(error);
  } finally {
    sending = false;
  }
}

function pause() {
  clock.seconds += (performance.now() - clock.since) / 1000;
  panel("paused", "Paused", `${trial - 1} of ${facts.trials} answered. You may also close this page and go on later.`, "Go on");
}

function resume() {
  clock.since = performance.now();
  document.body.dataset.state = "showing";
  draw(false);
}

function reset() {
  view.resetWindow();
  view.resetPlace();
  draw(true);
}

// -- hands and keys --------------------------------------------------------------------------------------------------
$("pause").addEventListener("click", pause);
$("reset").addEventListener("click", reset);
$("ring").addEventListener("click", () => { view.ring = !view.ring; draw(false); });
$("pictures").addEventListener("dblclick", reset);
window.addEventListener("resize", () => { if (document.body.dataset.state === "showing") draw(false); });

document.addEventListener("keydown", (event) => {
  if (document.body.dataset.state !== "showing" || event.ctrlKey || event.metaKey || event.altKey || event.repeat) {
    return;
  }
  const key = event.key.toLowerCase();
  const chosen = facts.choices.find((name) => name.toLowerCase() === (CHOICE_KEYS[key] ?? key));
  const arrows = { arrowleft: [-1, 0], arrowright: [1, 0], arrowup: [0, -1], arrowdown: [0, 1] };
  if (chosen !== undefined) choose(chosen);
  else if (key >= "1" && key <= "5" && key.length === 1) send(Number(key));
  else if (key === "p") pause();
  else if (key === "0") reset();
  else if (key === "m") { view.ring = !view.ring; draw(false); }
  else if (key === "+" || key === "=" || key === "-") { view.zoomBy(key === "-" ? 1 / 1.25 : 1.25); draw(false); }
  else if (key in arrows) {
    view.moveTo(view.x + 0.1 * arrows[key][0] / view.zoom, view.y + 0.1 * arrows[key][1] / view.zoom);
    draw(false);
  } else if (key === "escape") choose(null);
  else return;
  event.preventDefault();
});

// the code stands in the fragment, which no browser sends; it is taken out of the address at once
const code = location.hash.slice(1);
history.replaceState(null, "", "/");
(code ? enter(code) : begin()).catch(problem);
