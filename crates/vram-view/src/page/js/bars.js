// Bars: each GPU's memory from its first byte to its last, drawn on a canvas, walked by keyboard.

const css = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** Age since the last check as a step from 0 (just checked) to 4. */
const AGES = [[60, "under 1 min"], [600, "under 10 min"], [3600, "under 1 h"], [21600, "under 6 h"], [Infinity, "6 h and more"]];
const step = (age) => (age === null ? 4 : AGES.findIndex(([limit]) => age < limit));

/** Stripes in both directions for what is lost, in one for what is altered. */
function stripes(context, x, y, width, height, both, ink) {
  context.save();
  context.beginPath();
  context.rect(x, y, width, height);
  context.clip();
  context.strokeStyle = ink;
  context.lineWidth = 1.5;
  context.beginPath();
  for (let at = x - height - ((x - height) % 6); at < x + width + height; at += 6) {
    context.moveTo(at, y + height);
    context.lineTo(at + height, y);
    if (both) { context.moveTo(at, y); context.lineTo(at + height, y + height); }
  }
  context.stroke();
  context.restore();
}

/** A canvas of the size that it is shown in, and its context in CSS pixels. */
function sheet(canvas) {
  const ratio = Math.min(window.devicePixelRatio || 1, 3);
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  const [w, h] = [Math.max(1, Math.round(width * ratio)), Math.max(1, Math.round(height * ratio))];
  if (canvas.width !== w) canvas.width = w;
  if (canvas.height !== h) canvas.height = h;
  const context = canvas.getContext("2d");
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.clearRect(0, 0, width, height);
  return { context, width, height };
}

/** The first of the shards, in order of their starts, that ends after `at`. */
function firstAfter(shards, at) {
  let [low, high] = [0, shards.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (shards[middle].start + shards[middle].footprint > at) high = middle; else low = middle + 1;
  }
  return low;
}

/** Pixels of the strip that shows ages. */
const STRIP = 8;

/** Draws what lies from byte `from` to byte `to`, above a strip of ages `ages` pixels high. */
function draw(canvas, gpu, from, to, ages = STRIP) {
  const { context, width, height } = sheet(canvas);
  const scale = width / (to - from);
  const tall = height - ages - 1;
  const [bad, ink, card, line] = ["--bad", "--ink", "--card", "--line"].map(css);
  context.strokeStyle = line;
  context.setLineDash([3, 3]);
  context.strokeRect(0.5, 0.5, width - 1, tall - 1);
  context.setLineDash([]);
  const ramp = ["#2e9e5b", "#87b84a", "#d8b93a", "#d98032", "#b0413a"];
  let drawn = 0;
  let run = null;
  const runs = [];
  const altered = [];
  for (let index = firstAfter(gpu.shards, from); index < gpu.shards.length; index += 1) {
    const shard = gpu.shards[index];
    if (shard.start >= to) break;
    const left = (shard.start - from) * scale;
    const wide = shard.footprint * scale;
    const right = left + wide;
    if (shard.altered) altered.push([left, wide]);
    // Narrower than a pixel: a shard that ends in a pixel that is drawn adds nothing.
    if (right <= drawn) continue;
    const x = Math.max(left, drawn - 0.5);
    const w = Math.max(0.75, right - x);
    context.fillStyle = shard.model.colour;
    context.fillRect(x, 0, w, tall);
    if (shard.state !== "resident") { context.fillStyle = "rgba(90,96,108,.55)"; context.fillRect(x, 0, w, tall); stripes(context, x, 0, w, tall, true, ink); }
    // Inside the colour of the model, which both are seen against in either theme.
    context.fillStyle = ink;
    if (shard.leases) context.fillRect(x, Math.min(4, tall / 5), Math.max(1, w - 0.5), Math.min(4, tall / 4));
    if (shard.pinned) {
      const [side, foot] = [Math.min(8, w - 2), tall - 3];
      if (side < 4) context.fillRect(x, foot - 3, w, 3);
      else { context.beginPath(); context.moveTo(x + 2, foot); context.lineTo(x + 2 + side, foot); context.lineTo(x + 2, foot - side); context.fill(); }
    }
    context.fillStyle = ramp[step(shard.age)];
    context.fillRect(x, tall + 1, w, ages);
    if (wide > 3) { context.fillStyle = card; context.fillRect(right - 0.5, 0, 1, tall); }
    if (run && run.model === shard.model && left - run.right < 1.5) run.right = right;
    else { run = { model: shard.model, left, right }; runs.push(run); }
    drawn = Math.max(drawn, right);
  }
  // Last, and three pixels wide at least: what is altered is seen among thousands.
  for (const [left, wide] of altered) {
    const [x, w] = [Math.min(left, width - 3), Math.max(3, wide)];
    context.fillStyle = bad;
    context.fillRect(x, 0, w, tall);
    if (w > 6) stripes(context, x, 0, w, tall, false, card);
  }
  context.font = "700 12px system-ui, sans-serif";
  context.textBaseline = "middle";
  for (const { model, left, right } of runs) {
    const [start, end] = [Math.max(left, 0), Math.min(right, width)];
    const wanted = `${model.letter}  ${model.name}`;
    for (const label of [wanted, model.letter]) {
      const needs = context.measureText(label).width + 12;
      if (!model.letter || needs > end - start) continue;
      context.fillStyle = "rgba(255,255,255,.78)";
      context.fillRect(start + 4, tall / 2 - 9, needs - 4, 18);
      context.fillStyle = "#10131a";
      context.fillText(label, start + 8, tall / 2 + 0.5);
      break;
    }
  }
}

