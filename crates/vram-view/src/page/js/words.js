"use strict";
// Every text of a snapshot reaches the page as text (textContent), never as markup.

/** A number that the snapshot has, or 0: a file may hold anything. */
const num = (value) => (typeof value === "number" && Number.isFinite(value) && value > 0 ? value : 0);
const list = (value) => (Array.isArray(value) ? value : []);
const text = (value) => (typeof value === "string" ? value : value == null ? "" : String(value));
const count = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;

/** Bytes in the largest unit that fits them, rounded down: never more than there are. */
function size(bytes) {
  const units = [["PiB", 2 ** 50], ["TiB", 2 ** 40], ["GiB", 2 ** 30], ["MiB", 2 ** 20], ["KiB", 2 ** 10]];
  for (const [name, unit] of units) {
    if (bytes >= unit) return `${(Math.floor((bytes / unit) * 10) / 10).toFixed(1)} ${name}`;
  }
  return `${bytes} B`;
}

/** Seconds of a duration as serde writes it. */
const seconds = (duration) => num(duration?.secs) + num(duration?.nanos) / 1e9;

/** A time span in two units at most. */
function span(all) {
  const s = Math.floor(all);
  if (s < 1) return "under 1 s";
  const parts = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = parts.findIndex(([, unit]) => s >= unit);
  let rest = s;
  const shown = [];
  for (const [name, unit] of parts.slice(first, first + 2)) {
    const n = Math.floor(rest / unit);
    rest -= n * unit;
    if (n > 0) shown.push(`${n} ${name}`);
  }
  return shown.join(" ");
}

/** A moment in UTC. */
function moment(millis) {
  const at = new Date(num(millis));
  return Number.isNaN(at.getTime()) ? "unknown" : at.toISOString().replace("T", " ").replace(/\.\d+Z$/, " UTC");
}

/** An element with attributes, and children that are nodes or texts. */
function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

const by = (id) => document.getElementById(id);

/** Replaces the content, unless it is the same text: what a screen reader was told stays told. */
function fill(element, ...children) {
  const next = make("div", null, ...children);
  if (element.innerHTML !== next.innerHTML) element.replaceChildren(...next.childNodes);
}

/** Letters for models, as columns of a sheet are named: A to Z, AA, AB, … */
function letters(index) {
  let name = "";
  for (let n = index; n >= 0; n = Math.floor(n / 26) - 1) name = String.fromCharCode(65 + (n % 26)) + name;
  return name;
}

/** Colours that people who see few colours tell apart by lightness too; letters name the models. */
const COLOURS = ["#7fb2e5", "#f2b36b", "#8fd0a3", "#e59ab8", "#b7a6e8", "#d9cf6e", "#74cfd0", "#d6a58a", "#a9c46c", "#c0c6d4"];
const colour = (index) => COLOURS[index % COLOURS.length];
