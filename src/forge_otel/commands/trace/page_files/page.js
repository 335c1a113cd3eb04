"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const { spans, samples, logs, values } = data;
  const [NAME, START, DURATION, PARENT, FAILED, MESSAGE, ATTRIBUTES, LINKS] = [0, 1, 2, 3, 4, 5, 6, 7];
  const [LOG_NAME, LOG_TIME, LOG_SPAN, LOG_SEVERITY, LOG_BODY, LOG_ATTRIBUTES] = [0, 1, 2, 3, 4, 5];
  const $ = (id) => document.getElementById(id);

  // Everything that comes from the data goes through textContent: it is never parsed as HTML.
  const el = (tag, properties = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (value === null || value === undefined) continue;
      if (name === "class") element.className = value;
      else if (name === "text") element.textContent = value;
      else if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
      else element.setAttribute(name, value);
    }
    element.append(...children);
    return element;
  };

  const seconds = (us) => {
    if (us < 1000) return `${us}µs`;
    if (us < 1e6) return us < 9950 ? `${(us / 1e3).toFixed(1)}ms` : `${Math.round(us / 1e3)}ms`;
    if (us < 1e8) return us < 9.95e6 ? `${(us / 1e6).toFixed(1)}s` : `${Math.round(us / 1e6)}s`;
    const whole = Math.round(us / 1e6), two = (number) => String(number).padStart(2, "0");
    const hours = Math.floor(whole / 3600), minutes = Math.floor(whole / 60) % 60;
    return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
  };

  const indices = new Map();
  values.forEach((value, index) => { if (typeof value === "string" && !indices.has(value)) indices.set(value, index); });
  const attribute = (pairs, key) => {
    const wanted = indices.get(key);
    for (let i = 0; i < pairs.length; i += 2) if (pairs[i] === wanted) return values[pairs[i + 1]];
    return undefined;
  };

  const logsOf = new Map();
  logs.forEach((log, index) => {
    if (!logsOf.has(log[LOG_SPAN])) logsOf.set(log[LOG_SPAN], []);
    logsOf.get(log[LOG_SPAN]).push(index);
  });

  const sampleId = (sample) => String(attribute(spans[samples[sample][0]][ATTRIBUTES], "forge.sample.id") ?? "");
  const outcome = (sample) => String(attribute(spans[samples[sample][0]][ATTRIBUTES], "forge.sample.outcome") ?? "");
  const errorType = (sample) => String(attribute(spans[samples[sample][0]][ATTRIBUTES], "error.type") ?? "");

  // A list of any length that has only the rows in sight in the document.
  class List {
    constructor(box, rowHeight, render, choose) {
      Object.assign(this, { box, rowHeight, render, choose, items: [], current: -1, whole: false });
      this.all = el("div", { class: "all", role: "presentation" });
      box.replaceChildren(this.all);
      box.addEventListener("scroll", () => this.draw());
      box.addEventListener("keydown", (event) => this.key(event));
      new ResizeObserver(() => this.draw()).observe(box);
    }
    set(items, current = -1) {
      this.items = items;
      this.current = current;
      this.all.style.height = `${Math.max(items.length * this.rowHeight, 1)}px`;
      this.draw();
    }
    draw() {
      const height = this.box.clientHeight, top = this.box.scrollTop;
      let first = Math.max(0, Math.floor(top / this.rowHeight) - 4);
      let last = Math.min(this.items.length, Math.ceil((top + height) / this.rowHeight) + 4);
      if (this.whole) [first, last] = [0, Math.min(this.items.length, 5000)];
      const rows = [];
      for (let index = first; index < last; index++) {
        const row = this.render(this.items[index], index);
        row.classList.add("row");
        row.classList.toggle("current", index === this.current);
        row.id = `${this.box.id}-${index}`;
        row.setAttribute("role", "option");
        row.setAttribute("aria-selected", String(index === this.current));
        row.setAttribute("aria-posinset", String(index + 1));
        row.setAttribute("aria-setsize", String(this.items.length));
        row.style.top = `${index * this.rowHeight}px`;
        row.style.height = `${this.rowHeight}px`;
        row.addEventListener("click", () => this.go(index));
        rows.push(row);
      }
      this.all.replaceChildren(...rows);
      if (this.current >= first && this.current < last) this.box.setAttribute("aria-activedescendant", `${this.box.id}-${this.current}`);
      else this.box.removeAttribute("aria-activedescendant");
    }
    reveal(index) {
      const top = index * this.rowHeight, height = this.box.clientHeight;
      if (top < this.box.scrollTop) this.box.scrollTop = top;
      else if (top + this.rowHeight > this.box.scrollTop + height) this.box.scrollTop = top + this.rowHeight - height;
    }
    go(index) {
      if (!this.items.length) return;
      this.current = Math.max(0, Math.min(this.items.length - 1, index));
      this.reveal(this.current);
      this.draw();
      this.choose(this.items[this.current], this.current);
    }
    key(event) {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const page = Math.max(1, Math.floor(this.box.clientHeight / this.rowHeight) - 1);
      const moves = { ArrowDown: 1, j: 1, ArrowUp: -1, k: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
      if (!(event.key in moves)) return;
      event.preventDefault();
      const move = moves[event.key];
      this.go(move === -Infinity ? 0 : move === Infinity ? this.items.length - 1 : this.current < 0 ? 0 : this.current + move);
    }
  }

  // The texts of a sample are joined once, for searches to be fast.
  let haystacks = null;
  const prepare = () => {
    if (haystacks) return;
    const lower = values.map((value) => String(value).toLowerCase());
    haystacks = samples.map(([first, count]) => {
      const texts = new Set();
      for (let row = first; row < first + count; row++) {
        const span = spans[row];
        texts.add(span[NAME]).add(span[MESSAGE]);
        for (let i = 1; i < span[ATTRIBUTES].length; i += 2) texts.add(span[ATTRIBUTES][i]);
        for (const log of logsOf.get(row) ?? []) {
          texts.add(logs[log][LOG_NAME]).add(logs[log][LOG_BODY]);
          for (let i = 1; i < logs[log][LOG_ATTRIBUTES].length; i += 2) texts.add(logs[log][LOG_ATTRIBUTES][i]);
        }
      }
      let text = "";
      for (const index of texts) text += `${lower[index]}\n`;
      return text;
    });
  };

  const ORDERS = {
    failed: (one, other) => spans[samples[other][0]][FAILED] - spans[samples[one][0]][FAILED] || ORDERS.slowest(one, other),
    slowest: (one, other) => spans[samples[other][0]][DURATION] - spans[samples[one][0]][DURATION] || one - other,
    started: (one, other) => one - other,
  };
  const sorted = new Map();
  const inOrder = (order) => {
    if (!sorted.has(order)) sorted.set(order, samples.map((_, index) => index).sort(ORDERS[order]));
    return sorted.get(order);
  };

  let shown = -1;
  const badge = (text) => el("span", { class: `badge ${text}`, text: text || "-" });
  const list = new List($("list"), 30, (sample) => {
    const why = errorType(sample);
    return el("div", {}, badge(outcome(sample)), el("span", { class: "id", text: sampleId(sample) || "(without id)", title: sampleId(sample) }),
      ...(why ? [el("span", { class: "why", text: why })] : []), el("span", { class: "took", text: seconds(spans[samples[sample][0]][DURATION]) }));
  }, (sample) => open(sample));

  const search = () => {
    const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
    const order = inOrder($("order").value);
    let found = order;
    if (words.length) {
      prepare();
      found = order.filter((sample) => words.every((word) => haystacks[sample].includes(word)));
    }
    list.box.scrollTop = 0;
    list.set(found, found.indexOf(shown));
    const count = found.length.toLocaleString("en");
    $("count").textContent = words.length ? `${count} of ${samples.length.toLocaleString("en")} samples` : `${count} samples`;
  };

  // Links: #sample=ID&trace=… when two samples have one id, &span=…, &q=… for the search.
  const where = () => new URLSearchParams(location.hash.slice(1));
  const setWhere = (changes) => {
    const state = where();
    for (const [key, value] of Object.entries(changes)) {
      if (value === null || value === "") state.delete(key);
      else state.set(key, value);
    }
    const hash = state.toString();
    history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
  };

  const byId = new Map();
  samples.forEach((_, index) => {
    const id = sampleId(index);
    if (!byId.has(id)) byId.set(id, []);
    byId.get(id).push(index);
  });

  const follow = () => {
    const state = where();
    if (state.has("q") && state.get("q") !== $("search").value) $("search").value = state.get("q");
    search();
    if (!state.has("sample")) return;
    const same = byId.get(state.get("sample")) ?? [];
    const sample = same[Number(state.get("n") ?? 0)] ?? same[0];
    if (sample === undefined) {
      shown = -1;
      $("detail").replaceChildren(el("p", { class: "error", text: `There is no sample ${state.get("sample")} in this page. It may not have been recorded.` }));
      return;
    }
    open(sample, state.get("span"));
    const index = list.items.indexOf(sample);
    if (index >= 0) { list.current = index; list.reveal(index); list.draw(); }
  };

  const quoted = (text) => /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'"'"'`)}'`;
  const commands = (id) => {
    const source = data.source.map(quoted);
    const dashes = id.startsWith("-") ? ["--"] : [];
    const own = data.source[0] === "--jaeger" ? [...source, ...dashes, quoted(id)] : [...dashes, quoted(id), ...source];
    return [
      ["forge-otel", "trace", "waterfall", ...own].join(" "),
      ["forge", "show", ...dashes, quoted(data.run.id), quoted(id)].join(" "),
    ];
  };

  const copy = async (text, button) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Pages from files may not have a clipboard: leave the text selected instead.
      const area = el("textarea", { "aria-label": "Text to copy", text });
      button.after(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    const before = button.textContent;
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = before; }, 1200);
  };

  // The rows of a sample as a tree, each batch after the span that was in it.
  const tree = (sample) => {
    const [first, count] = samples[sample];
    const below = new Map();
    const roots = [];
    for (let row = first; row < first + count; row++) {
      const parent = spans[row][PARENT];
      if (row === first || parent < first || parent >= first + count) roots.push(row);
      else if (below.has(parent)) below.get(parent).push(row);
      else below.set(parent, [row]);
    }
    const rows = [];
    const waiting = roots.reverse().map((row) => [row, 0, false]);
    while (waiting.length) {
      const [row, depth, isBatch] = waiting.pop();
      rows.push({ row, depth, isBatch });
      if (isBatch) continue;
      const children = [...(below.get(row) ?? []).map((child) => [child, depth + 1, false]), ...spans[row][LINKS].map((batch) => [batch, depth + 1, true])];
      if (depth < 100) waiting.push(...children.reverse());
    }
    return rows;
  };

  let spanList = null;
  const open = (sample, span = null) => {
    shown = sample;
    const [first] = samples[sample], root = spans[first], id = sampleId(sample);
    const rows = tree(sample);
    const begin = Math.min(...rows.filter(({ isBatch }) => !isBatch).map(({ row }) => spans[row][START]));
    const end = Math.max(...rows.map(({ row }) => spans[row][START] + spans[row][DURATION]));
    const scale = 100 / Math.max(1, end - begin);
    const place = (us) => `${Math.max(0, Math.min(100, (us - begin) * scale))}%`;

    const link = el("button", { type: "button", text: "Copy link", onclick: () => copy(location.href, link) });
    const parent = attribute(root[ATTRIBUTES], "forge.sample.parent.id");
    const shortcuts = el("div", { class: "shortcuts" }, link);
    if (parent !== undefined && byId.has(String(parent))) shortcuts.append(el("button", { type: "button", text: `Parent: ${parent}`, onclick: () => { open(byId.get(String(parent))[0]); search(); } }));
    for (const command of commands(id)) {
      const button = el("button", { type: "button", text: "Copy", "aria-label": `Copy ${command}`, onclick: () => copy(command, button) });
      shortcuts.append(el("code", { text: command }), button);
    }

    const box = el("div", { id: "spans", class: "list spans", role: "listbox", tabindex: "0", "aria-label": "Spans" });
    const about = el("div", { id: "span" });
    const errors = rows.flatMap(({ row }) => (logsOf.get(row) ?? []).filter((log) => attribute(logs[log][LOG_ATTRIBUTES], "exception.stacktrace") !== undefined));
    const wrong = [];
    for (const log of errors) {
      const pairs = logs[log][LOG_ATTRIBUTES];
      wrong.push(el("p", { class: "error", text: `${attribute(pairs, "error.type") ?? attribute(pairs, "exception.type") ?? "error"}: ${attribute(pairs, "exception.message") ?? ""}` }),
        el("details", {}, el("summary", { text: `Stack trace of ${values[logs[log][LOG_BODY]] || values[logs[log][LOG_NAME]]}` }), el("pre", { text: attribute(pairs, "exception.stacktrace"), tabindex: "0" })));
    }
    if (!wrong.length && root[FAILED]) wrong.push(el("p", { class: "error", text: `${errorType(sample) || "failed"}: ${values[root[MESSAGE]]}` }));

    const records = rows.flatMap(({ row }) => logsOf.get(row) ?? []).sort((one, other) => logs[one][LOG_TIME] - logs[other][LOG_TIME]);
    $("detail").replaceChildren(
      el("div", { class: "heading" }, el("h2", { text: id || "(without id)" }), badge(outcome(sample)), el("span", { text: seconds(root[DURATION]) })),
      shortcuts, ...wrong, box, about,
      ...(records.length ? [el("h3", { text: "Log records" }), el("ul", { class: "logs" }, ...records.slice(0, 200).map((log) => el("li", {},
        el("span", { class: "at", text: seconds(Math.max(0, logs[log][LOG_TIME] - begin)) }),
        el("span", { class: /WARN|ERROR|FATAL/.test(values[logs[log][LOG_SEVERITY]]) ? "warn" : null, text: ` ${values[logs[log][LOG_BODY]] || values[logs[log][LOG_NAME]]}` }))))] : []),
    );
    const rowHeight = 24;
    box.style.height = `${Math.min(rows.length * rowHeight + 2, 460)}px`;
    spanList = new List(box, rowHeight, ({ row, depth, isBatch }) => {
      const one = spans[row];
      const wait = attribute(one[ATTRIBUTES], "forge.stage.queue.wait");
      const track = el("span", { class: "track" });
      const piece = (kind, from, to) => {
        const part = el("span", { class: kind });
        part.style.left = place(from);
        if (to !== null) part.style.width = `${Math.max(0, (Math.min(to, end) - Math.max(from, begin)) * scale)}%`;
        track.append(part);
      };
      if (typeof wait === "number" && !isBatch) piece("bar wait", one[START] - wait * 1e6, one[START]);
      piece(one[FAILED] ? "bar failed" : "bar", one[START], one[START] + one[DURATION]);
      for (const log of logsOf.get(row) ?? []) piece("mark", logs[log][LOG_TIME], null);
      const label = el("span", { class: "label", text: values[one[NAME]], title: values[one[NAME]] });
      label.style.paddingLeft = `${Math.min(depth, 12) * 14}px`;
      return el("div", { class: one[FAILED] ? "failed" : null }, label, track, el("span", { class: "took", text: seconds(one[DURATION]) }));
    }, (item, index) => { describe(item, about, begin); setWhere({ span: index ? String(index) : null }); });
    const chosen = Math.max(0, Math.min(rows.length - 1, Number(span ?? 0) || 0));
    spanList.set(rows, chosen);
    spanList.reveal(chosen);
    spanList.draw();
    describe(rows[chosen], about, begin);
    const same = byId.get(id).indexOf(sample);
    setWhere({ sample: id, n: same ? String(same) : null, span: chosen ? String(chosen) : null });
  };

  const describe = ({ row }, about, begin) => {
    const one = spans[row], pairs = one[ATTRIBUTES];
    const terms = [];
    const term = (name, value) => terms.push(el("dt", { text: name }), el("dd", { text: value }));
    term("starts at", seconds(Math.max(0, one[START] - begin)));
    term("takes", seconds(one[DURATION]));
    if (one[FAILED]) term("error", values[one[MESSAGE]] || "failed");
    for (let i = 0; i < pairs.length; i += 2) term(values[pairs[i]], values[pairs[i + 1]]);
    about.replaceChildren(el("h3", { text: values[one[NAME]] }), el("dl", { class: "attributes" }, ...terms));
  };

  // The chart: what is where at the time below the pointer.
  const { bins, width, start, series } = data.occupancy;
  $("plot").addEventListener("pointermove", (event) => {
    if (!bins) return;
    const box = $("plot").getBoundingClientRect();
    const x = Math.max(0, Math.min(box.width - 1, event.clientX - box.left));
    const bin = Math.min(bins - 1, Math.floor(x / box.width * bins));
    const lines = series.filter((each) => each.values[bin] >= 0.05).map((each) => `${each.values[bin].toFixed(1).padStart(8)}  ${each.name}`);
    $("tip").textContent = [`at ${seconds(Math.max(0, Math.round((start + bin * width) * 1e6)))}`, ...lines.reverse()].join("\n");
    $("tip").hidden = $("cursor").hidden = false;
    $("cursor").style.left = `${x}px`;
    $("tip").style.left = x < box.width / 2 ? `${x + 12}px` : "auto";
    $("tip").style.right = x < box.width / 2 ? "auto" : `${box.width - x + 12}px`;
  });
  $("plot").addEventListener("pointerleave", () => { $("tip").hidden = $("cursor").hidden = true; });

  // As the system has it, until another one is chosen.
  const switchTheme = () => {
    const root = document.documentElement;
    const now = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
    root.dataset.theme = now === "dark" ? "light" : "dark";
  };

  addEventListener("beforeprint", () => {
    if (spanList) { spanList.whole = true; spanList.draw(); }
    document.querySelectorAll("#detail details").forEach((details) => { details.open = true; });
  });
  addEventListener("afterprint", () => {
    if (spanList) { spanList.whole = false; spanList.draw(); }
  });

  $("theme").addEventListener("click", switchTheme);
  $("print").addEventListener("click", () => print());
  $("keys").addEventListener("click", () => $("help").showModal());
  $("search").addEventListener("input", () => { search(); setWhere({ q: $("search").value }); });
  $("order").addEventListener("change", search);
  $("search").addEventListener("keydown", (event) => {
    if (event.key === "Escape") { $("search").value = ""; search(); setWhere({ q: null }); $("list").focus(); event.preventDefault(); }
    if (event.key === "ArrowDown" || event.key === "Enter") { $("list").focus(); list.go(Math.max(0, list.current)); event.preventDefault(); }
  });
  addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || $("help").open || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
    const inList = event.target.id === "list";
    const actions = {
      "/": () => { $("search").focus(); $("search").select(); },
      "?": () => $("help").showModal(),
      t: switchTheme,
      c: () => { const button = $("detail").querySelector(".shortcuts button"); if (button) button.click(); },
      Escape: () => $("list").focus(),
    };
    if (inList) actions.Enter = () => { if (list.current < 0) list.go(0); else if ($("spans")) $("spans").focus(); };
    else if (event.target === document.body) Object.assign(actions, { j: () => { $("list").focus(); list.go(list.current + 1); }, k: () => { $("list").focus(); list.go(list.current - 1); } });
    if (!(event.key in actions)) return;
    event.preventDefault();
    actions[event.key]();
  });
  addEventListener("hashchange", follow);

  follow();
  setTimeout(prepare, 50);
})();
