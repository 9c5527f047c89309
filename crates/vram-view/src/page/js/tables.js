// Tables: the same facts for those who do not see the bars, or want to search.

/** A table. A column is [title, is a number, the cell of a row, a value to sort by]. */
function table(caption, columns, rows, isBad) {
  const head = make("tr", null, ...columns.map(([title, isNumber]) => make("th", { scope: "col", class: isNumber ? "num" : null }, title)));
  const body = rows.map((row) => make("tr", { class: isBad?.(row) ? "bad" : null }, ...columns.map(([title, isNumber, cell]) => {
    const value = cell(row);
    return make("td", { class: isNumber ? "num" : LONG.has(title) ? "long" : null }, ...(Array.isArray(value) ? value : [value]));
  })));
  return make("table", null, make("caption", { class: "hidden" }, caption), make("thead", null, head), make("tbody", null, ...body));
}

const LONG = new Set(["model", "piece", "purpose", "what is there"]);

/** A letter on its colour. The colour is set by script: the policy of the page allows no style attribute. */
function mark(model) {
  const badge = make("span", { class: "mark", "data-colour": model.colour }, model.letter);
  return [badge, model.name];
}

function paintMarks(element) {
  for (const badge of element.querySelectorAll(".mark")) badge.style.background = badge.dataset.colour;
}

function put(id, content) {
  const element = by(id);
  const [top, left] = [element.scrollTop, element.scrollLeft];
  fill(element, content);
  paintMarks(element);
  [element.scrollTop, element.scrollLeft] = [top, left];
}

const none = (words) => make("p", { class: "none" }, words);

function showModels(view) {
  const leases = new Map(view.leases.map((lease) => [JSON.stringify([text(lease?.model_id), text(lease?.owner)]), lease]));
  const oldest = (model) => {
    const lease = leases.get(JSON.stringify([model.name, model.owner]));
    return lease && model.leases ? `${span(seconds(lease.age))}${lease.holder ? ` by ${text(lease.holder)}` : ""}` : "–";
  };
  const there = (model) => {
    const words = [text(model.state).replace("_", " ")];
    if (num(model.quarantined)) words.push(`${num(model.quarantined).toLocaleString("en")} in quarantine`);
    if (num(model.lost)) words.push(`${num(model.lost).toLocaleString("en")} lost`);
    if (num(model.parked)) words.push(`${num(model.parked).toLocaleString("en")} parked`);
    return words.join(", ");
  };
  put("models", view.models.length ? table("Models", [
    ["model", false, mark], ["owner", false, (m) => m.owner || "–"], ["what is there", false, there],
    ["GPUs", false, (m) => list(m.gpus).join(", ") || "–"], ["shards", true, (m) => `${num(m.resident).toLocaleString("en")} of ${num(m.pieces).toLocaleString("en")}`],
    ["device bytes", true, (m) => size(num(m.bytes))], ["leases", true, (m) => m.leases.toLocaleString("en")], ["oldest lease", true, oldest],
    ["pinned", true, (m) => num(m.pinned).toLocaleString("en")],
  ], view.models, (m) => num(m.quarantined) || num(m.lost)) : none("No model."));
}

function showOthers(view) {
  by("parked-part").hidden = !view.parked.length;
  put("parked", table("Parked shards", [
    ["model", false, (p) => text(p?.model_id)], ["owner", false, (p) => text(p?.owner) || "–"], ["content", true, (p) => size(num(p?.plaintext_len))],
    ["host bytes", true, (p) => size(num(p?.host_len))], ["protection", false, (p) => text(p?.protection)], ["shard", false, (p) => text(p?.shard_id)],
  ], view.parked.slice(0, 500)));
  by("reserved-part").hidden = !view.reservations.length;
  put("reserved", table("Reservations", [
    ["number", true, (r) => text(r?.id)], ["owner", false, (r) => text(r?.owner) || "–"], ["purpose", false, (r) => text(r?.purpose) || "–"], ["promised", true, (r) => size(num(r?.len))],
    ["still held", false, (r) => list(r?.remaining).map((one) => `GPU ${text(one?.[0])}: ${size(num(one?.[1]))}`).join(", ") || "–"],
    ["expires", true, (r) => (r.left === null ? "never" : `in ${span(r.left)}`)],
  ], view.reservations.slice(0, 500)));
}

