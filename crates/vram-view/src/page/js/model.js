// The snapshot as the page needs it: shards in the order in which they lie, each with its model.

/** Reads a snapshot; members that are missing are empty. */
function read(snapshot) {
  const state = snapshot?.state ?? {};
  const counters = snapshot?.counters ?? {};
  const ages = new Map(list(counters.unverified_for).map((one) => [one?.[0], seconds(one?.[1])]));
  const expiry = new Map(list(counters.expires_in).map((one) => [one?.[0], seconds(one?.[1])]));
  const models = list(state.models).map((model, index) => ({
    ...model,
    name: text(model?.model_id) || "(no name)",
    owner: model?.owner == null ? "" : text(model.owner),
    letter: letters(index),
    colour: colour(index),
    leases: num(model?.lease_count),
  }));
  const key = (id, owner, admission) => JSON.stringify([text(id), owner == null ? "" : text(owner), admission ?? null]);
  const named = new Map(models.map((model) => [key(model.model_id, model.owner, model.admission), model]));
  const other = { name: "(not listed)", letter: "?", colour: "#c0c6d4" };
  const shards = list(state.shards).map((shard) => ({
    id: text(shard?.shard_id),
    gpu: num(shard?.gpu),
    state: text(shard?.state).toLowerCase() || "resident",
    model: named.get(key(shard?.model_id, shard?.owner, shard?.admission)) ?? { ...other, name: text(shard?.model_id) },
    piece: shard?.piece ? text(shard.piece.tensor) + (num(shard.piece.part) ? ` (part ${num(shard.piece.part) + 1})` : "") : "",
    len: num(shard?.plaintext_len),
    offset: typeof shard?.offset === "number" ? shard.offset : null,
    footprint: num(shard?.footprint) || num(shard?.plaintext_len),
    protection: text(shard?.protection),
    altered: shard?.quarantine ?? null,
    leases: num(shard?.leases),
    pinned: shard?.pinned === true,
    backed: shard?.backed_up === true,
    checked: shard?.last_checked ?? null,
    age: ages.get(shard?.shard_id) ?? null,
  }));
  const gpus = list(state.gpus).map((gpu, at) => place(gpu, at, shards));
  return {
    at: num(snapshot?.at), events: num(counters.events), gpus, models, shards,
    parked: list(state.parked), park: state.park ?? {}, links: list(state.distrusted_links),
    sinks: list(counters.sinks), leases: list(counters.oldest_leases),
    reservations: list(state.reservations).map((one) => ({ ...one, left: expiry.get(one?.id) ?? null })),
  };
}

/** One GPU with its shards by offset. Without offsets they are shown one after the other. */
function place(gpu, at, shards) {
  const capacity = gpu?.capacity ?? {};
  const index = typeof capacity.gpu === "number" ? capacity.gpu : at;
  const own = shards.filter((shard) => shard.gpu === index);
  const placed = own.length > 0 && own.every((shard) => shard.offset !== null || shard.footprint === 0 || shard.state === "restoring");
  own.sort((a, b) => (a.offset ?? Infinity) - (b.offset ?? Infinity) || (a.id < b.id ? -1 : 1));
  let end = 0;
  for (const shard of own) {
    shard.start = placed && shard.offset !== null ? shard.offset : end;
    end = shard.start + shard.footprint;
  }
  return {
    index, name: text(gpu?.name), uuid: text(gpu?.uuid), lost: gpu?.lost == null ? null : text(gpu.lost),
    state: text(gpu?.state).toLowerCase() || "unknown", unreturned: gpu?.unreturned == null ? null : text(gpu.unreturned),
    quarantined: num(gpu?.quarantined), shards: own, placed, capacity, total: Math.max(num(capacity.total), end, 1),
  };
}

/** The longest time without a check, in seconds; -1 if none is known. */
const oldestOf = (shards) => shards.reduce((most, shard) => Math.max(most, shard.age ?? -1), -1);