/** Puts a frame around a shard, or takes it away. */
function frame(element, shard, from, to) {
  element.hidden = !shard;
  if (!shard) return;
  const percent = (bytes) => `${(bytes / (to - from)) * 100}%`;
  element.style.left = percent(shard.start - from);
  element.style.width = percent(shard.footprint);
}

/** The card of one GPU. It is made once and filled again, so that the focus stays where it is. */
class Card {
  constructor(index) {
    this.index = index;
    this.at = 0;
    this.turn = 0;
    this.isPicked = false;
    const id = `gpu-${index}`;
    this.title = make("h3", { id });
    this.name = make("span", { class: "name" });
    this.state = make("span", { class: "state" });
    this.canvas = make("canvas", { "aria-hidden": "true" });
    this.frame = make("i", { class: "frame", hidden: true });
    // Two options in turn: a screen reader reads an active descendant that is another element.
    this.options = ["a", "b"].map((half) => make("span", { role: "option", id: `${id}-${half}`, "aria-selected": "true", class: "hidden" }));
    this.bar = make("div", { class: "bar", role: "listbox", tabindex: "0", "aria-labelledby": id, "aria-describedby": `${id}-how` }, this.canvas, this.frame, ...this.options);
    this.lens = make("div", { class: "lens", hidden: true, "aria-hidden": "true" }, make("canvas"), make("i", { class: "frame" }), make("p", null, make("span"), make("span")));
    this.scale = make("p", { class: "scale", "aria-hidden": "true" }, make("span", null, "0"), make("span"));
    this.picked = make("div", { class: "picked" });
    this.money = make("div", { class: "money", "aria-hidden": "true" });
    this.figures = make("dl", { class: "figures" });
    const how = make("p", { class: "hidden", id: `${id}-how` }, "Arrow keys go from shard to shard, Page Up and Page Down by ten, Home and End to the ends, W to the next one that is wrong.");
    this.element = make("article", { class: "gpu", "aria-labelledby": id },
      make("div", { class: "top" }, this.title, this.name, this.state), how, this.bar, this.scale, this.lens, this.picked, this.money, this.figures);
    this.bar.addEventListener("keydown", (event) => this.key(event));
    this.bar.addEventListener("focus", () => { this.isPicked = true; this.pick(this.at); });
    for (const kind of ["pointermove", "pointerdown"]) this.canvas.addEventListener(kind, (event) => this.point(event));
    new ResizeObserver(() => this.paint()).observe(this.bar);
  }

  /** Shows another snapshot; the shard that was picked stays picked while it is there. */
  show(gpu) {
    const before = this.gpu?.shards[this.at]?.id;
    this.gpu = gpu;
    const same = gpu.shards.findIndex((shard) => shard.id === before);
    const wrong = gpu.shards.findIndex((shard) => shard.altered);
    this.at = same >= 0 ? same : Math.max(0, wrong);
    this.isPicked = (this.isPicked && same >= 0) || wrong >= 0;
    const capacity = gpu.capacity;
    const isBad = gpu.lost !== null || gpu.state === "lost" || gpu.shards.some((shard) => shard.altered);
    this.element.classList.toggle("bad", isBad);
    this.title.textContent = `GPU ${gpu.index}`;
    this.name.textContent = `${gpu.name} · ${gpu.uuid}`;
    const altered = gpu.shards.filter((shard) => shard.altered).length;
    this.state.textContent = altered && gpu.state === "serving" ? `serving, ${altered} in quarantine` : gpu.state;
    this.scale.lastChild.textContent = `${size(gpu.total)}${gpu.placed || !gpu.shards.length ? "" : " · in order, not where they lie"}`;
    const parts = [["used", "used", num(capacity.used)], ["reserved", "reserved", num(capacity.reserved)], ["headroom", "headroom", num(capacity.headroom)], ["foreign", "foreign", num(capacity.foreign)]];
    this.money.replaceChildren(...parts.map(([kind, , bytes]) => {
      const part = make("i", { class: kind });
      part.style.width = `${Math.min(100, (bytes / gpu.total) * 100)}%`;
      return part;
    }));
    const rows = [...parts, ["", "free", num(capacity.free)], ["", "room", num(capacity.room)], ["", "largest hole", num(capacity.largest_hole)]]
      .map(([kind, label, bytes]) => make("div", null, make("dt", null, kind ? make("i", { class: kind }) : null, label), make("dd", null, size(bytes))));
    rows.push(make("div", null, make("dt", null, "holes"), make("dd", null, num(capacity.hole_count).toLocaleString("en"))));
    const oldest = oldestOf(gpu.shards);
    rows.push(make("div", null, make("dt", null, "oldest check"), make("dd", null, oldest < 0 ? "–" : `${span(oldest)} ago`)));
    this.figures.replaceChildren(...rows);
    this.pick(this.at);
    this.paint();
  }

