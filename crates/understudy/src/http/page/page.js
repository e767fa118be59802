// The live page: draws what /events sends. Everything from the daemon goes in as text, never as markup.
"use strict";

const CHART_SECONDS = 300;
const SILENCE_MS = 6000;
const RETRY_MS = 2000;
const COLLAPSE_ABOVE = 4;

const $ = (id) => document.getElementById(id);
const list = (value) => (Array.isArray(value) ? value : []);
const pairs = (value) => Object.entries(value && typeof value === "object" ? value : {});
const number = (value) => (typeof value === "number" && isFinite(value) ? value : 0);

// ---- words for people

const grouped = (value) => Math.round(number(value)).toLocaleString("en");

function bytes(value) {
  let left = number(value), unit = 0;
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  while (left >= 1024 && unit + 1 < units.length) { left /= 1024; unit += 1; }
  return `${unit === 0 ? Math.round(left) : left.toFixed(left < 100 ? 1 : 0)} ${units[unit]}`;
}

function duration(value) {
  const s = number(value);
  if (s === 0) return "0 s";
  if (s < 0.001) return `${(s * 1000).toFixed(2)} ms`;
  if (s < 1) return `${s < 0.01 ? (s * 1000).toFixed(1) : Math.round(s * 1000)} ms`;
  if (s < 60) return `${s.toFixed(s < 10 ? 1 : 0)} s`;
  if (s < 3600) return `${Math.floor(s / 60)} min ${Math.floor(s % 60)} s`;
  if (s < 172800) return `${Math.floor(s / 3600)} h ${Math.floor((s % 3600) / 60)} min`;
  return `${Math.floor(s / 86400)} days ${Math.floor((s % 86400) / 3600)} h`;
}

const clock = (ms) => new Date(ms).toLocaleTimeString([], { hour12: false });
const PHASES = {
  handshaking: "connecting", waiting_bgsave: "waiting for the snapshot", snapshot: "snapshot", stream: "stream", scan: "scan and events", stopped: "stopped",
};
const phaseWord = (phase) => PHASES[phase] || String(phase);

// ---- the document, changed only where something has changed

function text(node, value) {
  const wanted = String(value);
  if (node.textContent !== wanted) node.textContent = wanted;
}

function attribute(node, name, value) {
  if (value === null || value === undefined || value === false) node.removeAttribute(name);
  else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value);
}

function make(tag, className, content) {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (content !== undefined) node.textContent = content;
  return node;
}

// Exactly so many children, made by `make`.
function children(parent, count, makeOne) {
  while (parent.children.length > count) parent.lastElementChild.remove();
  while (parent.children.length < count) parent.append(makeOne(parent.children.length));
  return [...parent.children];
}

// In this order, whichever is there first.
const ORDER = ["cutover", "stragglers", "late", "groups", "nodes", "errors", "dropped", "lacking", "reconnects", "full"];

function place(parent, section) {
  const rank = (node) => ORDER.indexOf(node.dataset.table);
  parent.insertBefore(section, [...parent.children].find((other) => rank(other) > rank(section)) || null);
}

// One table below a heading: `columns` are [head, class], a cell is a text, or a share between 0 and 1 under the class "share".
function table(parent, key, title, columns, rows, wide) {
  let section = parent.querySelector(`:scope > [data-table="${key}"]`);
  if (rows.length === 0) { if (section) section.remove(); return; }
  if (!section) {
    section = make("section", wide ? "wide" : "");
    section.dataset.table = key;
    const head = make("h3", "", title);
    head.id = `t${Math.random().toString(36).slice(2)}`;
    const scroll = make("div", "scroll");
    attribute(scroll, "tabindex", 0);
    attribute(scroll, "role", "region");
    attribute(scroll, "aria-labelledby", head.id);
    const drawn = make("table");
    attribute(drawn, "aria-labelledby", head.id);
    const line = make("tr");
    for (const [name, kind] of columns) {
      const cell = make("th", kind, name);
      attribute(cell, "scope", "col");
      line.append(cell);
    }
    drawn.append(make("thead"), make("tbody"));
    drawn.tHead.append(line);
    scroll.append(drawn);
    section.append(head, scroll);
    place(parent, section);
  }
  const lines = children(section.querySelector("tbody"), rows.length, () => {
    const line = make("tr");
    columns.forEach(([, kind], at) => {
      const cell = make(at === 0 ? "th" : "td", kind);
      if (at === 0) attribute(cell, "scope", "row");
      if (kind === "share") cell.append(make("span", "bar"));
      line.append(cell);
    });
    return line;
  });
  rows.forEach((row, at) => row.forEach((value, column) => {
    const cell = lines[at].children[column];
    if (columns[column][1] === "share") {
      cell.firstChild.style.width = `${(number(value) * 100).toFixed(1)}%`;
    } else {
      text(cell, value);
    }
  }));
}