/** Words for one shard, for the detail, the tip and the screen reader. */
function describe(shard) {
  const words = [];
  if (shard.altered) words.push("ALTERED, in quarantine: not served");
  if (shard.state !== "resident") words.push(shard.state.toUpperCase());
  words.push(shard.leases ? count(shard.leases, "lease") : "no lease");
  if (shard.pinned) words.push("pinned");
  if (shard.backed) words.push("backed up");
  words.push(shard.protection);
  words.push(shard.age === null ? "age since verified unknown" : `not verified for ${span(shard.age)}`);
  const where = shard.offset === null ? "" : ` at ${size(shard.offset)}`;
  return { title: `${shard.model.letter} ${shard.model.name}${shard.piece ? ` · ${shard.piece}` : ""}`, rest: `${size(shard.footprint)}${where} · ${words.join(" · ")}`, id: shard.id };
}

/** What is wrong, worst first, each with what to do next. */
function findings(view) {
  const found = [];
  const say = (level, what, next) => found.push({ level, what, next });
  for (const gpu of view.gpus) {
    if (gpu.lost !== null || gpu.state === "lost") {
      say("bad", `GPU ${gpu.index} is lost, with ${count(gpu.shards.length, "shard")}: ${gpu.lost ?? "no reason given"}`,
        "reset the GPU: shards with a backup or an image come back by themselves; seal the others again. Lost again soon: replace the card.");
    }
    const altered = gpu.shards.filter((shard) => shard.altered);
    if (altered.length) {
      const models = [...new Set(altered.map((shard) => shard.model.name))];
      say("bad", `${count(altered.length, "shard")} on GPU ${gpu.index} altered and in quarantine, of ${models.slice(0, 3).join(", ")}${models.length > 3 ? " and others" : ""}`,
        altered.length > 1 ? "serve these models from elsewhere; repair from the source; more than one shard of a card: look at its ECC counters and move the rest away."
          : "serve this model from elsewhere; repair the shard from its source or a sealed image. A restart is no repair.");
    }
  }
  for (const gpu of view.gpus) {
    if (["draining", "resetting", "restoring"].includes(gpu.state)) say("warn", `GPU ${gpu.index} is ${gpu.state}`, "wait; if it lasts for minutes, see which calls still run.");
    if (num(gpu.capacity.unreturned)) say("warn", `${size(num(gpu.capacity.unreturned))} of GPU ${gpu.index} could not be given back: ${gpu.unreturned ?? "no reason given"}`, "nothing uses this memory until a later try succeeds; if it grows, take the card out.");
    if (num(gpu.capacity.foreign)) say("warn", `Other processes hold ${size(num(gpu.capacity.foreign))} of the budget of GPU ${gpu.index}`, "see who holds the card, or lower the budget.");
    const hole = num(gpu.capacity.largest_hole), room = num(gpu.capacity.room);
    if (room > 0 && hole < room / 4 && num(gpu.capacity.hole_count) > 1 && room > gpu.total / 20) say("warn", `Room of GPU ${gpu.index} is in ${count(num(gpu.capacity.hole_count), "piece")}: ${size(room)} in all, ${size(hole)} at most in one`, "compact the GPU.");
  }
  const old = view.shards.filter((shard) => shard.age !== null && shard.age > 86400);
  if (old.length) say("warn", `${count(old.length, "shard")} not verified for more than a day, one for ${span(oldestOf(old))}`, "see whether the scrubber runs and keeps its time.");
  const partial = view.models.filter((model) => model.state === "partial" && num(model.lost) === 0);
  if (partial.length) say("warn", `Not all of ${partial.slice(0, 3).map((model) => model.name).join(", ")} is there`, "load the model again, or free the rest of it.");
  for (const [source, target] of view.links) say("warn", `Direct copies from GPU ${source} to GPU ${target} arrived altered`, "copies go through the host since; check the link.");
  const dropped = view.sinks.reduce((sum, sink) => sum + num(sink?.dropped), 0);
  if (dropped) say("warn", `${count(dropped, "event")} not delivered to a sink`, "the sink is too slow or out of service; take its figures from a snapshot.");
  const near = num(view.park.limit) && num(view.park.used) > num(view.park.limit) * 0.9;
  if (near) say("warn", `Parked shards take ${size(num(view.park.used))} of ${size(num(view.park.limit))} of host memory`, "wake or drop some, or raise the limit.");
  return found.sort((a, b) => (a.level === b.level ? 0 : a.level === "bad" ? -1 : 1));
}
