// The live form: a snapshot every few seconds and after events, and the events as they happen.

const POLL = 5000;
const STALE = 15000;
const EVENTS_MAX = 200;
const KINDS = ["sealed", "model_admitted", "model_moved", "model_parked", "model_evicted", "model_woken", "model_freed", "verified", "altered", "kernels_disagreed", "kernels_used", "kernels_idle", "quarantined", "repaired", "sealed_anew", "moved", "parked", "dropped", "woken", "evicted", "freed", "not_returned", "returned", "exported", "refused", "device_lost", "device_reset", "link_distrusted", "closed", "load_failed", "load_forgotten", "lease_began", "lease_ended", "draining", "xid", "lagged"];
const BAD = new Set(["altered", "quarantined", "device_lost", "not_returned", "link_distrusted", "kernels_disagreed", "load_failed", "xid"]);

const link = { seen: 0, at: 0, why: "no answer yet", events: false, asking: false, again: false };

/** Says in words how fresh the page is. */
function tellLink() {
  const pill = by("link");
  const age = Date.now() - link.seen;
  const stale = age > STALE;
  pill.hidden = false;
  pill.classList.toggle("stale", stale);
  const words = !stale ? (link.events ? "live" : "live, without events; connecting again")
    : link.seen ? `STALE: last answer ${span(age / 1000)} ago (${link.why}); trying again` : `no answer: ${link.why}; trying again`;
  if (pill.textContent !== words) pill.textContent = words;
}

async function get(path) {
  const answer = await fetch(path, { cache: "no-store", credentials: "same-origin", signal: AbortSignal.timeout(10000) });
  if (!answer.ok) throw new Error(answer.status === 401 || answer.status === 403 ? `the server refuses ${path} (${answer.status}): it asks for a token` : `the server answers ${answer.status} for ${path}`);
  return answer;
}

/** The figures of the scrubber, from Prometheus's text. They are a bonus: without them the page works. */
async function askScrub() {
  try {
    const body = await (await get("/metrics")).text();
    scrub = Object.fromEntries([...body.matchAll(/^(vram_scrub_\w+) (\S+)$/gm)].map(([, name, value]) => [name, Number(value)]));
  } catch { scrub = null; }
}

/** Asks for a snapshot; one question at a time. */
async function ask() {
  if (link.asking) { link.again = true; return; }
  link.asking = true;
  try {
    await askScrub();
    const snapshot = await (await get("/snapshot")).json();
    show(snapshot);
    link.seen = Date.now();
  } catch (error) {
    link.why = error?.name === "TimeoutError" ? "no answer within 10 s" : error instanceof TypeError ? "no connection" : error?.message || "unknown";
  }
  link.asking = false;
  tellLink();
  if (link.again) { link.again = false; soon(); }
}

/** Asks soon: many events lead to one question a second. */
let timer = 0;
function soon() {
  if (!timer) timer = setTimeout(() => { timer = 0; ask(); }, 1000);
}

function addEvent(message) {
  let event;
  try { event = JSON.parse(message.data); } catch { return; }
  if (event === null || typeof event !== "object") return;
  const kind = event.kind && typeof event.kind === "object" ? event.kind : event;
  const name = text(kind.event || event.event || message.type);
  const words = [];
  const model = event.of?.model_id ?? event.model_id ?? kind.model_id ?? kind.model;
  if (model) words.push(text(model));
  const piece = (event.of?.piece ?? event.piece)?.tensor;
  if (piece) words.push(text(piece));
  for (const [field, label] of [["gpu", "GPU"], ["from", "from GPU"], ["to", "to GPU"]]) if (kind[field] != null) words.push(`${label} ${text(kind[field])}`);
  if (kind.bytes != null) words.push(size(num(kind.bytes)));
  for (const field of ["holder", "how", "error", "why", "call", "code", "message", "next"]) if (kind[field] != null) words.push(text(kind[field]));
  if (Array.isArray(kind.shards)) words.push(count(kind.shards.length, "shard"));
  else if (kind.shards != null) words.push(count(num(kind.shards), "shard"));
  if (kind.missed != null) words.push(`${count(num(kind.missed), "event")} missed`);
  // An event of the server itself has no time of its own.
  const at = moment(event.at ?? Date.now()).slice(11, 19);
  const item = make("li", { class: BAD.has(name) ? "bad" : null }, make("time", null, at), make("b", null, name.replaceAll("_", " ")), make("span", null, words.join(" · ")));
  by("events").prepend(item);
  while (by("events").childElementCount > EVENTS_MAX) by("events").lastChild.remove();
  soon();
}

function live() {
  by("events-part").hidden = false;
  const source = new EventSource("/events");
  source.onopen = () => { link.events = true; tellLink(); soon(); };
  source.onerror = () => {
    link.events = false;
    tellLink();
    // A browser gives up after some errors: a new source is opened then.
    if (source.readyState === EventSource.CLOSED) { source.close(); setTimeout(live, 3000); }
  };
  source.onmessage = addEvent;
  for (const kind of KINDS) source.addEventListener(kind, addEvent);
  if (link.at) return;
  link.at = setInterval(() => { ask(); }, POLL);
  setInterval(tellLink, 1000);
  ask();
}

start();