// ---- charts

const SVG = "http://www.w3.org/2000/svg";
const shape = (tag, className) => {
  const node = document.createElementNS(SVG, tag);
  attribute(node, "class", className);
  return node;
};

// A number not below `value` that reads well on an axis.
function roof(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

class Chart {
  constructor(parent, title, word, least) {
    Object.assign(this, { title, word, least, points: [] });
    const figure = make("figure"), plot = make("div", "plot");
    this.caption = make("figcaption");
    this.svg = shape("svg", "");
    attribute(this.svg, "viewBox", `0 0 ${CHART_SECONDS} 100`);
    attribute(this.svg, "preserveAspectRatio", "none");
    attribute(this.svg, "role", "img");
    const middle = shape("path", "grid");
    attribute(middle, "d", `M0 50H${CHART_SECONDS}M0 1H${CHART_SECONDS}`);
    this.under = shape("path", "under");
    this.curve = shape("path", "curve");
    this.svg.append(this.under, middle, this.curve);
    this.top = make("span", "top");
    attribute(this.top, "aria-hidden", "true");
    plot.append(this.svg, this.top);
    const axis = make("div", "axis");
    attribute(axis, "aria-hidden", "true");
    axis.append(make("span", "", "5 minutes ago"), make("span", "", "now"));
    figure.append(this.caption, plot, axis);
    parent.append(figure);
  }

  add(at, value) {
    this.points.push([at, number(value)]);
    while (this.points.length > 0 && this.points[0][0] < at - CHART_SECONDS * 1000) this.points.shift();
  }

  draw() {
    if (this.points.length === 0) return;
    const [now, last] = this.points[this.points.length - 1];
    const highest = Math.max(...this.points.map(([, value]) => value));
    const top = roof(Math.max(highest, this.least));
    const x = (at) => (CHART_SECONDS - (now - at) / 1000).toFixed(1);
    const y = (value) => (100 - (value / top) * 98).toFixed(1);
    let line = "", area = "", from = null, before = null;
    const close = () => { if (from !== null) area += `L${before} 100L${from} 100Z`; };
    this.points.forEach(([at, value], index) => {
      const gap = index === 0 || at - this.points[index - 1][0] > 3500;
      if (gap) { close(); from = x(at); }
      line += `${gap ? "M" : "L"}${x(at)} ${y(value)}`;
      area += `${gap ? "M" : "L"}${x(at)} ${y(value)}`;
      before = x(at);
    });
    close();
    attribute(this.curve, "d", line);
    attribute(this.under, "d", area);
    text(this.top, this.word(top));
    const told = `${this.title}: now ${this.word(last)}, highest ${this.word(highest)}`;
    attribute(this.svg, "aria-label", `${told} in the last five minutes`);
    if (this.caption.childElementCount === 0) {
      this.caption.append(make("b", "", this.title), ": now ", make("b"), ", highest ", make("b"));
    }
    const [, shown, most] = this.caption.querySelectorAll("b");
    text(shown, this.word(last));
    text(most, this.word(highest));
  }
}

// ---- one link

class LinkView {
  constructor(parent, open) {
    const copy = $("link-template").content.cloneNode(true);
    this.node = copy.querySelector("article");
    this.part = (selector) => this.node.querySelector(selector);
    this.part("details").open = open;
    parent.append(copy);
    this.lag = new Chart(this.part(".charts"), "Lag", duration, 0.01);
    this.rate = new Chart(this.part(".charts"), "Commands and keys per second", grouped, 10);
  }

  history(samples) {
    for (const chart of [this.lag, this.rate]) chart.points = [];
    for (const [at, lag, rate] of list(samples)) { this.lag.add(at, lag); this.rate.add(at, rate); }
  }

  draw(link, at) {
    const name = link.link || "link";
    text(this.part(".name"), name);
    text(this.part(".ends"), `${link.source} → ${link.target}`);
    const stopped = link.phase === "stopped";
    const verdict = this.part(".verdict");
    text(verdict, stopped ? "stopped" : link.ready ? "ready" : "not ready");
    attribute(verdict, "data-is", stopped ? "bad" : link.ready ? "good" : null);
    const reasons = list(link.waits_for).concat(link.paused ? ["paused over HTTP: nothing is sent to the target until POST /resume"] : []);
    const lines = children(this.part(".reasons"), reasons.length, () => make("li"));
    reasons.forEach((reason, index) => text(lines[index], reason));
    this.phases(link.phase);
    this.snapshot(link);
    this.tiles(link);
    const rates = link.rates || {};
    this.lag.add(at, link.lag_seconds);
    this.rate.add(at, number(rates.commands_per_second) + number(rates.snapshot_keys_per_second));
    if (this.part("details").open) { this.lag.draw(); this.rate.draw(); }
    this.tables(link);
    drawCutover(this.part(".tables"), link.cutover);
  }

  phases(phase) {
    const steps = [...this.part(".phases").children];
    const current = steps.findIndex((step) => step.dataset.phase === phase);
    steps.forEach((step, index) => {
      attribute(step, "data-past", current > index ? "" : null);
      attribute(step, "aria-current", current === index ? "step" : null);
    });
  }

  snapshot(link) {
    const rates = link.rates || {};
    const total = number(link.snapshot_bytes), applied = number(link.snapshot_applied_bytes), read = number(link.snapshot_read_bytes);
    const running = link.phase === "snapshot";
    this.part(".snapshot").hidden = !running;
    if (!running) return;
    const bar = this.part("progress");
    if (total === 0) bar.removeAttribute("value");
    else bar.value = applied / total;
    const told = [`${bytes(applied)} of ${total > 0 ? bytes(total) : `${bytes(read)} so far`} applied`
      + (total > 0 ? ` (${Math.floor((applied / total) * 100)} %)` : "")];
    if (total > 0 && read < total) told.push(`${bytes(read)} received`);
    told.push(`${grouped(link.snapshot_keys)} keys`, `${bytes(rates.snapshot_bytes_per_second)}/s`);
    if (typeof link.snapshot_eta_seconds === "number") told.push(`about ${duration(link.snapshot_eta_seconds)} left`);
    text(this.part(".told"), told.join(", "));
  }

  tiles(link) {
    const rates = link.rates || {}, latency = link.latency || {};
    const tiles = [
      ["Lag", duration(link.lag_seconds), bytes(link.lag_bytes), link.phase === "stream" ? (link.ready ? "good" : "warn") : null],
      ["Commands", `${grouped(rates.commands_per_second)}/s`, `${grouped(link.commands_applied)} in all`],
      ["Stream", `${bytes(rates.stream_bytes_per_second)}/s`],
      ["Source to target", latency.p50_seconds ? duration(latency.p50_seconds) : "–",
        latency.p99_seconds ? `p99 ${duration(latency.p99_seconds)}` : ""],
      ["On its way", bytes(link.inflight_bytes), `${grouped(link.inflight_commands)} commands`],
      ["Spool", bytes(link.spool_bytes), link.spool_limit_bytes ? `at most ${bytes(link.spool_limit_bytes)} unapplied` : "",
        link.spool_disk_full ? "bad" : null],
      ["Snapshot", `${grouped(link.snapshot_keys)} keys`, `${bytes(link.snapshot_applied_bytes)} applied`],
      ["Applied offset", grouped(link.applied_offset), `received ${grouped(link.source_offset)}`],
    ];
    for (const [field, word] of [["leases_open", "Keys with a lease"], ["repairs_open", "Keys under repair"], ["repairs", "Keys repaired"],
      ["doubtful", "Keys in doubt"], ["unchecked", "Keys unchecked"]]) {
      if (number(link[field]) > 0) tiles.push([word, grouped(link[field]), "", field === "unchecked" ? "bad" : null]);
    }
    if (number(link.slots_held) > 0 || number(link.slots_moving) > 0) {
      const moving = number(link.slots_moving);
      tiles.push(["Slots of the source", grouped(link.slots_held), moving > 0 ? `${grouped(moving)} on their way here` : "", moving > 0 ? "warn" : null]);
    }
    if (number(link.clock_skew_ms) > 500) tiles.push(["Clocks apart", duration(link.clock_skew_ms / 1000), "", "warn"]);
    if (link.target_throttled) tiles.push(["Target", "throttled", "takes less than half of what it took", "warn"]);
    const nodes = children(this.part(".tiles"), tiles.length, () => {
      const tile = make("div"), value = make("dd");
      value.append(document.createTextNode(""), make("small"));
      tile.append(make("dt"), value);
      return tile;
    });
    tiles.forEach(([name, value, small, is], index) => {
      const [term, told] = nodes[index].children;
      text(term, name);
      if (told.firstChild.data !== value) told.firstChild.data = value;
      text(told.lastChild, small || "");
      attribute(nodes[index], "data-is", is || null);
    });
  }

  tables(link) {
    const parent = this.part(".tables");
    const groups = list(link.groups);
    const busiest = Math.max(1, ...groups.map((group) => number(group.per_second) || 0));
    const most = Math.max(1, ...groups.map((group) => number(group.count)));
    const quiet = groups.every((group) => number(group.per_second) === 0);
    table(parent, "groups", "Commands by group", [["Group", ""], ["Per second", "n"], ["", "share"], ["In all", "n"], ["Commands", "words"]],
      groups.slice(0, 8).map((group) => [
        group.group, grouped(group.per_second), quiet ? group.count / most : group.per_second / busiest, grouped(group.count),
        list(group.commands).join(", "),
      ]), true);
    table(parent, "nodes", "Nodes of the target", [["Node", ""], ["Slots", "n"], ["Commands", "n"], ["Per second", "n"], ["On its way", "n"], ["Last answer", "n"], ["Errors", "n"]],
      list(link.nodes).map((node) => [node.address, grouped(node.slots), grouped(node.commands), grouped(node.per_second),
        bytes(node.inflight_bytes), node.answered_seconds === null ? "–" : `${duration(node.answered_seconds)} ago`, grouped(node.errors)]), true);
    const counted = (key, title, field, head) => table(parent, key, title, [[head, ""], ["Count", "n"]],
      pairs(link[field]).sort(([, a], [, b]) => number(b) - number(a)).map(([name, count]) => [name, grouped(count)]));
    table(parent, "errors", "Errors of the target", [["Code", ""], ["Count", "n"], ["Mend", "words"]],
      pairs(link.target_errors).map(([code, count]) => [code, grouped(count), (link.mends || {})[code] || ""]), true);
    counted("dropped", "Not sent to the target", "commands_dropped", "Reason");
    counted("lacking", "The target has no such command", "commands_lacking", "Command");
    counted("reconnects", "Connections lost", "reconnects", "Side");
    counted("full", "Full syncs", "full_resyncs", "Reason");
  }
}

// ---- cutover

function drawCutover(parent, cutover) {
  const known = cutover && typeof cutover === "object";
  let section = parent.querySelector(":scope > [data-table=cutover]");
  if (!known) { if (section) section.remove(); return; }
  if (!section) {
    section = make("section", "wide");
    section.dataset.table = "cutover";
    const head = make("h3", "", "Cutover ");
    head.append(make("span", "badge"));
    section.append(head, make("p", "told"), make("ul", "reasons"), make("div", "tables"));
    place(parent, section);
  }
  const badge = section.querySelector(".badge");
  text(badge, cutover.ready ? "ready" : "not ready");
  attribute(badge, "data-is", cutover.ready ? "good" : null);
  const late = cutover.late_writes || {};
  const told = [];
  if (cutover.stage) told.push(`stage: ${cutover.stage}`);
  if (typeof cutover.fence_seconds === "number") told.push(`writes held back for ${duration(cutover.fence_seconds)}`);
  if (number(late.total) > 0) told.push(`${grouped(late.total)} writes came late`);
  text(section.querySelector(".told"), told.join(", "));
  const reasons = list(cutover.reasons);
  const lines = children(section.querySelector(".reasons"), reasons.length, () => make("li"));
  reasons.forEach((reason, index) => text(lines[index], reason));
  const tables = section.querySelector(".tables");
  table(tables, "stragglers", "Clients still at the source",
    [["Address", ""], ["Name", ""], ["User", ""], ["Library", ""], ["Last command", ""], ["Idle", "n"], ["Writes", "n"]],
    list(cutover.stragglers).map((client) => [client.address, client.name || "–", client.user || "–", client.lib || "–",
      client.last_command || "–", duration(client.idle_seconds),
      typeof client.writes === "number" ? grouped(client.writes) : client.writes ? "yes" : "–"]), true);
  table(tables, "late", "Late writes by prefix of the key", [["Prefix", ""], ["Writes", "n"]],
    pairs(late.by_prefix).sort(([, a], [, b]) => number(b) - number(a)).map(([prefix, count]) => [prefix, grouped(count)]));
}

// ---- the whole page

const views = [];
let linksBefore = null;

function viewsFor(count) {
  while (views.length > count) views.pop().node.remove();
  while (views.length < count) views.push(new LinkView($("links"), count <= COLLAPSE_ABOVE));
  return views;
}

function draw(status) {
  const own = status.understudy || {};
  const links = Array.isArray(own.links) ? own.links : [own];
  const at = number(own.at_ms) || Date.now();
  text($("version"), own.commit ? `${own.version} (${own.commit})` : own.version);
  text($("since"), `since ${status.start_time} UTC`);
  viewsFor(links.length).forEach((view, index) => view.draw(links[index], at));
  drawOverview(links);
  drawNotices(list(own.notices), links.length > 1);
  const whole = $("cutover");
  drawCutover(whole, Array.isArray(own.links) ? own.cutover : undefined);
  whole.hidden = whole.childElementCount === 0;
  const [first] = links;
  const behind = Math.max(...links.map((link) => number(link.lag_seconds)));
  document.title = links.length === 1
    ? `${phaseWord(first.phase)}, ${first.ready ? `ready, lag ${duration(behind)}` : "not ready"} – Understudy`
    : `${links.filter((link) => link.ready).length} of ${links.length} links ready – Understudy`;
  sayChanges(links);
}

function drawOverview(links) {
  $("overview").hidden = links.length < 2;
  if (links.length < 2) return;
  const lines = children($("overview-rows"), links.length, () => {
    const line = make("tr"), name = make("th");
    attribute(name, "scope", "row");
    name.append(make("a"));
    line.append(name, make("td"), make("td"), make("td", "n"), make("td", "n"), make("td", "n"));
    line.children[2].append(make("span", "badge"));
    return line;
  });
  links.forEach((link, index) => {
    const [name, phase, ready, lag, rate, snapshot] = lines[index].children;
    const id = `link-${index}`;
    views[index].node.id = id;
    attribute(name.firstChild, "href", `#${id}`);
    text(name.firstChild, link.link);
    text(phase, phaseWord(link.phase));
    const stopped = link.phase === "stopped";
    text(ready.firstChild, stopped ? "stopped" : link.ready ? "ready" : "not ready");
    attribute(ready.firstChild, "data-is", stopped ? "bad" : link.ready ? "good" : null);
    text(lag, `${duration(link.lag_seconds)} / ${bytes(link.lag_bytes)}`);
    text(rate, grouped((link.rates || {}).commands_per_second));
    const total = number(link.snapshot_bytes);
    text(snapshot, link.phase === "snapshot" && total > 0 ? `${Math.floor((number(link.snapshot_applied_bytes) / total) * 100)} %`
      : `${grouped(link.snapshot_keys)} keys`);
  });
}

function drawNotices(notices, several) {
  $("trouble").hidden = notices.length === 0;
  $("alarm").hidden = notices.length === 0;
  const newest = notices.slice().reverse();
  const lines = children($("notices"), newest.length, () => {
    const line = make("li"), when = make("p", "when");
    when.append(make("span", "badge"), " ", make("span"));
    line.append(when, make("p", "what"), make("p", "why"), make("p", "mend"));
    return line;
  });
  if (newest.length > 0) {
    text($("alarm").firstChild, `${newest.length === 1 ? "1 warning" : `${newest.length} warnings`}, the last at ${clock(newest[0].at_ms)}`);
  }
  newest.forEach((notice, index) => {
    const [when, what, why, mend] = lines[index].children;
    const error = notice.level === "error";
    text(when.children[0], error ? "error" : "warning");
    attribute(when.children[0], "data-is", error ? "bad" : null);
    const times = notice.count > 1 ? `, ${grouped(notice.count)} times` : "";
    text(when.children[1], `${clock(notice.at_ms)}${times}${several && notice.link ? `, ${notice.link}` : ""}`);
    text(what, notice.text);
    text(why, notice.detail || "");
    text(mend, notice.mend || "");
    why.hidden = !notice.detail;
    mend.hidden = !notice.mend;
  });
}

// A reader hears of phases and of the daemon's going, not of numbers.
function sayChanges(links) {
  const now = links.map((link) => `${link.link}: ${phaseWord(link.phase)}`);
  if (linksBefore) {
    const news = now.filter((line, index) => line !== linksBefore[index]);
    if (news.length > 0) text($("said"), news.join("; "));
  }
  linksBefore = now;
}

// ---- the connection

let source = null, lastHeard = 0, goneSince = null;

function live(state, word) {
  attribute($("live"), "data-state", state);
  text($("live-word"), word);
}

function heard() {
  lastHeard = Date.now();
  if (goneSince !== null) text($("said"), "the daemon answers again");
  goneSince = null;
  $("gone").hidden = true;
  live("live", "live");
}

function lost() {
  if (goneSince === null) {
    goneSince = lastHeard || Date.now();
    text($("gone"), `The daemon does not answer since ${clock(goneSince)}; what stands below is from then. It is asked again every few seconds. `
      + "Its last log line and its exit code say why it ended; a restart is safe.");
    $("gone").hidden = false;
    document.title = "no answer – Understudy";
  }
  live("gone", "no answer");
}

function connect() {
  if (source) source.close();
  source = new EventSource("events");
  source.addEventListener("history", (event) => {
    const samples = list(JSON.parse(event.data));
    viewsFor(samples.length).forEach((view, index) => view.history(samples[index]));
    heard();
  });
  source.addEventListener("status", (event) => {
    draw(JSON.parse(event.data));
    heard();
  });
  source.onerror = lost;
}

// A refusal ends an EventSource for good, and a connection that hangs says nothing at all: so we look ourselves.
setInterval(() => {
  const silent = Date.now() - lastHeard > SILENCE_MS;
  if (silent && lastHeard > 0) lost();
  if (source.readyState === EventSource.CLOSED || (silent && source.readyState === EventSource.OPEN && goneSince !== null)) connect();
}, RETRY_MS);

document.addEventListener("click", (event) => {
  const link = event.target.closest ? event.target.closest("#overview a") : null;
  const view = link && views.find((one) => `#${one.node.id}` === link.getAttribute("href"));
  if (view) view.part("details").open = true;
});

connect();
