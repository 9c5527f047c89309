// The page as a whole: what is shown first, and the theme.

const cards = new Map();

function sum(title, value, note) {
  return make("div", null, make("dt", null, title), make("dd", null, value, note ? make("small", null, note) : null));
}

function showFindings(view) {
  const found = findings(view);
  if (!found.length) {
    const oldest = oldestOf(view.shards);
    const seen = view.shards.length ? `, ${count(view.shards.length, "shard")}; the one that waits longest was verified ${oldest < 0 ? "at a time unknown" : `${span(oldest)} ago`}` : ", and no shard";
    fill(by("findings"), make("div", { class: "finding good" }, make("b", null, "Nothing."), ` ${count(view.gpus.length, "GPU")} serving${seen}.`));
    return;
  }
  fill(by("findings"), ...found.map(({ level, what, next }) => make("div", { class: `finding ${level}` },
    make("b", null, level === "bad" ? "Wrong: " : "Note: "), what, make("br"), make("span", { class: "next" }, next))));
}

function showSums(view) {
  const add = (field) => view.gpus.reduce((all, gpu) => all + num(gpu.capacity[field]), 0);
  const usable = view.gpus.filter((gpu) => gpu.lost === null).length;
  const wrong = view.shards.filter((shard) => shard.altered).length;
  const lost = view.shards.filter((shard) => shard.state === "lost").length;
  const leases = view.models.reduce((all, model) => all + model.leases, 0);
  const whole = view.models.filter((model) => model.state === "whole").length;
  by("sums").replaceChildren(
    sum("GPUs", `${usable} of ${view.gpus.length}`, "in service"),
    sum("used", size(add("used")), `of ${size(add("total"))}`),
    sum("room", size(add("room")), "can be granted"),
    sum("models", view.models.length.toLocaleString("en"), `${whole} whole`),
    sum("shards", view.shards.length.toLocaleString("en"), wrong || lost ? `${wrong.toLocaleString("en")} altered, ${lost.toLocaleString("en")} lost` : "all there"),
    sum("leases", leases.toLocaleString("en"), `${count(view.shards.filter((shard) => shard.pinned).length, "shard")} pinned`),
    sum("parked", size(num(view.park.used)), `of ${size(num(view.park.limit))} host`),
    ...scrubSum(),
  );
}

/** What the scrubber does, from the metrics of a server; a snapshot says nothing of it. */
let scrub = null;
function scrubSum() {
  if (!scrub) return [];
  const state = !scrub.vram_scrub_running ? "not running" : scrub.vram_scrub_paused ? "paused" : scrub.vram_scrub_kept ? "in time" : "late";
  const passes = num(scrub.vram_scrub_passes_total);
  return [sum("scrubber", state, `${size(num(scrub.vram_scrub_bytes_total))} seen, ${passes === 1 ? "1 whole pass" : `${passes.toLocaleString("en")} whole passes`}`)];
}

function showLegend() {
  const kinds = [
    ["leased", { leases: 1 }], ["pinned", { pinned: true }], ["altered, in quarantine", { altered: true }], ["lost with its GPU", { state: "lost" }],
  ].map(([label, more]) => [label, { id: "", start: 0, footprint: 1, age: 0, state: "resident", model: { letter: "", name: "", colour: colour(0) }, ...more }]);
  const items = kinds.map(([label, shard]) => {
    const canvas = make("canvas");
    return [canvas, shard, make("span", null, canvas, label)];
  });
  const ages = make("span", null, "strip below: time since verified, green under 1 min to red from 6 h");
  by("legend").replaceChildren(...items.map(([, , item]) => item), ages);
  for (const [canvas, shard] of items) draw(canvas, { shards: [shard] }, 0, 1, 0);
}

/** Shows a snapshot. */
function show(snapshot) {
  const view = read(snapshot);
  by("when").textContent = `As of ${moment(view.at)}`;
  showFindings(view);
  showSums(view);
  for (const [index, card] of cards) {
    if (!view.gpus.some((gpu) => gpu.index === index)) { card.element.remove(); cards.delete(index); }
  }
  for (const gpu of view.gpus) {
    let card = cards.get(gpu.index);
    if (!card) { card = new Card(gpu.index); cards.set(gpu.index, card); by("gpus").append(card.element); }
    card.show(gpu);
  }
  showModels(view);
  showOthers(view);
  showShards(view);
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  by("theme").textContent = dark ? "Light theme" : "Dark theme";
  showLegend();
  for (const card of cards.values()) card.paint();
}

function start() {
  const system = matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  try { chosen = localStorage.getItem("vram-theme"); } catch { /* A file has no storage in some browsers. */ }
  setTheme(chosen ? chosen === "dark" : system.matches);
  system.addEventListener("change", () => { if (!chosen) setTheme(system.matches); });
  by("theme").addEventListener("click", () => {
    chosen = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
    try { localStorage.setItem("vram-theme", chosen); } catch { /* It holds until the page is left. */ }
    setTheme(chosen === "dark");
  });
  listen();
  const data = by("snapshot");
  if (data) show(JSON.parse(data.textContent));
  else live();
}