const PAGE = 200;
const shardTable = { sort: 0, down: false, limit: PAGE, view: null };
const stateOf = (shard) => (shard.altered ? "altered, in quarantine" : shard.state !== "resident" ? shard.state : shard.leases ? "leased" : "resident");

/** [title, is a number, cell, value to sort by] */
const SHARD_COLUMNS = [
  ["GPU", true, (s) => text(s.gpu), (s) => s.gpu * 2 ** 52 + s.start], ["offset", true, (s) => (s.offset === null ? "–" : size(s.offset)), (s) => s.start],
  ["model", false, (s) => mark(s.model), (s) => s.model.name], ["piece", false, (s) => s.piece || "–", (s) => s.piece],
  ["device bytes", true, (s) => size(s.footprint), (s) => s.footprint], ["state", false, stateOf, stateOf],
  ["leases", true, (s) => text(s.leases), (s) => s.leases], ["pinned", false, (s) => (s.pinned ? "pinned" : "–"), (s) => (s.pinned ? 1 : 0)],
  ["not verified for", true, (s) => (s.age === null ? "–" : span(s.age)), (s) => s.age ?? -1],
  ["last check", false, (s) => (s.checked ? `${text(s.checked.evidence)}, ${text(s.checked.site)}` : "–"), (s) => text(s.checked?.evidence)],
  ["shard", false, (s) => s.id, (s) => s.id],
];

function showShards(view) {
  shardTable.view = view ?? shardTable.view;
  if (!shardTable.view) return;
  const wanted = by("find").value.trim().toLowerCase();
  const matches = (s) => !wanted || `${s.model.name} ${s.model.owner ?? ""} ${s.piece} ${s.id} ${stateOf(s)} gpu ${s.gpu}`.toLowerCase().includes(wanted);
  const value = SHARD_COLUMNS[shardTable.sort][3];
  const order = (a, b) => { const [x, y] = [value(a), value(b)]; return (x < y ? -1 : x > y ? 1 : 0) * (shardTable.down ? -1 : 1); };
  const rows = shardTable.view.shards.filter(matches).sort(order);
  const shown = rows.slice(0, shardTable.limit);
  by("found").textContent = `${count(rows.length, "shard")}${shown.length < rows.length ? `, ${shown.length} shown` : ""}`;
  const content = table("Shards", SHARD_COLUMNS, shown, (s) => s.altered || s.state !== "resident");
  content.querySelectorAll("th").forEach((cell, at) => {
    const sorted = at === shardTable.sort;
    if (sorted) cell.setAttribute("aria-sort", shardTable.down ? "descending" : "ascending");
    cell.replaceChildren(make("button", { type: "button", "data-column": String(at) }, cell.textContent));
  });
  const focused = document.activeElement?.dataset?.column;
  put("shards", shown.length ? content : none("No shard."));
  if (focused) by("shards").querySelector(`[data-column="${focused}"]`)?.focus();
  by("more").hidden = shown.length === rows.length;
}

function listen() {
  by("find").addEventListener("input", () => { shardTable.limit = PAGE; showShards(); });
  by("more").addEventListener("click", () => { shardTable.limit += 5 * PAGE; showShards(); });
  by("shards").addEventListener("click", (event) => {
    const column = event.target.closest?.("button")?.dataset.column;
    if (column === undefined) return;
    shardTable.down = shardTable.sort === Number(column) && !shardTable.down;
    shardTable.sort = Number(column);
    showShards();
  });
}