  pick(at) {
    const { shards } = this.gpu;
    this.at = Math.max(0, Math.min(at, shards.length - 1));
    const shard = shards[this.at];
    const words = shard ? describe(shard) : null;
    if (words && this.isPicked) {
      fill(this.picked, make("b", null, words.title), make("br"),
        make("span", null, `${words.rest} · shard ${this.at + 1} of ${shards.length.toLocaleString("en")} · ${words.id}`));
    } else {
      fill(this.picked, make("span", null, words ? `${count(shards.length, "shard")}. Point at the bar, or focus it and press the arrow keys, to see one.` : "No shard lies here."));
    }
    const said = words ? `${words.title}. ${words.rest}` : "No shard lies here";
    if (this.options[this.turn].textContent !== said) this.turn = 1 - this.turn;
    const [now, old] = [this.options[this.turn], this.options[1 - this.turn]];
    now.textContent = said;
    now.setAttribute("aria-setsize", String(Math.max(1, shards.length)));
    now.setAttribute("aria-posinset", String(this.at + 1));
    now.removeAttribute("aria-hidden");
    old.setAttribute("aria-hidden", "true");
    this.bar.setAttribute("aria-activedescendant", now.id);
    frame(this.frame, this.isPicked ? shard : null, 0, this.gpu.total);
    this.enlarge();
  }

  key(event) {
    const last = this.gpu.shards.length - 1;
    const to = { ArrowRight: this.at + 1, ArrowDown: this.at + 1, ArrowLeft: this.at - 1, ArrowUp: this.at - 1, PageDown: this.at + 10, PageUp: this.at - 10, Home: 0, End: last }[event.key];
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    this.isPicked = true;
    if (to !== undefined) { event.preventDefault(); this.pick(to); }
    if (event.key.toLowerCase() === "w") this.pick(this.nextWrong());
  }

  /** The next shard that is altered or lost, from the beginning again after the last. */
  nextWrong() {
    const isWrong = (shard) => shard.altered || shard.state !== "resident";
    const after = this.gpu.shards.findIndex((shard, at) => at > this.at && isWrong(shard));
    const first = this.gpu.shards.findIndex(isWrong);
    return after >= 0 ? after : first >= 0 ? first : this.at;
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const byte = ((event.clientX - box.left) / box.width) * this.gpu.total;
    const { shards, placed, total } = this.gpu;
    const at = firstAfter(shards, byte);
    if (placed && (at === shards.length || byte < shards[at].start)) {
      const start = at ? shards[at - 1].start + shards[at - 1].footprint : 0;
      const end = at < shards.length ? shards[at].start : total;
      fill(this.picked, make("span", null, `No shard lies here: ${size(end - start)} from ${size(start)}.`));
      return;
    }
    if (!shards[at]) return;
    this.isPicked = true;
    this.pick(at);
  }

  paint() {
    if (!this.gpu || !this.canvas.clientWidth) return;
    draw(this.canvas, this.gpu, 0, this.gpu.total);
    this.enlarge();
  }

  /** Shows a shard that is narrower than a finger again, with its neighbours. */
  enlarge() {
    const shard = this.isPicked ? this.gpu.shards[this.at] : null;
    const small = shard && (shard.footprint / this.gpu.total) * this.canvas.clientWidth < 24;
    this.lens.hidden = !small;
    if (!small) return;
    const width = Math.min(this.gpu.total, Math.max(shard.footprint * 16, this.gpu.total / 400));
    const from = Math.max(0, Math.min(shard.start + shard.footprint / 2 - width / 2, this.gpu.total - width));
    const [canvas, around, ends] = this.lens.children;
    draw(canvas, this.gpu, from, from + width);
    frame(around, shard, from, from + width);
    ends.firstChild.textContent = `enlarged: ${size(Math.floor(from))}`;
    ends.lastChild.textContent = size(Math.floor(from + width));
  }
}
