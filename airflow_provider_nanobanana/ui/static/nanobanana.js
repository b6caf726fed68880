/*
 * What people see of Nano Banana inside Airflow: the gallery with its reviews, the ledger, the spend page, the asset tab.
 * Plain DOM, no library and no build. `mount(element, props)` is all of it: the tab wraps it in a React component, the
 * standalone page calls it for each [data-nanobanana]. Data only ever becomes text nodes and attributes, never markup.
 * Everything is read; what a person decides is sent to Airflow's own API, which checks who may.
 */
(() => {
  const POLL_MS = 5000; // while something is under way
  const SLOW_POLL_MS = 15000; // while the run goes on, or a review waits
  const WINDOW = 2000; // cards of one answer
  const EVENTS = 5; // of an asset
  const APPROVE_SOME = "Approve selected";
  const APPROVE_ALL = "Approve all";
  const REJECT_ALL = "Reject all";

  // --- DOM and words ------------------------------------------------------------------------------------------------

  const fill = (node, attributes, children) => {
    for (const [name, value] of Object.entries(attributes || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else node.setAttribute(name, value === true ? "" : value);
    }
    node.append(...children.flat(Infinity).filter((child) => child || child === 0));
    return node;
  };
  const h = (tag, attributes, ...children) => fill(document.createElement(tag), attributes, children);
  const svg = (tag, attributes, ...children) =>
    fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);
  const ICONS = {
    check: "M4 12.5 9.5 18 20 6.5",
    cross: "M6 6 18 18M18 6 6 18",
    left: "M15 4 7 12 15 20",
    right: "M9 4 17 12 9 20",
    zoom: "M4 9V4H9M20 9V4H15M4 15V20H9M20 15V20H15",
    columns: "M4 5H10.5V19H4ZM13.5 5H20V19H13.5Z",
    warning: "M12 4 21 20H3ZM12 10V14.5M12 17V17.5",
    search: "M10.5 4A6.5 6.5 0 1 1 10.5 17 6.5 6.5 0 0 1 10.5 4M15.5 15.5 20 20",
  };
  const icon = (name) =>
    svg("svg", { viewBox: "0 0 24 24", "aria-hidden": "true", class: "nb-icon" }, svg("path", { d: ICONS[name] }));
  const button = (words, onclick, attributes, ...children) =>
    h("button", { type: "button", "aria-label": children.length ? words : null, onclick, ...attributes },
      children.length ? children : words);

  const dollars = new Intl.NumberFormat("en", {
    style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: 4,
  });
  const money = (usd) => (typeof usd === "number" ? dollars.format(usd) : "price not known");
  const count = (number) => Number(number || 0).toLocaleString("en");
  const plural = (number, one, many) => `${count(number)} ${number === 1 ? one : many || `${one}s`}`;
  const bytes = (size) =>
    (size >= 1e6 ? `${(size / 1e6).toFixed(1)} MB` : size >= 1e3 ? `${Math.round(size / 1e3)} kB` : `${size} B`);
  const when = (text) => (text ? new Date(text).toLocaleString() : "");
  const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const query = (values) => {
    const given = Object.entries(values).filter(([, value]) => value !== null && value !== undefined && value !== "");
    return new URLSearchParams(given).toString();
  };
  const mapIndexOf = (value) => (/^\d+$/.test(String(value)) ? Number(value) : -1);

  /** What a server refused, in words for people. */
  class Refused extends Error {
    constructor(status, detail) {
      super(detail);
      this.status = status;
    }
  }
  const REFUSALS = {
    0: "The server cannot be reached.",
    401: "Your session has ended. Log in to Airflow again, then reload this page.",
    403: "Your role may not read this: it takes the permission to read the DAG and its XComs.",
    404: "There is nothing here (any more).",
  };
  const ask = async (url, options) => {
    let response;
    try {
      response = await fetch(url, options);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new Refused(0, REFUSALS[0]);
    }
    if (response.ok) return response.json();
    const answer = await response.json().catch(() => null);
    const detail = answer && answer.detail ? plain(answer.detail) : "";
    const known = response.status === 401 || (response.status === 403 && !options?.method);
    throw new Refused(response.status, known || !detail ? REFUSALS[response.status] || `HTTP ${response.status}` : detail);
  };

  /** The addresses of one Airflow: ours, its API, its pages. */
  class Site {
    constructor(base) {
      this.base = base.replace(/\/+$/, "");
    }

    own(route, dagId, values) {
      const dag = dagId === null ? "" : `/${encodeURIComponent(dagId)}`;
      return `${this.base}/nanobanana/api/${route}${dag}?${query(values || {})}`;
    }

    run(dagId, runId) {
      return `${this.base}/api/v2/dags/${encodeURIComponent(dagId)}/dagRuns/${encodeURIComponent(runId)}`;
    }

    page(dagId, runId, taskId, mapIndex) {
      const run = `${this.base}/dags/${encodeURIComponent(dagId)}/runs/${encodeURIComponent(runId)}`;
      const mapped = mapIndex >= 0 ? `/mapped/${mapIndex}` : "";
      return taskId ? `${run}/tasks/${encodeURIComponent(taskId)}${mapped}` : run;
    }
  }

  // --- cards --------------------------------------------------------------------------------------------------------

  const KINDS = {
    image: "in place", failed: "failed", quarantined: "in quarantine", under_way: "under way", skipped: "skipped",
  };
  /** What a card can be filtered by: its name in the address, its words, the key of its number in the totals, a test. */
  const STATES = [
    ["image", "In place", "images", (card) => card.kind === "image"],
    ["under_way", "Under way", "under_way", (card) => card.kind === "under_way"],
    ["failed", "Failed", "failed", (card) => card.kind === "failed"],
    ["quarantined", "Quarantined", "quarantined", (card) => card.kind === "quarantined"],
    ["shared", "Shared", "shared", (card) => card.shared],
    ["reused", "Reused", "reused", (card) => card.reused],
    ["suspect", "Suspect", "suspect", (card) => card.suspect && card.suspect.length],
    ["rejected", "Rejected", null, (card) => card.rejected],
  ];
  const ALWAYS_SHOWN = new Set(["image", "under_way", "failed", "shared", "reused"]);

  const flagsOf = (card) => [
    card.version > 1 && ["version", `version ${card.version}`],
    card.reused && ["reused", "reused"],
    card.shared && ["shared", "shared"],
    card.suspect && card.suspect.length && ["suspect", `suspect: ${card.suspect.join(", ")}`],
    card.rejected && ["rejected", "rejected"],
  ].filter(Boolean);
  const flagList = (card) =>
    h("span", { class: "nb-flags" }, flagsOf(card).map(([name, words]) => h("span", { class: `nb-flag nb-${name}` }, words)));
  const pixels = (card) => (card.width ? `${card.width} × ${card.height}` : [card.size, card.resolution].filter(Boolean).join(" · "));
  const cost = (card) => {
    if (card.kind !== "image" || typeof card.cost_usd !== "number") return card.charged && card.paid_usd ? money(card.paid_usd) : "";
    return card.cost_usd === 0 && (card.reused || card.shared) ? "" : (card.cost_is_listed ? "≈ " : "") + money(card.cost_usd);
  };
  const title = (card) => card.label || card.name || card.file || "image";
  const spoken = (record) => {
    const { card } = record;
    const parts = [title(card), record.mapped, card.kind !== "image" && KINDS[card.kind], ...flagsOf(card).map(([, words]) => words)];
    return `${parts.filter(Boolean).join(", ")}: ${card.prompt || card.message || ""}`;
  };

  /** Where a card's bytes are. `sha` makes the browser fetch anew what was replaced under the same name. */
  const source = (site, kind, { task, card, place }, more) =>
    site.own(kind, place.dagId, {
      run_id: place.runId, task_id: task.task_id, map_index: task.map_index, key: card.key, v: card.sha, ...more,
    });
  const picture = (site, record, more) => {
    const image = h("img", {
      alt: record.card.prompt || title(record.card), loading: "lazy", decoding: "async", draggable: "false",
      src: source(site, "thumb", record, more),
    });
    image.addEventListener("error", () => image.replaceWith(h("span", { class: "nb-broken" }, "No picture could be read")));
    return image;
  };
  const frame = (site, { card, ...rest }) => {
    if (card.kind === "image") return picture(site, { card, ...rest });
    if (card.kind === "under_way") return h("span", { class: "nb-making" }, h("span", null, "Under way"), card.id && h("code", null, card.id));
    return h("span", { class: "nb-reason" }, icon("warning"), h("b", null, card.code || KINDS[card.kind]),
      h("span", { dir: "auto" }, card.message || card.advice));
  };

  /** Build the list item of one card; `record` keeps it until something of the card changes. */
  const buildCard = (gallery, record) => {
    const { card } = record;
    const facts = [pixels(card), card.model].filter(Boolean).join(" · ");
    return h("li", { class: "nb-card", "data-kind": card.kind, "data-rejected": card.rejected },
      button(spoken(record), () => gallery.lightbox.open(record), { class: "nb-frame", tabindex: "-1" }, frame(gallery.site, record)),
      h("div", { class: "nb-verdict" }),
      h("p", { class: "nb-name" }, h("span", { dir: "auto" }, title(card)), record.mapped && h("span", { class: "nb-muted" }, record.mapped)),
      h("p", { class: "nb-prompt", dir: "auto" }, card.prompt),
      h("p", { class: "nb-facts" }, h("span", null, facts), h("span", { class: "nb-cost" }, cost(card))),
      flagList(card));
  };

  // --- gallery ------------------------------------------------------------------------------------------------------

  class Gallery {
    constructor(root, props) {
      this.root = root;
      this.props = props;
      this.site = props.site;
      this.scope = { task_id: props.taskId, map_index: props.taskId ? mapIndexOf(props.mapIndex) : undefined };
      this.windows = [];
      this.records = new Map();
      this.sections = new Map();
      this.order = [];
      this.show = "";
      this.text = "";
      this.aborter = new AbortController();
      this.build();
      this.review = new Review(this);
      this.lightbox = new Lightbox(this);
      this.readAddress();
      this.refresh();
    }

    build() {
      const { props } = this;
      this.status = h("p", { class: "nb-status", role: "status" });
      this.totals = h("div", { class: "nb-totals", role: "group", "aria-label": "Show only" });
      this.progress = h("progress", { class: "nb-progress", "aria-label": "Images in place", hidden: true });
      this.search = h("input", {
        type: "search", placeholder: "Name or prompt", "aria-label": "Search names and prompts",
        oninput: () => this.filter(this.show, this.search.value),
      });
      this.list = h("div", { onkeydown: (event) => this.onKey(event), onfocusin: (event) => this.onFocus(event) });
      this.end = h("div", { class: "nb-end" });
      this.bar = h("div", { class: "nb-bar", role: "region", "aria-label": "Review", hidden: true });
      this.root.append(
        !props.embedded && h("header", { class: "nb-header" },
          h("h1", null, h("a", { href: this.site.page(props.dagId, props.runId) }, props.runId)),
          h("p", { class: "nb-muted" }, props.dagId, props.taskId ? ` · ${props.taskId}` : "")) || "",
        h("div", { class: "nb-tools" }, this.totals, h("label", { class: "nb-search" }, icon("search"), this.search)),
        this.progress, this.status, this.list, this.end, this.bar);
      this.watcher = new IntersectionObserver((entries) => entries.some((entry) => entry.isIntersecting) && this.more());
      this.onVisible = () => !document.hidden && this.delay && this.refresh();
      document.addEventListener("visibilitychange", this.onVisible);
    }

    close() {
      this.aborter.abort();
      clearTimeout(this.timer);
      this.watcher.disconnect();
      document.removeEventListener("visibilitychange", this.onVisible);
      this.lightbox.dialog.remove();
    }

    /** Ask again for what can have changed, and show what did. One at a time; the next one only while it is needed. */
    async refresh() {
      clearTimeout(this.timer);
      if (this.asking) return;
      this.asking = true;
      try {
        await this.review.load();
        const known = this.windows.length;
        for (let at = 0; at < Math.max(1, known); at += 1) {
          const old = this.windows[at];
          const settled = at && old.tasks.every((task) => task.finished) && old.card_count === this.windows[0].card_count;
          if (!settled) this.windows[at] = await this.fetchWindow(at);
        }
        this.failures = 0;
        this.arrange();
      } catch (error) {
        if (error.name === "AbortError") return;
        this.failures = (this.failures || 0) + 1;
        this.say(this.windows.length ? `Not up to date: ${error.message}` : error.message, "bad");
      } finally {
        this.asking = false;
      }
      this.root.dataset.ready = this.order.length;
      this.schedule();
    }

    fetchWindow(at) {
      const asked = { run_id: this.props.runId, ...this.scope, offset: at * WINDOW, limit: WINDOW };
      return ask(this.site.own("gallery", this.props.dagId, asked), { signal: this.aborter.signal });
    }

    schedule() {
      const first = this.windows[0];
      const goesOn = first ? ["running", "queued"].includes(first.run_state) || this.review.pending.length : this.failures < 5;
      this.delay = first && first.active ? POLL_MS : goesOn ? SLOW_POLL_MS : 0;
      if (this.delay && !document.hidden) this.timer = setTimeout(() => this.refresh(), this.delay * (1 + (this.failures || 0)));
    }

    /** Fetch the next cards when one scrolls to the end of those that are here. */
    async more() {
      const first = this.windows[0];
      if (this.asking || !first || this.windows.length * WINDOW >= first.card_count) return;
      this.asking = true;
      try {
        this.windows.push(await this.fetchWindow(this.windows.length));
        this.arrange();
      } catch (error) {
        if (error.name !== "AbortError") this.say(error.message, "bad");
      } finally {
        this.asking = false;
      }
    }

    /** Bring the page in line with the answers: what did not change keeps its node, its picture and the focus. */
    arrange() {
      const groups = new Map(); // task id -> its instances, each with the cards of all windows
      for (const task of this.windows.flatMap((window) => window.tasks)) {
        const group = groups.get(task.task_id) || groups.set(task.task_id, new Map()).get(task.task_id);
        const seen = group.get(task.map_index);
        group.set(task.map_index, seen ? { ...task, cards: seen.cards.concat(task.cards) } : task);
      }
      const before = this.records;
      this.records = new Map();
      this.order = [];
      for (const [taskId, group] of groups) this.arrangeTask(taskId, [...group.values()], before);
      for (const [taskId, section] of this.sections) {
        if (!groups.has(taskId)) section.node.remove(), this.sections.delete(taskId);
      }
      this.showTotals();
      this.review.show();
      this.filter(this.show, this.text);
      if (!this.current || !this.records.has(this.current.uid)) this.setCurrent(this.order[0]);
      else this.setCurrent(this.records.get(this.current.uid));
      this.lightbox.update();
      this.openWanted();
      this.watcher.disconnect(); // observed anew, it tells at once whether the end is in view
      this.watcher.observe(this.end);
    }

    arrangeTask(taskId, tasks, before) {
      const section = this.sections.get(taskId) || this.sections.set(taskId, new Section(this, taskId)).get(taskId);
      if (!section.node.isConnected) this.list.append(section.node);
      const place = { dagId: this.props.dagId, runId: this.props.runId };
      const records = [];
      for (const task of tasks) {
        for (const card of task.cards) {
          if (this.review.only && !this.review.only.has(card.key)) continue;
          const record = { task, card, place, mapped: task.map_index >= 0 ? `[${task.map_index}]` : "" };
          const uid = `${taskId}/${task.map_index}/${card.key || `${card.kind}:${card.label}:${card.request}`}`;
          record.uid = this.records.has(uid) ? `${uid}#${records.length}` : uid;
          const old = before.get(record.uid);
          record.signature = JSON.stringify(card);
          const same = old && old.signature === record.signature;
          record.node = same ? old.node : buildCard(this, record);
          record.decided = same ? old.decided : undefined;
          if (old && !same && old.node.contains(document.activeElement)) record.wantsFocus = true;
          record.words = `${title(card)} ${card.name || ""} ${card.prompt || ""} ${record.mapped} ${taskId}`.toLowerCase();
          record.node.record = record;
          this.records.set(record.uid, record);
          records.push(record);
        }
      }
      section.show(tasks, records);
      this.order.push(...records);
    }

    showTotals() {
      const { totals } = this.windows[0];
      const loaded = this.windows.length * WINDOW >= this.windows[0].card_count;
      const tile = (name, words, number) =>
        button(`${words}: ${count(number)}`, () => this.filter(name, this.text), { class: "nb-tile", "data-show": name, disabled: !number },
          h("b", null, count(number)), h("span", null, words));
      const numbers = STATES.map(([name, words, key, test]) =>
        [name, words, key && !(loaded && key === "images") ? totals[key] : this.order.filter(({ card }) => test(card)).length]);
      const tiles = [
        h("div", { class: "nb-tile nb-paid" }, h("b", null, money(totals.paid_usd || 0)), h("span", null, "Paid")),
        tile("", "All", this.review.only ? this.order.length : this.windows[0].card_count),
        ...numbers.filter(([name, , number]) => number || ALWAYS_SHOWN.has(name)).map(([name, words, number]) => tile(name, words, number)),
      ];
      const signature = tiles.map((node) => node.textContent).join();
      if (this.totals.signature !== signature) this.totals.replaceChildren(...tiles);
      this.totals.signature = signature;
      const toCome = (totals.under_way || 0) + (totals.waiting || 0);
      this.progress.hidden = !toCome;
      this.progress.max = totals.images + toCome;
      this.progress.value = totals.images;
    }

    /** Show only the cards of one state whose name or prompt has the text. */
    filter(show, text) {
      this.show = show;
      this.text = text;
      const words = text.trim().toLowerCase();
      const state = STATES.find(([name]) => name === show);
      let shown = 0;
      for (const { node, card, words: own } of this.order) {
        const fits = (!state || Boolean(state[3](card))) && own.includes(words);
        if (node.hidden === fits) node.hidden = !fits;
        shown += fits;
      }
      for (const tile of this.totals.querySelectorAll("button")) tile.setAttribute("aria-pressed", tile.dataset.show === show);
      for (const section of this.sections.values()) section.hideIfEmpty(Boolean(state || words));
      this.summarise(shown, Boolean(state || words));
      this.review.showBar();
      this.writeAddress();
    }

    summarise(shown, filtered) {
      const [{ card_count: all, totals, active }] = this.windows.length ? this.windows : [{ card_count: 0, totals: {} }];
      const toCome = [totals.under_way && `${count(totals.under_way)} under way`, totals.waiting && `${count(totals.waiting)} not submitted yet`];
      const here = this.order.length < all && !this.review.only ? ` The first ${count(this.order.length)} of ${count(all)} are loaded.` : "";
      const nothing = active ? "No image yet. They appear here while the batch runs." : "No images here.";
      const words = filtered ? `${plural(shown, "card")} of ${count(this.order.length)} shown.` : all ? "" : nothing;
      this.say([words + here, active && toCome.filter(Boolean).join(", ")].filter(Boolean).join(" "));
    }

    say(words, tone) {
      if (this.status.textContent !== words) this.status.textContent = words;
      this.status.dataset.tone = tone || "";
    }

    shown() {
      return this.order.filter(({ node }) => !node.hidden);
    }

    // The address of the standalone page keeps the filter, so that a reload and a link show the same.
    readAddress() {
      if (this.props.embedded) return;
      const kept = new URLSearchParams(location.hash.slice(1));
      this.show = kept.get("show") || "";
      this.text = this.search.value = kept.get("q") || "";
      this.wanted = kept.get("image");
    }

    writeAddress() {
      if (this.props.embedded || this.wanted) return;
      const kept = query({ show: this.show, q: this.text, image: this.lightbox.record ? this.lightbox.record.card.key : "" });
      history.replaceState(null, "", location.pathname + location.search + (kept && `#${kept}`));
    }

    openWanted() {
      const record = this.wanted && this.order.find(({ card }) => card.key === this.wanted);
      this.wanted = null;
      if (record) this.lightbox.open(record);
    }

    // One card is in the order of Tab; the arrow keys move to the others.
    setCurrent(record) {
      for (const one of this.current ? this.current.node.querySelectorAll("button") : []) one.tabIndex = -1;
      this.current = record;
      for (const one of record ? record.node.querySelectorAll("button") : []) one.tabIndex = 0;
      if (record && record.wantsFocus) this.focus(record);
    }

    focus(record) {
      record.wantsFocus = false;
      this.setCurrent(record);
      record.node.querySelector(".nb-frame").focus();
      record.node.scrollIntoView({ block: "nearest" });
    }

    onFocus(event) {
      const card = event.target.closest(".nb-card");
      if (card && card.record !== this.current) this.setCurrent(card.record);
    }

    onKey(event) {
      const card = event.target.closest(".nb-card");
      if (!card || event.altKey || event.ctrlKey || event.metaKey) return;
      const list = this.shown();
      const at = list.indexOf(card.record);
      const forward = getComputedStyle(this.root).direction === "rtl" ? -1 : 1;
      const targets = {
        ArrowRight: () => list[at + forward], ArrowLeft: () => list[at - forward], Home: () => list[0], End: () => list.at(-1),
        ArrowDown: () => inNextRow(list, at, 1), ArrowUp: () => inNextRow(list, at, -1),
      };
      const verdict = { a: true, r: false, x: false }[event.key.toLowerCase()];
      if (verdict !== undefined && this.review.decide(card.record, verdict)) this.focus(list[at + 1] || list[at]);
      else if (targets[event.key]) this.focus(targets[event.key]() || list[at]);
      else return;
      event.preventDefault();
    }
  }

  /** The card in the row below (1) or above (-1) that is nearest to where one is. */
  const inNextRow = (list, at, step) => {
    const from = list[at].node.getBoundingClientRect();
    let top;
    let best;
    for (let i = at + step; list[i]; i += step) {
      const box = list[i].node.getBoundingClientRect();
      if (step * (box.top - from.top) < 8) continue;
      if (top === undefined) top = box.top;
      else if (Math.abs(box.top - top) > 8) break;
      const distance = Math.abs(box.left - from.left);
      if (!best || distance < best.distance) best = { record: list[i], distance };
    }
    return best && best.record;
  };

  /** One task: its heading, its cards (of all its mapped instances), what cannot be shown, its ledger. */
  class Section {
    constructor(gallery, taskId) {
      this.gallery = gallery;
      this.heading = h("div", { class: "nb-heading" });
      this.notes = h("div");
      this.grid = h("ul", { class: "nb-grid", role: "list", "aria-label": `Images of ${taskId}. Arrow keys move, Enter opens.` });
      this.ledger = new Ledger(gallery, taskId);
      this.node = h("section", { class: "nb-section" }, this.heading, this.notes, this.grid, this.ledger.node);
    }

    show(tasks, records) {
      const { gallery, grid } = this;
      this.records = records;
      const [task] = tasks;
      const paid = tasks.reduce((sum, { totals }) => sum + (totals.paid_usd || 0), 0);
      const images = tasks.reduce((sum, { totals }) => sum + (totals.images || 0), 0);
      const states = tasks.length === 1 ? task.state || "no state yet" : plural(tasks.length, "mapped instance");
      const only = tasks.length === 1 ? task.map_index : -1;
      const { dagId, runId } = gallery.props;
      this.heading.replaceChildren(
        h("h2", null, h("a", { href: gallery.site.page(dagId, runId, task.task_id, only) }, task.task_id + (only >= 0 ? ` [${only}]` : ""))),
        h("p", { class: "nb-muted" }, [states.replaceAll("_", " "), plural(images, "image"), `${money(paid)} paid`].join(" · ")));
      const problems = new Map();
      for (const { problem, map_index: index } of tasks) if (problem) problems.set(problem, [...(problems.get(problem) || []), index]);
      this.notes.replaceChildren(...[...problems].map(([words, which]) =>
        h("p", { class: "nb-note", "data-tone": "bad" }, which.length > 1 ? `${plural(which.length, "instance")}: ${words}` : words)));
      let at = grid.firstChild;
      for (const { node } of records) {
        if (node === at) at = at.nextSibling;
        else grid.insertBefore(node, at);
      }
      while (at) [at, this.gone] = [at.nextSibling, at.remove()];
      grid.style.setProperty("--nb-frame", usualRatio(records));
      this.ledger.offer(tasks);
    }

    hideIfEmpty(filtered) {
      const hidden = filtered && !this.records.some(({ node }) => !node.hidden);
      if (this.node.hidden !== hidden) this.node.hidden = hidden;
    }
  }

  /** The shape of most pictures, so that none is cropped and the grid stays calm; a square for a mixture. */
  const usualRatio = (records) => {
    const shapes = new Map();
    const pictures = records.filter(({ card }) => card.width && card.height);
    for (const { card } of pictures) {
      const ratio = Math.min(16 / 9, Math.max(3 / 4, card.width / card.height)).toFixed(2);
      shapes.set(ratio, (shapes.get(ratio) || 0) + 1);
    }
    const [ratio, number] = [...shapes].sort((one, other) => other[1] - one[1])[0] || ["1", 0];
    return number * 3 >= pictures.length * 2 ? ratio : "1";
  };

  // --- lightbox -----------------------------------------------------------------------------------------------------

  const table = (heads, rows, attributes) =>
    h("div", { class: "nb-scroll" }, h("table", attributes,
      heads && h("thead", null, h("tr", null, heads.map((head) => h("th", { scope: "col" }, head)))),
      h("tbody", null, rows.map((cells) => h("tr", null, cells.map((cell) => (cell instanceof Node ? cell : h("td", { dir: "auto" }, cell))))))));
  const facts = (pairs) => h("dl", { class: "nb-list" }, pairs.filter(([, value]) => value || value === 0)
    .map(([name, value]) => [h("dt", null, name), h("dd", { dir: "auto" }, value)]));

  /** One card in full, in a modal dialog: the browser keeps the focus inside and closes it on Escape. */
  class Lightbox {
    constructor(gallery) {
      this.gallery = gallery;
      const step = (by) => () => this.step(by);
      this.stage = h("div", { class: "nb-stage" });
      this.panel = h("div", { class: "nb-panel" });
      this.counter = h("span", { class: "nb-counter", "aria-live": "polite" });
      this.zoomer = button("Original pixels (z)", () => this.zoom(!this.zoomed), { "aria-pressed": "false" }, icon("zoom"));
      this.comparer = button("Versions side by side (v)", () => this.compare(!this.comparing), { "aria-pressed": "false", hidden: true }, icon("columns"));
      this.dialog = h("dialog", {
        class: "nb nb-lightbox", "aria-label": "Image", onkeydown: (event) => this.onKey(event), onclose: () => this.onClose(),
      }, h("div", { class: "nb-viewer" }, this.stage,
        h("div", { class: "nb-controls" }, this.counter, this.comparer, this.zoomer,
          button("Close (Escape)", () => this.dialog.close(), { autofocus: true }, icon("cross"))),
        button("Previous image", step(-1), { class: "nb-step nb-previous" }, icon("left")),
        button("Next image", step(1), { class: "nb-step nb-next" }, icon("right"))), this.panel);
      gallery.root.append(this.dialog);
      panByDragging(this.stage);
    }

    open(record) {
      this.show(record);
      if (!this.dialog.open) this.dialog.showModal();
    }

    onClose() {
      const record = this.gallery.records.get(this.record.uid);
      this.record = null;
      this.stage.replaceChildren();
      this.gallery.writeAddress();
      if (record && !record.node.hidden) this.gallery.focus(record);
    }

    step(by) {
      const list = this.gallery.shown();
      const at = list.findIndex(({ uid }) => uid === this.record.uid);
      if (list.length) this.show(list[(at + by + list.length) % list.length]);
    }

    onKey(event) {
      if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, textarea, pre")) return;
      const forward = getComputedStyle(this.dialog).direction === "rtl" ? -1 : 1;
      const verdict = { a: true, r: false, x: false }[event.key.toLowerCase()];
      if (verdict !== undefined && this.gallery.review.decide(this.record, verdict)) this.step(1);
      else if (event.key === "ArrowRight" && !this.zoomed) this.step(forward);
      else if (event.key === "ArrowLeft" && !this.zoomed) this.step(-forward);
      else if (event.key === "z") this.zoom(!this.zoomed);
      else if (event.key === "v" && !this.comparer.hidden) this.compare(!this.comparing);
      else return;
      event.preventDefault();
    }

    /** A poll came: go on with the card's newest state, and touch nothing if it is the same. */
    update() {
      const now = this.record && this.gallery.records.get(this.record.uid);
      if (now && now.signature !== this.record.signature) this.show(now);
      else if (now) this.record = now;
    }

    show(record) {
      const list = this.gallery.shown();
      this.record = record;
      this.details = null;
      this.comparing = this.zoomed = false;
      this.counter.textContent = `${list.indexOf(record) + 1} / ${list.length}`;
      this.dialog.setAttribute("aria-label", title(record.card));
      this.comparer.hidden = true;
      this.showStage();
      this.showPanel();
      this.gallery.writeAddress();
      if (record.card.key) this.fetchDetails(record);
    }

    showStage() {
      const { card } = this.record;
      const image = card.kind === "image";
      this.zoomer.hidden = !image || this.comparing;
      this.zoomer.setAttribute("aria-pressed", this.zoomed);
      this.comparer.setAttribute("aria-pressed", this.comparing);
      this.stage.className = `nb-stage${this.comparing ? " nb-compared" : this.zoomed ? " nb-zoomed" : ""}`;
      this.stage.tabIndex = this.zoomed ? 0 : -1;
      if (this.comparing) this.stage.replaceChildren(...this.details.versions.map((version) => this.versionFigure(version)));
      else this.stage.replaceChildren(image ? this.original() : frame(this.gallery.site, this.record));
    }

    /** The thumbnail at once, the original as soon as it is there. */
    original() {
      const { record } = this;
      const { site } = this.gallery;
      const shown = picture(site, record);
      const address = source(site, "image", record);
      shown.loading = "eager";
      shown.addEventListener("click", (event) => this.stage.dragged || this.zoom(!this.zoomed, event));
      if (record.card.width) [shown.style.maxWidth, shown.style.maxHeight] = [`${record.card.width}px`, `${record.card.height}px`];
      const full = new Image();
      full.onload = () => {
        shown.src = address;
        if (shown.isConnected && this.record === record && this.dialog.open) this.prepareNext();
      };
      full.onerror = () => ask(address).catch((error) => {
        if (this.record === record) this.stage.replaceChildren(h("p", { class: "nb-reason" }, icon("warning"), h("span", null, error.message)));
      });
      full.src = address;
      return shown;
    }

    prepareNext() {
      const list = this.gallery.shown();
      const next = list[list.indexOf(this.record) + 1];
      if (next && next.card.kind === "image") new Image().src = source(this.gallery.site, "image", next);
    }

    /** One pixel of the picture on one of the screen, about the point that was clicked. */
    zoom(zoomed, event) {
      const image = this.stage.querySelector("img");
      if (!image || this.comparing) return;
      const box = image.getBoundingClientRect();
      const [x, y] = event ? [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height] : [0.5, 0.5];
      this.zoomed = zoomed;
      this.stage.classList.toggle("nb-zoomed", zoomed);
      this.zoomer.setAttribute("aria-pressed", zoomed);
      this.stage.tabIndex = zoomed ? 0 : -1;
      const width = (this.record.card.width || image.naturalWidth) / devicePixelRatio;
      image.style.width = zoomed ? `${width}px` : "";
      if (zoomed) {
        this.stage.scrollTo(x * this.stage.scrollWidth - this.stage.clientWidth / 2, y * this.stage.scrollHeight - this.stage.clientHeight / 2);
        this.stage.focus();
      }
    }

    compare(comparing) {
      this.comparing = comparing;
      this.zoomed = false;
      this.showStage();
    }

    versionFigure({ version, rejected, there }) {
      const record = { ...this.record, card: { ...this.record.card, sha: null } };
      const words = rejected ? ["rejected", rejected.by && ` by ${rejected.by}`, rejected.comment && `: ${rejected.comment}`] : "";
      return h("figure", { "data-rejected": Boolean(rejected) },
        there === false ? h("span", { class: "nb-broken" }, "The file is not there") : h("img", {
          alt: `Version ${version}: ${record.card.prompt || title(record.card)}`, src: source(this.gallery.site, "image", record, { version }),
        }),
        h("figcaption", null, h("b", null, `Version ${version}`, version === (this.record.card.version || 1) && " · this one"), h("span", { dir: "auto" }, words)));
    }

    async fetchDetails(record) {
      const { site, aborter } = this.gallery;
      const { place, task, card } = record;
      const asked = { run_id: place.runId, task_id: task.task_id, map_index: task.map_index, key: card.key };
      const details = await ask(site.own("record", place.dagId, asked), { signal: aborter.signal })
        .catch((error) => ({ problem: error.message, versions: [] }));
      if (this.record !== record && this.record?.uid !== record.uid) return;
      this.details = details;
      this.comparer.hidden = card.kind !== "image" || (details.versions || []).length < 2;
      this.showPanel();
    }

    showPanel() {
      const { gallery, record, details } = this;
      const { card, task, place } = record;
      const { site } = gallery;
      const image = card.kind === "image";
      const page = site.page(place.dagId, place.runId, task.task_id, task.map_index);
      const top = this.panel.scrollTop;
      this.verdict = h("div", { class: "nb-verdict" });
      this.panel.replaceChildren(...[
        h("h2", { dir: "auto" }, title(card)), flagList(card), this.verdict,
        card.prompt && h("p", { class: "nb-full", dir: "auto" }, card.prompt),
        !image && card.kind !== "under_way" && h("div", { class: "nb-note", "data-tone": "bad" },
          h("b", null, `${KINDS[card.kind]}${card.code ? `: ${card.code}` : ""}`), card.message && h("p", { dir: "auto" }, card.message), h("p", null, charge(card))),
        image && h("p", { class: "nb-links" },
          h("a", { href: source(site, "image", record), target: "_blank", rel: "noopener" }, "Original"),
          h("a", { href: source(site, "image", record, { download: 1 }), download: card.file || "" }, "Download"),
          h("a", { href: page }, "Task instance")),
        facts([
          ["Size", card.width && `${card.width} × ${card.height} px`], ["File", [card.format, card.bytes && bytes(card.bytes)].filter(Boolean).join(", ")],
          ["Asked for", [card.size, card.resolution].filter(Boolean).join(", ")], ["Model", card.model],
          ["Variant", card.variant], ["Version", card.version],
          ["Cost", typeof card.cost_usd === "number" && money(card.cost_usd) + (card.cost_is_listed ? " (list price, no bill seen)" : "")],
          ["Paid by this task", typeof card.paid_usd === "number" && money(card.paid_usd)],
          ["Name of the file", card.file], ["Image task", card.id],
          ["Task", task.task_id + (record.mapped && ` ${record.mapped}`)],
        ]),
        details && details.versions && details.versions.length > 1 && h("div", null, h("h3", null, "Versions"),
          button(`See ${details.versions.length} versions side by side`, () => this.compare(true), { class: "nb-button" })),
        card.meta && Object.keys(card.meta).length && h("div", null, h("h3", null, "Row"),
          table(null, Object.entries(card.meta).map(([name, value]) => [h("th", { scope: "row", dir: "auto" }, name), plain(value)]))),
        h("h3", null, "What you can do"), advice(record),
        !image && h("p", { class: "nb-links" }, h("a", { href: page }, "Task instance")),
        details && h("details", null, h("summary", null, "Record in the manifest"),
          h("pre", { tabindex: "0" }, details.problem || JSON.stringify(details.entry, null, 2))),
      ].filter(Boolean));
      this.panel.scrollTop = details ? top : 0;
      gallery.review.showVerdict(record, this.verdict);
    }
  }

  const charge = (card) => [
    card.charged === true ? "It was paid." : card.charged === false ? "It was not paid." : "",
    card.retry_may_help === true ? "A retry may help." : card.retry_may_help === false ? "A retry will not help." : "",
  ].join(" ");

  /** What a person can do about one card, and what each way costs. */
  const advice = ({ card, task }) => {
    const which = JSON.stringify(card.name ? card.label || card.name : String(card.request ?? 0));
    const redo = ["Make it again: a new run with ", h("code", null, `redo=[${which}]`), ` on ${task.task_id} buys one image, as a new version; what is here stays.`];
    const ways = {
      image: [redo, card.rejected
        ? "Clear the task: a rejected picture is not used again; where every version is rejected, one image is bought."
        : "Clear the task: it uses what is in place and buys nothing."],
      failed: [card.advice, "Clear the task: it asks only for what is missing; what is in place is used."],
      quarantined: [card.advice, ["Accept it: ", h("code", null, 'on_suspect="warn"'), " and clear the task: it is put in place and buys nothing."], redo],
      under_way: ["Wait: it appears here when it is in place. Whatever is retried or cleared meanwhile, it is bought once."],
      skipped: [card.advice],
    };
    return h("ul", { class: "nb-advice" }, (ways[card.kind] || []).filter(Boolean).map((way) => h("li", null, way)));
  };

  const panByDragging = (stage) => {
    stage.addEventListener("pointerdown", () => (stage.dragged = false));
    stage.addEventListener("pointermove", (event) => {
      if (!(event.buttons & 1) || event.pointerType === "touch" || !stage.classList.contains("nb-zoomed")) return;
      stage.scrollBy(-event.movementX, -event.movementY);
      if (Math.abs(event.movementX) + Math.abs(event.movementY) > 2) stage.dragged = true;
    });
  };

  // --- review -------------------------------------------------------------------------------------------------------

  /** What a run's reviews ask for and what was decided. Ticks stay in the tab until Airflow has taken them. */
  class Review {
    constructor(gallery) {
      this.gallery = gallery;
      this.pending = [];
      this.decided = new Map(); // key of an image -> [approved, words]
      this.ticks = new Map(); // key of an image -> approved
      this.comment = h("input", { type: "text", class: "nb-comment", placeholder: "Comment (optional)", "aria-label": "Comment", oninput: () => this.keep() });
      this.outcome = h("p", { class: "nb-outcome", role: "alert" });
    }

    async load() {
      const { site, props, aborter } = this.gallery;
      const answer = await ask(`${site.run(props.dagId, props.runId)}/hitlDetails?limit=100`, { signal: aborter.signal })
        .catch((error) => (error.name === "AbortError" ? Promise.reject(error) : { hitl_details: [] })); // no review for who may not see it
      const reviews = answer.hitl_details.filter((detail) => keysOf(detail) && detail.options.includes(APPROVE_SOME));
      const answered = reviews.filter((detail) => detail.response_received);
      answered.sort((one, other) => String(one.responded_at).localeCompare(String(other.responded_at)));
      this.decided = new Map(answered.flatMap((detail) => keysOf(detail).map((key) => [key, verdictOf(detail, key)])));
      this.pending = reviews.filter((detail) => !detail.response_received);
      const mine = reviews.find(({ task_instance: task }) => task.task_id === props.taskId);
      this.only = mine ? new Set(keysOf(mine)) : null; // the page of a review shows what it asks about
      if (mine) this.gallery.scope = {};
      this.choose(this.pending.find((detail) => nameOf(detail) === this.name)
        || this.pending.find(({ task_instance: task }) => task.task_id === props.taskId) || this.pending[0]);
    }

    choose(detail) {
      this.detail = detail;
      this.keys = new Set(detail ? keysOf(detail) : []);
      const name = detail ? nameOf(detail) : "";
      if (name === this.name) return;
      this.name = name;
      let kept = null;
      try {
        kept = JSON.parse(sessionStorage.getItem(`nanobanana ${name}`));
      } catch {
        // A browser that keeps nothing: the ticks live as long as the page.
      }
      this.ticks = new Map(kept ? kept.ticks : []);
      this.comment.value = kept ? kept.comment : "";
    }

    keep() {
      try {
        const kept = JSON.stringify({ ticks: [...this.ticks], comment: this.comment.value });
        sessionStorage.setItem(`nanobanana ${this.name}`, kept);
      } catch {
        // As above.
      }
    }

    /** Tick one image; a second time takes the tick back where `toggle` says so. Returns whether it is asked about. */
    decide(record, approved, toggle) {
      if (!this.keys.has(record.card.key)) return false;
      if (toggle && this.ticks.get(record.card.key) === approved) this.ticks.delete(record.card.key);
      else this.ticks.set(record.card.key, approved);
      this.confirming = false;
      this.keep();
      this.show();
      return true;
    }

    decideShown(approved) {
      for (const { card } of this.gallery.shown()) if (this.keys.has(card.key)) this.ticks.set(card.key, approved);
      this.confirming = false;
      this.keep();
      this.show();
    }

    show() {
      for (const record of this.gallery.order) {
        const { key } = record.card;
        const decided = key && JSON.stringify([this.keys.has(key), this.ticks.get(key), this.decided.get(key)]);
        if (record.decided === decided) continue;
        record.decided = decided;
        this.showVerdict(record, record.node.querySelector(".nb-verdict"));
      }
      const { record, verdict } = this.gallery.lightbox;
      if (record) this.showVerdict(record, verdict);
      this.showBar();
    }

    /** The two ticks of an image that is asked about, or what was decided about it. */
    showVerdict(record, place) {
      const { key } = record.card;
      const tick = this.ticks.get(key);
      const [approved, words] = this.decided.get(key) || [];
      if (place.closest(".nb-card")) [record.node.dataset.tick, record.node.dataset.decided] = [tick ?? "", approved ?? ""];
      if (!this.keys.has(key)) {
        place.replaceChildren(...(words ? [h("p", { class: "nb-decided", "data-approved": String(approved) }, icon(approved ? "check" : "cross"), words)] : []));
        return;
      }
      if (!place.querySelector("button")) {
        const make = (name, words_, value) => button(`${words_} ${title(record.card)}`, () => this.decide(record, value, true),
          { tabindex: record === this.gallery.current || !place.closest(".nb-card") ? 0 : -1, "data-tick": value }, icon(name), h("span", null, words_));
        place.replaceChildren(make("check", "Approve", true), make("cross", "Reject", false));
      }
      for (const one of place.querySelectorAll("button")) one.setAttribute("aria-pressed", String(tick) === one.dataset.tick);
    }

    numbers() {
      const ticks = [...this.keys].map((key) => this.ticks.get(key));
      const approved = ticks.filter((tick) => tick === true).length;
      const rejected = ticks.filter((tick) => tick === false).length;
      return { approved, rejected, open: ticks.length - approved - rejected };
    }

    showBar() {
      const { bar } = this.gallery;
      bar.hidden = !this.detail && !this.outcome.textContent;
      if (!this.detail) return bar.replaceChildren(this.outcome);
      const { approved, rejected, open } = this.numbers();
      const shown = this.gallery.shown().filter(({ card }) => this.keys.has(card.key)).length;
      const words = [`${approved} approved`, `${rejected} rejected`, open && `${open} undecided`].filter(Boolean).join(" · ");
      const signature = JSON.stringify([this.name, words, shown, this.confirming, this.sending, this.outcome.textContent, this.pending.length]);
      if (bar.signature === signature) return undefined;
      bar.signature = signature;
      const others = this.pending.length > 1 && h("select", { "aria-label": "Review", onchange: (event) => this.switchTo(event.target.value) },
        this.pending.map((detail) => h("option", { value: nameOf(detail), selected: detail === this.detail }, `${detail.task_instance.task_id} · ${detail.subject}`)));
      const focused = bar.contains(document.activeElement) && document.activeElement;
      bar.replaceChildren(...[
        h("div", { class: "nb-asked" }, others || h("b", null, this.detail.subject), h("span", { class: "nb-muted" }, words)),
        this.confirming && open
          ? h("div", { class: "nb-acts" }, h("span", null, `${plural(open, "image is", "images are")} undecided and would be rejected.`),
            button("Look at them", () => this.lookAtOpen(), { class: "nb-button" }), button("Reject these", () => this.send(), { class: "nb-button nb-danger" }))
          : h("div", { class: "nb-acts" },
            button(`Approve ${shown} shown`, () => this.decideShown(true), { class: "nb-button", disabled: !shown }),
            button(`Reject ${shown} shown`, () => this.decideShown(false), { class: "nb-button", disabled: !shown }),
            this.comment, button(this.sending ? "Sending…" : "Submit review", () => this.submit(), { class: "nb-button nb-primary", disabled: this.sending })),
        this.outcome,
      ].filter(Boolean));
      if (focused && focused.isConnected) focused.focus();
      else if (focused) bar.querySelector(".nb-danger, .nb-primary")?.focus();
      return undefined;
    }

    switchTo(name) {
      this.choose(this.pending.find((detail) => nameOf(detail) === name));
      this.show();
    }

    lookAtOpen() {
      this.confirming = false;
      this.gallery.filter("", (this.gallery.search.value = ""));
      const record = this.gallery.order.find(({ card }) => this.keys.has(card.key) && !this.ticks.has(card.key));
      if (record) this.gallery.focus(record);
    }

    submit() {
      this.confirming = this.numbers().open > 0;
      if (this.confirming) this.showBar();
      else this.send();
    }

    /** Give the answer to Airflow, which knows who may and whether somebody was faster. */
    async send() {
      const { gallery, detail, keys } = this;
      const { task_instance: task } = detail;
      const approved = [...keys].filter((key) => this.ticks.get(key) === true);
      const option = !approved.length ? REJECT_ALL : approved.length === keys.size ? APPROVE_ALL : APPROVE_SOME;
      const body = { chosen_options: [option], params_input: { approved, comment: this.comment.value.trim() || null } };
      this.sending = true;
      this.confirming = false;
      this.showBar();
      try {
        await ask(`${gallery.site.run(task.dag_id, task.dag_run_id)}/taskInstances/${encodeURIComponent(task.task_id)}/${task.map_index}/hitlDetails`, {
          method: "PATCH", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
        });
        this.tell(`Sent: ${approved.length} approved, ${keys.size - approved.length} rejected. The run goes on.`, "good");
      } catch (error) {
        this.tell(await this.refusal(error), "bad");
      }
      this.sending = false;
      this.showBar();
      await gallery.refresh();
    }

    async refusal(error) {
      const asked = (this.detail.assigned_users || []).map(({ name, id }) => name || id).join(", ");
      if (error.status === 403) return `Not sent: you are not asked. ${asked ? `This review asks ${asked}.` : "Your role may not answer it."}`;
      if (error.status === 404) return "Not sent: the task asks no longer (it was cleared, or has ended).";
      if (error.status !== 409) return `Not sent: ${error.message}`;
      const name = nameOf(this.detail);
      await this.load().catch(() => null);
      const [, words] = [...this.decided.values()].find(([, , review]) => review === name) || [];
      return `Not sent: answered already${words ? `, ${words.replace(/^\w+ /, "")}` : ""}. Nothing of yours was changed or lost here.`;
    }

    tell(words, tone) {
      this.outcome.textContent = words;
      this.outcome.dataset.tone = tone;
    }
  }

  /** The keys of the images that a required action asks about; null where it is none of ours. */
  const keysOf = ({ params }) => {
    const examples = params && params.approved && params.approved.schema && params.approved.schema.examples;
    return Array.isArray(examples) && examples.length ? examples : null;
  };
  const nameOf = ({ task_instance: task, created_at: created }) => [task.dag_id, task.dag_run_id, task.task_id, task.map_index, created].join(" ");
  const verdictOf = (detail, key) => {
    const chosen = detail.chosen_options || [];
    const approved = chosen.includes(APPROVE_ALL) || (chosen.includes(APPROVE_SOME) && (detail.params_input.approved || []).includes(key));
    const who = detail.responded_by_user ? `by ${detail.responded_by_user.name || detail.responded_by_user.id}` : "when the time was up";
    return [approved, `${approved ? "Approved" : "Rejected"} ${who}`, nameOf(detail)];
  };

  // --- ledger -------------------------------------------------------------------------------------------------------

  /** The ledger of a task instance in words, fetched when it is opened. */
  class Ledger {
    constructor(gallery, taskId) {
      this.gallery = gallery;
      this.taskId = taskId;
      this.select = h("select", { "aria-label": "Mapped instance", onchange: () => this.load() });
      this.content = h("div");
      this.node = h("details", { class: "nb-ledger", ontoggle: () => this.node.open && this.load() },
        h("summary", null, "Ledger: what is paid, what a retry and a clear would do"), this.select, this.content);
    }

    offer(tasks) {
      const indexes = tasks.map(({ map_index: index }) => index).join();
      this.select.hidden = tasks.length < 2;
      if (this.indexes !== indexes) {
        this.select.replaceChildren(...tasks.map(({ map_index: index, state }) => h("option", { value: index }, `[${index}] ${state || ""}`)));
      }
      this.indexes = indexes;
      const alone = this.gallery.props.taskId === this.taskId && ["failed", "up_for_retry"].includes(tasks[0].state);
      if (alone && !this.shown) this.node.open = true;
    }

    async load() {
      this.shown = true;
      const { site, props, aborter } = this.gallery;
      const asked = { run_id: props.runId, task_id: this.taskId, map_index: this.select.value };
      try {
        const ledger = await ask(site.own("ledger", props.dagId, asked), { signal: aborter.signal });
        const heads = ["Image", "State", "Image task", "Paid", "Money", "A retry", "A clear"];
        this.content.replaceChildren(
          h("ul", { class: "nb-advice" }, ledger.summary.map((sentence) => h("li", null, sentence))),
          ledger.rows.length ? table(heads, ledger.rows.map((row) => [
            h("th", { scope: "row", dir: "auto" }, row.label), row.state, h("td", null, h("code", null, row.image_task_id || "")),
            h("td", { class: "nb-number" }, typeof row.paid_usd === "number" ? money(row.paid_usd) : ""), row.money, row.retry, row.clear,
          ])) : "",
          h("p", { class: "nb-muted" }, [ledger.source, ...(ledger.skipped || [])].join(" ")));
      } catch (error) {
        if (error.name !== "AbortError") this.content.replaceChildren(h("p", { class: "nb-note", "data-tone": "bad" }, error.message));
      }
    }
  }

  // --- spend --------------------------------------------------------------------------------------------------------

  const SPEND_COLUMNS = [["bought", "Bought"], ["shared", "Shared"], ["reused", "Reused"], ["refunded", "Refunded"], ["failed", "Failed"]];
  const SPEND_TABLES = [["dag", "DAG"], ["run", "DAG run"], ["model", "Model"], ["day", "Day"]];
  const MORE_COUNTS = [["missing", "Paid, not in place"], ["booked", "Not in a manifest yet"], ["unpriced", "Price not known"]];
  const ROWS = 20;

  class Spend {
    constructor(root, props) {
      this.root = root;
      this.site = props.site;
      this.aborter = new AbortController();
      this.load();
    }

    close() {
      this.aborter.abort();
    }

    async load() {
      this.root.replaceChildren(h("h1", null, "Image spend"), h("p", { class: "nb-status", role: "status" }, "Adding up …"));
      try {
        this.data = await ask(this.site.own("spend", null), { signal: this.aborter.signal });
        this.show(this.data.months[0]);
      } catch (error) {
        if (error.name !== "AbortError") this.root.replaceChildren(h("h1", null, "Image spend"), h("p", { class: "nb-note", "data-tone": "bad" }, error.message));
      }
      this.root.dataset.ready = "spend";
    }

    show(month) {
      const { totals, tables } = this.data.month[month];
      const words = (name) => new Date(`${name}-15T00:00:00Z`).toLocaleString("en", { month: "long", year: "numeric", timeZone: "UTC" });
      const tile = (value, name) => h("div", { class: "nb-tile" }, h("b", null, value), h("span", null, name));
      const extra = MORE_COUNTS.filter(([key]) => totals[key]);
      this.root.replaceChildren(
        h("header", { class: "nb-header nb-spend" }, h("h1", null, "Image spend"),
          h("div", { class: "nb-months", role: "group", "aria-label": "Month" }, this.data.months.map((name) =>
            button(words(name), () => this.show(name), { "aria-pressed": String(name === month) }))),
          h("a", { class: "nb-button", href: this.site.own("spend.csv", null), download: "image-spend.csv" }, "CSV")),
        h("div", { class: "nb-totals" }, h("div", { class: "nb-tile nb-paid" }, h("b", null, money(totals.paid_usd)), h("span", null, `Paid in ${words(month)}`)),
          [...SPEND_COLUMNS, ...extra].map(([key, name]) => tile(count(totals[key]), name))),
        totals.of_which_listed_usd ? h("p", { class: "nb-muted" }, `${money(totals.of_which_listed_usd)} of it is estimated, at list price: no bill was seen.`) : "",
        this.days(month, tables.day || []),
        ...SPEND_TABLES.map(([name, head]) => this.table(head, tables[name] || [])),
        h("p", { class: "nb-muted" }, [
          `Days and months are those of the submit, in UTC. Read from ${plural(this.data.destinations, "destination")}, of DAGs that you may read.`,
          this.data.written_at && `As of ${when(this.data.written_at)}.`, ...(this.data.skipped || []),
        ].filter(Boolean).join(" ")));
    }

    /** A bar for each day of the month; the table of days says the same in numbers. */
    days(month, rows) {
      const [year, number] = month.split("-").map(Number);
      const paid = new Map(rows.map(({ key, paid_usd: usd }) => [key[0], usd]));
      const most = Math.max(...paid.values(), 0);
      const length = new Date(Date.UTC(year, number, 0)).getUTCDate();
      return h("div", { class: "nb-days", "aria-hidden": "true" }, Array.from({ length }, (_, at) => {
        const day = `${month}-${String(at + 1).padStart(2, "0")}`;
        const bar = h("i");
        bar.style.height = `${most ? (100 * (paid.get(day) || 0)) / most : 0}%`;
        return h("span", { title: `${day}: ${money(paid.get(day) || 0)}` }, bar, h("small", null, at % 7 ? "" : at + 1));
      }));
    }

    table(head, rows, all) {
      const most = Math.max(...rows.map(({ paid_usd: usd }) => usd), 0);
      const shown = all ? rows : rows.slice(0, ROWS);
      const section = h("section", { class: "nb-section" }, h("h2", null, `By ${head}`), table(
        [head, "Paid", ...SPEND_COLUMNS.map(([, name]) => name)],
        shown.map((row) => {
          const bar = h("i", { class: "nb-meter" });
          bar.style.width = `${most ? (100 * row.paid_usd) / most : 0}%`;
          return [h("th", { scope: "row" }, row.groups ? `${count(row.groups)} others` : this.name(head, row.key)), h("td", { class: "nb-number" }, money(row.paid_usd), bar),
            ...SPEND_COLUMNS.map(([key]) => h("td", { class: "nb-number" }, row[key] ? count(row[key]) : "–"))];
        }), { class: "nb-sums" }));
      if (shown.length < rows.length) {
        section.append(button(`All ${count(rows.length)}`, () => section.replaceWith(this.table(head, rows, true)), { class: "nb-button" }));
      }
      return section;
    }

    name(head, key) {
      if (head !== "DAG run" || !key[1]) return key.filter(Boolean).join(" · ") || "not known";
      const href = `${this.site.base}/nanobanana/view/${encodeURIComponent(key[0])}/${encodeURIComponent(key[1])}`;
      return h("a", { href }, `${key[0]} · ${key[1]}`);
    }
  }

  // --- asset --------------------------------------------------------------------------------------------------------

  /** The galleries of what last made an asset; Airflow's own rights on the producing DAG decide about each. */
  class AssetGalleries {
    constructor(root, props) {
      this.root = root;
      this.props = props;
      this.galleries = [];
      this.aborter = new AbortController();
      this.load();
    }

    close() {
      this.aborter.abort();
      for (const gallery of this.galleries) gallery.close();
    }

    async load() {
      const { site, assetId } = this.props;
      const url = `${site.base}/api/v2/assets/events?${query({ asset_id: assetId, order_by: "-timestamp", limit: EVENTS })}`;
      try {
        const events = (await ask(url, { signal: this.aborter.signal })).asset_events.filter((event) => event.source_run_id);
        this.root.append(...events.map((event, at) => this.event(event, at)));
        if (!events.length) this.root.append(h("p", { class: "nb-status" }, "No task has written this asset yet."));
      } catch (error) {
        if (error.name !== "AbortError") this.root.append(h("p", { class: "nb-note", "data-tone": "bad" }, error.message));
      }
      this.root.dataset.ready = "asset";
    }

    event(event, at) {
      const content = h("div");
      const props = { ...this.props, dagId: event.source_dag_id, runId: event.source_run_id, taskId: event.source_task_id, mapIndex: event.source_map_index };
      const node = h("details", { class: "nb-event", ontoggle: () => {
        if (!node.open || content.firstChild) return;
        this.galleries.push(new Gallery(content, { ...props, embedded: true }));
      } }, h("summary", null, h("b", null, when(event.timestamp)), h("span", { class: "nb-muted" }, `${event.source_dag_id} · ${event.source_run_id}`)), content);
      node.open = at === 0;
      return node;
    }
  }

  // --- mounting -----------------------------------------------------------------------------------------------------

  const stylesheet = (site) => {
    if (document.querySelector('link[href*="nanobanana.css"]')) return;
    document.head.append(h("link", { rel: "stylesheet", href: `${site.base}/nanobanana/static/nanobanana.css` }));
  };

  /** Show what `props` ask for inside `element`; returns the function that ends it. */
  const mount = (element, props) => {
    const site = new Site(props.base ?? new URL(document.baseURI).pathname);
    const root = h("div", { class: "nb" });
    stylesheet(site);
    element.replaceChildren(root);
    const View = props.dagId && props.runId ? Gallery : props.assetId ? AssetGalleries : Spend;
    const view = new View(root, { ...props, site });
    return () => {
      view.close();
      root.remove();
    };
  };

  /** On our own page the theme is the one that was chosen in Airflow. */
  const followTheme = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => {
      let chosen = null;
      try {
        chosen = localStorage.getItem("theme");
      } catch {
        // A browser that keeps nothing: as the system has it.
      }
      document.documentElement.dataset.nbTheme = chosen === "dark" || (chosen !== "light" && dark.matches) ? "dark" : "light";
    };
    follow();
    dark.addEventListener("change", follow);
    addEventListener("storage", follow);
  };

  const { React } = globalThis;
  if (React) {
    const NanoBanana = (props) => {
      const place = React.useRef(null);
      const { dagId, runId, taskId, mapIndex, assetId } = props;
      React.useEffect(() => mount(place.current, { dagId, runId, taskId, mapIndex, assetId, embedded: true }), [dagId, runId, taskId, mapIndex, assetId]);
      return React.createElement("div", { ref: place, className: "nb-host" });
    };
    for (const name of ["Images", "Image spend"]) globalThis[name] = NanoBanana;
    globalThis.AirflowPlugin = NanoBanana;
  } else {
    const pages = document.querySelectorAll("[data-nanobanana]");
    if (pages.length) followTheme();
    for (const page of pages) mount(page, { ...page.dataset });
  }
})();
