/*
 * What people see of Nano Banana inside Airflow: the gallery with its reviews, the ledger, the spend page, the asset tab.
 * Plain DOM, no library and no build. `mount(element, props)` is all of it: the tab wraps it in a React component, the
 * standalone page calls it for each [data-nanobanana]. Data only ever becomes text nodes and attributes, never markup.
 * Everything is read; what a person decides is sent to Airflow's own API, which checks who may.
 */
(() => {
  const POLL_MS = 5000; // while something is under way
  const SLOW_POLL_MS = 15000; // while the run goes on, or a review waits
  const SETTLE_MS = 6000; // from a question to its answer
  const WINDOW = 2000; // cards of one answer
  const EVENTS = 3; // of an asset
  const [APPROVE_SOME, APPROVE_ALL, REJECT_ALL] = ["Approve selected", "Approve all", "Reject all"];
  const VERDICT_KEYS = { a: true, r: false, x: false };

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
  const icon = (name) => {
    const [drawing, path] = ["svg", "path"].map((tag) => document.createElementNS("http://www.w3.org/2000/svg", tag));
    return fill(drawing, { viewBox: "0 0 24 24", "aria-hidden": "true", class: "nb-icon" }, [fill(path, { d: ICONS[name] }, [])]);
  };
  const button = (words, onclick, attributes, ...children) => {
    const label = children.length ? words : null;
    return h("button", { type: "button", "aria-label": label, onclick, ...attributes }, label ? children : words);
  };
  /** Replace what a node holds only where that changes something, and leave the focus where it is. */
  const renew = (node, ...children) => {
    const made = h(node.tagName, null, children);
    if (made.innerHTML === node.innerHTML) return;
    const keyOf = (element) => element.dataset.show ?? element.getAttribute("href");
    const focused = node.contains(document.activeElement) ? keyOf(document.activeElement) : null;
    node.replaceChildren(...made.childNodes);
    if (focused !== null) [...node.querySelectorAll("a, button")].find((element) => keyOf(element) === focused)?.focus();
  };
  const muted = (...words) => h("p", { class: "nb-muted" }, words);
  const failure = (words) => h("p", { class: "nb-note", "data-tone": "bad" }, words);
  const rowHead = (...content) => h("th", { scope: "row", dir: "auto" }, content);
  const number = (...content) => h("td", { class: "nb-number" }, content);
  const table = (heads, rows, attributes) => {
    const cell = (content) => (content instanceof Node ? content : h("td", { dir: "auto" }, content));
    const head = heads && h("thead", null, h("tr", null, heads.map((words) => h("th", { scope: "col" }, words))));
    const body = h("tbody", null, rows.map((cells) => h("tr", null, cells.map(cell))));
    return h("div", { class: "nb-scroll", tabindex: heads ? 0 : null }, h("table", attributes, head, body));
  };

  const dollars = new Intl.NumberFormat("en", {
    style: "currency", currency: "USD", minimumFractionDigits: 2, maximumFractionDigits: 3,
  });
  const money = (usd) => (typeof usd === "number" ? dollars.format(usd) : "price not known");
  const count = (value) => Number(value || 0).toLocaleString("en");
  const plural = (value, one, many) => `${count(value)} ${value === 1 ? one : many || `${one}s`}`;
  const bytes = (size) => (size >= 1e6 ? `${(size / 1e6).toFixed(1)} MB` : `${Math.ceil(size / 1e3)} kB`);
  const when = (text) => (text ? new Date(text).toLocaleString() : "");
  const plain = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  const query = (values) =>
    new URLSearchParams(Object.entries(values).filter(([, value]) => ![null, undefined, ""].includes(value))).toString();
  const mapIndexOf = (value) => (/^\d+$/.test(String(value)) ? Number(value) : -1);
  const isMirrored = (node) => getComputedStyle(node).direction === "rtl";
  /** Use what the browser keeps for us; one that keeps nothing is no error. */
  const kept = (use) => {
    try {
      return use();
    } catch {
      return null;
    }
  };

  /** What a server refused, in words for people. */
  class Refused extends Error {
    constructor(status, words) {
      super(words);
      this.status = status;
    }
  }
  const REFUSALS = {
    401: "Your session has ended. Log in to Airflow again, then reload this page.",
    403: "Your role may not read this: it takes the permission to read the DAG and its XComs.",
    404: "There is nothing here (any more).",
  };
  const ask = async (url, options) => {
    const refuse = (words) => (error) => {
      if (error.name === "AbortError") return new Promise(() => {}); // the view is closed: nobody waits any more
      throw new Refused(0, words);
    };
    const response = await fetch(url, options).catch(refuse("The server cannot be reached."));
    if (response.ok) return response.json().catch(refuse("This is no answer of Airflow's. Has your session ended? Then log in again."));
    const answer = await response.json().catch(() => null);
    const ours = response.status === 401 || (response.status === 403 && !options?.method) ? REFUSALS[response.status] : "";
    const words = ours || (answer?.detail && plain(answer.detail)) || REFUSALS[response.status];
    throw new Refused(response.status, words || `The server answered with HTTP ${response.status}.`);
  };

  /** The addresses of one Airflow: ours, its API, its pages. */
  const siteAt = (base) => {
    const root = base.replace(/\/+$/, "");
    const [dag, run] = [encodeURIComponent, encodeURIComponent];
    return {
      root,
      own: (route, values, dagId) => `${root}/nanobanana/api/${route}${dagId ? `/${dag(dagId)}` : ""}?${query(values)}`,
      view: (dagId, runId) => `${root}/nanobanana/view/${dag(dagId)}/${run(runId)}`,
      api: (dagId, runId) => `${root}/api/v2/dags/${dag(dagId)}/dagRuns/${run(runId)}`,
      page: (dagId, runId, taskId, mapIndex) => `${root}/dags/${dag(dagId)}/runs/${run(runId)}`
        + (taskId ? `/tasks/${encodeURIComponent(taskId)}${mapIndex >= 0 ? `/mapped/${mapIndex}` : ""}` : ""),
    };
  };

  // --- cards --------------------------------------------------------------------------------------------------------

  const KINDS = {
    image: "in place", failed: "failed", quarantined: "in quarantine", under_way: "under way", skipped: "skipped",
  };
  /** What cards can be filtered by: the name in the address, words, the key of the number in the totals, a test. */
  const STATES = [
    ["image", "In place", "images", (card) => card.kind === "image"],
    ["under_way", "Under way", "under_way", (card) => card.kind === "under_way"],
    ["failed", "Failed", "failed", (card) => card.kind === "failed"],
    ["shared", "Shared", "shared", (card) => card.shared],
    ["reused", "Reused", "reused", (card) => card.reused],
    ["quarantined", "Quarantined", "quarantined", (card) => card.kind === "quarantined"],
    ["suspect", "Suspect", "suspect", (card) => card.suspect?.length],
    ["rejected", "Rejected", "rejected", (card) => card.rejected],
  ];
  const ALWAYS_SHOWN = 5; // of them, also when there are none

  const hasPicture = (card) => card.key && ["image", "quarantined"].includes(card.kind);
  const title = (card) => card.label || card.name || card.file || "image";
  const flagsOf = (card) => [
    card.version > 1 && ["version", `version ${card.version}`],
    card.reused && ["reused", "reused"],
    card.shared && ["shared", "shared"],
    card.suspect?.length && ["suspect", `suspect: ${card.suspect.join(", ")}`],
    card.rejected && ["rejected", "rejected"],
  ].filter(Boolean);
  const flagList = (card) =>
    h("span", { class: "nb-flags" }, flagsOf(card).map(([name, words]) => h("span", { class: `nb-flag nb-${name}` }, words)));
  const pixels = ({ width, height, size, resolution }) =>
    (width ? `${width} × ${height}` : [size, resolution].filter(Boolean).join(" · "));
  const price = (card) => {
    const usd = card.kind === "image" ? card.cost_usd : card.paid_usd || null;
    if (typeof usd !== "number" || (!usd && (card.reused || card.shared))) return "";
    return (card.cost_is_listed ? "≈ " : "") + money(usd);
  };
  const spoken = ({ card, mapped }) => {
    const parts = [title(card), mapped, card.kind !== "image" && KINDS[card.kind], ...flagsOf(card).map(([, words]) => words)];
    return `${parts.filter(Boolean).join(", ")}: ${card.prompt || card.message || ""}`;
  };

  /** The address of a card's bytes. `v` makes the browser fetch anew what was replaced under the same name. */
  const source = (site, kind, { task, card, place }, more) => site.own(kind, {
    run_id: place.runId, task_id: task.task_id, map_index: task.map_index, key: card.key, v: card.sha, ...more,
  }, place.dagId);
  const broken = (words) => h("span", { class: "nb-broken" }, words);
  const picture = (site, record, kind, more) => {
    const alt = record.card.prompt || title(record.card);
    const image = h("img", { alt, loading: kind === "thumb" ? "lazy" : null, decoding: "async", draggable: "false" });
    image.addEventListener("error", () => image.isConnected && image.replaceWith(broken("No picture could be read")));
    image.src = source(site, kind, record, more);
    return image;
  };
  const frame = (site, record) => {
    const { card } = record;
    if (hasPicture(card)) return picture(site, record, "thumb");
    if (card.kind === "under_way") return h("span", { class: "nb-making" }, "Under way", card.id && h("code", null, card.id));
    const words = h("span", { dir: "auto" }, card.message || card.advice);
    return h("span", { class: "nb-reason" }, icon("warning"), h("b", null, card.code || KINDS[card.kind]), words);
  };

  /** Build the list item of one card; `record` keeps it until something of the card changes. */
  const buildCard = (gallery, record) => {
    const { card } = record;
    const open = () => gallery.lightbox.open(record);
    const isNamedByInstance = record.mapped && !card.name && !card.request; // "[3]" says more than "#0 [3]"
    return h("li", { class: "nb-card", "data-kind": card.kind, "data-rejected": card.rejected },
      button(spoken(record), open, { class: "nb-frame", tabindex: -1 }, frame(gallery.site, record)),
      h("div", { class: "nb-verdict" }),
      h("p", { class: "nb-name" }, !isNamedByInstance && h("span", { dir: "auto" }, title(card)), h("span", { class: "nb-muted" }, record.mapped)),
      h("p", { class: "nb-prompt", dir: "auto" }, card.prompt),
      h("p", { class: "nb-facts" }, h("span", null, [pixels(card), card.model].filter(Boolean).join(" · ")), h("b", null, price(card))),
      card.kind === "quarantined" && card.key && h("p", { class: "nb-why", dir: "auto" }, `In quarantine: ${card.message || card.code || ""}`),
      flagList(card));
  };

  // --- gallery ------------------------------------------------------------------------------------------------------

  class Gallery {
    constructor(root, props) {
      [this.root, this.props, this.site] = [root, props, props.site];
      this.aborter = new AbortController(); // ends what is asked for when the gallery is closed
      this.scope = props.taskId ? { task_id: props.taskId, map_index: mapIndexOf(props.mapIndex) } : {};
      this.windows = []; // answers, one after the other
      this.records = new Map(); // by uid: a card, its task, its node
      this.order = [];
      this.sections = new Map(); // by task id
      this.failures = 0;
      this.build();
      this.review = new Review(this);
      this.lightbox = new Lightbox(this);
      this.readAddress();
      this.refresh();
    }

    build() {
      const { props, site } = this;
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
      const header = h("header", { class: "nb-header" },
        h("h1", null, h("a", { href: site.page(props.dagId, props.runId) }, props.runId)),
        muted(props.dagId, props.taskId && ` · ${props.taskId}`));
      header.hidden = Boolean(props.embedded);
      const tools = h("div", { class: "nb-tools" }, this.totals, h("label", { class: "nb-search" }, icon("search"), this.search));
      this.root.append(header, tools, this.progress, this.status, this.list, this.end, this.bar);
      this.watcher = new IntersectionObserver((entries) => entries.at(-1).isIntersecting && this.hasMore() && this.refresh(1));
      const onVisible = () => !document.hidden && this.delay && this.refresh();
      document.addEventListener("visibilitychange", onVisible, { signal: this.aborter.signal });
    }

    ask(url) {
      return ask(url, { signal: this.aborter.signal });
    }

    close() {
      this.aborter.abort();
      clearTimeout(this.timer);
      this.watcher.disconnect();
    }

    hasMore() {
      const last = this.windows.at(-1);
      return last && (this.windows.length * WINDOW < last.card_count || last.unread_tasks > 0);
    }

    /** Ask again for what is shown, and for `more` windows. One at a time, the next one only while it is needed. */
    async refresh(more = 0) {
      clearTimeout(this.timer);
      this.again = Boolean(this.asking);
      if (this.asking) return;
      this.asking = true;
      try {
        await this.review.load();
        const wanted = Math.max(1, this.windows.length + more);
        for (let at = 0; at < wanted; at += 1) {
          const known = more && this.windows[at]; // scrolling on asks for what is new, a poll for everything
          this.windows[at] = known || (await this.ask(this.addressOf(at)));
        }
        this.failures = 0;
        this.arrange();
      } catch (error) {
        if (!(error instanceof Refused)) reportError(error);
        this.failures += 1;
        this.say(this.windows.length ? `Not up to date: ${error.message}` : error.message, "bad");
      } finally {
        this.asking = false;
        this.root.dataset.ready = this.order.length;
      }
      if (this.again) await this.refresh();
      else this.schedule();
    }

    addressOf(at) {
      return this.site.own("gallery", { run_id: this.props.runId, ...this.scope, offset: at * WINDOW, limit: WINDOW }, this.props.dagId);
    }

    schedule() {
      const first = this.windows[0];
      const goesOn = first ? ["running", "queued"].includes(first.run_state) || this.review.pending.length : this.failures < 5;
      this.delay = first?.active ? POLL_MS : goesOn ? SLOW_POLL_MS : 0;
      if (this.delay) this.timer = setTimeout(() => document.hidden || this.refresh(), this.delay * (1 + this.failures));
    }

    /** Bring the page in line with the answers: what did not change keeps its node, its picture and the focus. */
    arrange() {
      const groups = new Map(); // by task id: its instances by map index, each with the cards of all windows
      for (const task of this.windows.flatMap((window) => window.tasks)) {
        if (!groups.has(task.task_id)) groups.set(task.task_id, new Map());
        const seen = groups.get(task.task_id).get(task.map_index);
        groups.get(task.task_id).set(task.map_index, seen ? { ...task, cards: [...seen.cards, ...task.cards] } : task);
      }
      const before = this.records;
      this.records = new Map();
      for (const [taskId, section] of this.sections) {
        if (!groups.has(taskId)) section.node.remove();
        if (!groups.has(taskId)) this.sections.delete(taskId);
      }
      for (const [taskId, group] of groups) {
        if (!this.sections.has(taskId)) this.sections.set(taskId, new Section(this, taskId));
        this.sections.get(taskId).show([...group.values()], before);
      }
      this.order = [...this.records.values()];
      this.showTotals();
      this.review.show();
      this.filter(this.show, this.text);
      this.setCurrent(this.records.get(this.current?.uid) || this.order[0]);
      this.lightbox.update();
      this.watcher.disconnect(); // observed anew, it tells at once whether the end is in view
      this.watcher.observe(this.end);
    }

    showTotals() {
      const { totals, card_count: all, unread_tasks: unread } = this.windows.at(-1);
      const tile = (name, words, value) => button(`${words}: ${count(value)}`, () => this.filter(name, this.text), {
        class: "nb-tile", "data-show": name, "aria-pressed": String(name === this.show), disabled: !value,
      }, h("b", null, count(value)), h("span", null, words));
      const here = (test) => this.order.filter(({ card }) => test(card)).length;
      const states = STATES.map(([name, words, key, test]) => [name, words, (this.hasMore() && totals[key]) || here(test)]);
      const tiles = [
        h("div", { class: "nb-tile nb-paid" }, h("b", null, money(totals.paid_usd || 0)), h("span", null, unread ? "Paid, at least" : "Paid")),
        tile("", "All", all),
        ...states.filter(([, , value], at) => value || at < ALWAYS_SHOWN).map((state) => tile(...state)),
      ];
      renew(this.totals, tiles);
      const toCome = (totals.under_way || 0) + (totals.waiting || 0);
      this.progress.hidden = !toCome;
      this.progress.max = totals.images + toCome;
      this.progress.value = totals.images;
    }

    /** Show only the cards of one state whose name or prompt has the text. */
    filter(show, text) {
      [this.show, this.text] = [show, text];
      const words = text.trim().toLowerCase();
      const fits = (STATES.find(([name]) => name === show) || [])[3] || (() => true);
      for (const { node, card, words: own } of this.order) {
        const hidden = !(fits(card) && own.includes(words));
        if (node.hidden !== hidden) node.hidden = hidden;
      }
      for (const tile of this.totals.querySelectorAll("button")) tile.setAttribute("aria-pressed", tile.dataset.show === show);
      for (const { node, grid } of this.sections.values()) node.hidden = Boolean(show || words) && !grid.querySelector(".nb-card:not([hidden])");
      if (this.windows.length) this.tellHowMany(Boolean(show || words));
      this.review.showBar();
      this.writeAddress();
    }

    tellHowMany(filtered) {
      const { card_count: all, totals, active, unread_tasks: unread } = this.windows.at(-1);
      const here = this.order.length;
      this.say([
        filtered && `${plural(this.shown().length, "card")} of ${count(here)} shown.`,
        !all && (active ? "No image yet. They appear here while the batch runs." : "No images here."),
        unread > 0 && `${plural(unread, "task instance is", "task instances are")} not read yet: numbers and money are without them.`,
        this.hasMore() && here < all && `The first ${count(here)} of ${count(all)} are loaded.`,
        totals.under_way > 0 && `${count(totals.under_way)} under way.`,
        totals.waiting > 0 && `${count(totals.waiting)} not submitted yet.`,
      ].filter(Boolean).join(" "));
    }

    say(words, tone) {
      if (this.status.textContent !== words) this.status.textContent = words;
      this.status.dataset.tone = tone || "";
    }

    shown() {
      return this.order.filter(({ node }) => !node.hidden);
    }

    // The address of the standalone page keeps what is shown, for a reload and for links.
    readAddress() {
      const address = new URLSearchParams(this.props.embedded ? "" : location.hash.slice(1));
      this.show = address.get("show") || "";
      this.text = this.search.value = address.get("q") || "";
    }

    writeAddress() {
      if (this.props.embedded) return;
      const address = query({ show: this.show, q: this.text });
      history.replaceState(null, "", location.pathname + location.search + (address && `#${address}`));
    }

    // One card is in the order of Tab; the arrow keys move to the others.
    setCurrent(record) {
      for (const one of this.current?.node.querySelectorAll("button") || []) one.tabIndex = -1;
      this.current = record;
      for (const one of record?.node.querySelectorAll("button") || []) one.tabIndex = 0;
      if (record?.wantsFocus) this.focus(record);
    }

    focus(record) {
      record.wantsFocus = false;
      this.setCurrent(record);
      record.node.querySelector(".nb-frame").focus();
      record.node.scrollIntoView({ block: "nearest" });
    }

    onFocus(event) {
      const record = event.target.closest(".nb-card")?.record;
      if (record && record !== this.current) this.setCurrent(record);
    }

    onKey(event) {
      const record = event.target.closest(".nb-card")?.record;
      if (!record || event.altKey || event.ctrlKey || event.metaKey) return;
      const list = this.shown();
      const at = list.indexOf(record);
      const forward = isMirrored(this.root) ? -1 : 1;
      const columns = getComputedStyle(record.node.parentNode).gridTemplateColumns.split(" ").length;
      const targets = {
        ArrowRight: () => list[at + forward], ArrowLeft: () => list[at - forward], Home: () => list[0], End: () => list.at(-1),
        ArrowDown: () => list[at + columns], ArrowUp: () => list[at - columns],
      };
      const verdict = VERDICT_KEYS[event.key.toLowerCase()];
      if (verdict !== undefined && this.review.decide([record], verdict)) this.focus(list[at + 1] || record);
      else if (targets[event.key]) this.focus(targets[event.key]() || record);
      else return;
      event.preventDefault();
    }
  }

  /** One task: its heading, the cards of all its mapped instances, what cannot be shown, its ledger. */
  class Section {
    constructor(gallery, taskId) {
      this.gallery = gallery;
      this.heading = h("div", { class: "nb-heading" });
      this.notes = h("div");
      this.grid = h("ul", { class: "nb-grid", role: "list", "aria-label": `Images of ${taskId}. Arrow keys move, Enter opens.` });
      this.node = h("section", { class: "nb-section" }, this.heading, this.notes, this.grid);
      gallery.list.append(this.node);
    }

    show(tasks, before) {
      const { gallery, grid } = this;
      const records = tasks.flatMap((task) => task.cards.map((card) => this.record(task, card, before)));
      const sum = (name) => tasks.reduce((total, { totals }) => total + (totals[name] || 0), 0);
      const [{ task_id: taskId, map_index: first, state }] = tasks;
      const only = tasks.length === 1 ? first : -1;
      const href = gallery.site.page(gallery.props.dagId, gallery.props.runId, taskId, only);
      const states = tasks.length === 1 ? (state || "no state yet").replaceAll("_", " ") : plural(tasks.length, "mapped instance");
      renew(this.heading,
        h("h2", null, h("a", { href }, taskId + (only >= 0 ? ` [${only}]` : ""))),
        muted([states, plural(sum("images"), "image"), `${money(sum("paid_usd"))} paid`].join(" · ")));
      const problems = tasks.map(({ problem }) => problem).filter(Boolean);
      renew(this.notes, [...new Set(problems)].map((words) => {
        const times = problems.filter((problem) => problem === words).length;
        return failure(times > 1 ? `${plural(times, "instance")}: ${words}` : words);
      }));
      let at = grid.firstChild;
      for (const { node } of records) {
        if (node === at) at = at.nextSibling;
        else grid.insertBefore(node, at);
      }
      while (grid.children.length > records.length) grid.lastChild.remove();
      grid.style.setProperty("--nb-frame", usualRatio(records));
      this.ledger ??= this.node.appendChild(ledger(gallery, taskId, first));
      this.ledger.hidden = tasks.length > 1; // the page of a mapped instance has its own
    }

    /** The record of a card, with the node that it had if nothing of it changed. */
    record(task, card, before) {
      const { gallery } = this;
      const { dagId, runId } = gallery.props;
      const mapped = task.map_index >= 0 ? `[${task.map_index}]` : "";
      let uid = `${task.task_id}/${task.map_index}/${card.key || `${card.kind}:${card.label}:${card.request}`}`;
      while (gallery.records.has(uid)) uid += "+"; // two requests may share one file
      const record = { uid, task, card, mapped, place: { dagId, runId }, signature: JSON.stringify(card) };
      const old = before.get(uid);
      const same = old?.signature === record.signature;
      record.node = same ? old.node : buildCard(gallery, record);
      record.verdict = same ? old.verdict : undefined;
      record.wantsFocus = !same && old?.node.contains(document.activeElement);
      record.words = `${title(card)} ${card.name || ""} ${card.prompt || ""} ${mapped} ${task.task_id}`.toLowerCase();
      record.node.record = record;
      gallery.records.set(uid, record);
      return record;
    }
  }

  /** The shape that all pictures share, within limits, so that none is cropped and the grid stays calm; else a square. */
  const usualRatio = (records) => {
    const pictures = records.filter(({ card }) => card.width && card.height);
    const ratios = new Set(pictures.map(({ card }) => Math.min(16 / 9, Math.max(9 / 16, card.width / card.height)).toFixed(2)));
    return ratios.size === 1 ? [...ratios][0] : "1";
  };

  // --- lightbox -----------------------------------------------------------------------------------------------------

  /** One card in full, in a modal dialog: the browser keeps the focus inside and closes it on Escape. */
  class Lightbox {
    constructor(gallery) {
      this.gallery = gallery;
      this.stage = h("div", { class: "nb-stage" });
      this.panel = h("div", { class: "nb-panel" });
      this.counter = h("span", { class: "nb-counter", "aria-live": "polite" });
      const toggle = (words, mode, name) => button(words, () => this.setMode(this.mode === mode ? "" : mode), {}, icon(name));
      this.zoomer = toggle("Original pixels (z)", "zoomed", "zoom");
      this.comparer = toggle("Versions side by side (v)", "compared", "columns");
      const close = button("Close (Escape)", () => this.dialog.close(), { autofocus: true }, icon("cross"));
      const viewer = h("div", { class: "nb-viewer" }, this.stage,
        h("div", { class: "nb-controls" }, this.counter, this.comparer, this.zoomer, close),
        button("Previous image", () => this.step(-1), { class: "nb-step nb-previous" }, icon("left")),
        button("Next image", () => this.step(1), { class: "nb-step nb-next" }, icon("right")));
      this.dialog = h("dialog", {
        class: "nb nb-lightbox", onkeydown: (event) => this.onKey(event), onclose: () => this.onClose(),
      }, viewer, this.panel);
      gallery.root.append(this.dialog);
    }

    open(record) {
      this.show(record);
      if (!this.dialog.open) this.dialog.showModal();
    }

    onClose() {
      const record = this.gallery.records.get(this.record.uid);
      this.record = null;
      this.stage.replaceChildren();
      if (record && !record.node.hidden) this.gallery.focus(record);
    }

    step(by) {
      const list = this.gallery.shown();
      const at = list.findIndex(({ uid }) => uid === this.record.uid);
      if (list.length) this.show(list[(at + by + list.length) % list.length]);
    }

    onKey(event) {
      if (event.altKey || event.ctrlKey || event.metaKey || event.target.closest("input, pre")) return;
      const forward = isMirrored(this.dialog) ? -1 : 1;
      const steps = this.mode === "zoomed" ? {} : { ArrowRight: forward, ArrowLeft: -forward }; // arrows scroll what is large
      const verdict = VERDICT_KEYS[event.key.toLowerCase()];
      if (verdict !== undefined && this.gallery.review.decide([this.record], verdict)) this.step(1);
      else if (steps[event.key]) this.step(steps[event.key]);
      else if (event.key === "z" && !this.zoomer.hidden) this.zoomer.click();
      else if (event.key === "v" && !this.comparer.hidden) this.comparer.click();
      else return;
      event.preventDefault();
    }

    /** After a poll, go on with the card's newest state; the same picture stays as it is shown. */
    update() {
      const now = this.record && this.gallery.records.get(this.record.uid);
      if (!now) return;
      const { card, signature } = this.record;
      if (now.card.sha !== card.sha || now.card.kind !== card.kind) return this.show(now);
      this.record = this.stage.record = now;
      if (now.signature !== signature) this.showPanel();
    }

    show(record) {
      const list = this.gallery.shown();
      this.record = record;
      this.details = null;
      this.counter.textContent = `${list.indexOf(record) + 1} / ${list.length}`;
      this.dialog.setAttribute("aria-label", title(record.card));
      this.setMode("");
      this.showPanel();
      if (record.card.key) this.fetchDetails(record);
    }

    /** Fit the picture in (""), show its own pixels ("zoomed"), or all versions ("compared"). */
    setMode(mode) {
      const { record, stage } = this;
      const { card } = record;
      this.mode = mode;
      this.zoomer.hidden = !hasPicture(card) || mode === "compared";
      this.comparer.hidden = !(this.details?.versions.length > 1);
      this.zoomer.setAttribute("aria-pressed", mode === "zoomed");
      this.comparer.setAttribute("aria-pressed", mode === "compared");
      stage.className = `nb-stage nb-${mode || "fitted"}`;
      stage.tabIndex = mode === "zoomed" ? 0 : -1;
      if (mode === "compared") stage.replaceChildren(...this.details.versions.map((version) => this.versionFigure(version)));
      else if (stage.record !== record || !stage.querySelector(":scope > img")) stage.replaceChildren(this.original());
      stage.record = record;
      const image = stage.querySelector(":scope > img");
      if (!image) return;
      image.style.width = mode === "zoomed" ? `${(card.width || image.naturalWidth) / devicePixelRatio}px` : "";
      if (mode !== "zoomed") return;
      stage.scrollTo((stage.scrollWidth - stage.clientWidth) / 2, (stage.scrollHeight - stage.clientHeight) / 2);
      stage.focus();
    }

    /** The thumbnail at once, the original as soon as it is there. */
    original() {
      const { record, gallery: { site } } = this;
      if (!hasPicture(record.card)) return frame(site, record);
      const shown = picture(site, record, "thumb");
      shown.loading = "eager";
      if (record.card.width) [shown.style.maxWidth, shown.style.maxHeight] = [`${record.card.width}px`, `${record.card.height}px`];
      shown.addEventListener("click", () => this.zoomer.click());
      const full = new Image();
      full.onload = () => {
        shown.src = full.src;
      };
      full.onerror = () => ask(full.src).catch((error) => {
        if (this.record === record) this.stage.replaceChildren(broken(error.message));
      });
      full.src = source(site, "image", record);
      return shown;
    }

    versionFigure({ version, rejected, there }) {
      const { record, gallery: { site } } = this;
      const words = rejected && ["rejected", rejected.by && ` by ${rejected.by}`, rejected.comment && `: ${rejected.comment}`];
      const name = `Version ${version}${version === (record.card.version || 1) ? " · this one" : ""}`;
      const unmarked = { ...record, card: { ...record.card, sha: null } };
      return h("figure", { "data-rejected": Boolean(rejected) },
        there === false ? broken("The file is not there") : picture(site, unmarked, "image", { version }),
        h("figcaption", null, h("b", null, name), h("span", { dir: "auto" }, words)));
    }

    async fetchDetails(record) {
      const { place, task, card } = record;
      const asked = { run_id: place.runId, task_id: task.task_id, map_index: task.map_index, key: card.key };
      const details = await this.gallery.ask(this.gallery.site.own("record", asked, place.dagId))
        .catch((error) => ({ entry: error.message }));
      if (this.record?.uid !== record.uid) return;
      this.details = { versions: [], ...details };
      this.comparer.hidden = !(this.details.versions.length > 1);
      this.showPanel();
    }

    showPanel() {
      const { gallery, record, details } = this;
      const { card, task, place } = record;
      const link = (words, href, more) => h("a", { href, ...more }, words);
      const heading = (words, ...content) => h("div", null, h("h3", null, words), content);
      const facts = [
        ["Size", card.width && `${card.width} × ${card.height} px`], ["Format", card.format], ["Bytes", card.bytes && bytes(card.bytes)],
        ["Asked for", [card.size, card.resolution].filter(Boolean).join(", ")], ["Model", card.model],
        ["Variant", card.variant], ["Version", card.version],
        ["Cost", typeof card.cost_usd === "number" && money(card.cost_usd) + (card.cost_is_listed ? " (list price, no bill seen)" : "")],
        ["Paid by this task", typeof card.paid_usd === "number" && money(card.paid_usd)],
        ["File", card.file], ["Image task", card.id], ["Task", `${task.task_id} ${record.mapped}`],
      ].filter(([, value]) => value || value === 0);
      const rows = Object.entries(card.meta || {}).map(([name, value]) => [rowHead(name), plain(value)]);
      const versions = details?.versions.length > 1 && button(
        `See ${details.versions.length} versions side by side`, () => this.setMode("compared"), { class: "nb-button" });
      const open = this.panel.uid === record.uid && this.panel.querySelector("details")?.open;
      this.panel.uid = record.uid;
      this.verdict = h("div", { class: "nb-verdict" });
      this.panel.replaceChildren(...[
        h("h2", { dir: "auto" }, title(card)), flagList(card), this.verdict,
        card.prompt && h("p", { class: "nb-full", dir: "auto" }, card.prompt),
        ["failed", "quarantined", "skipped"].includes(card.kind) && failure([h("b", null, KINDS[card.kind], card.code && `: ${card.code}`),
          card.message && h("span", { dir: "auto" }, card.message), h("span", null, [CHARGED[card.charged], RETRY[card.retry_may_help]].filter(Boolean).join(" "))]),
        h("p", { class: "nb-links" },
          hasPicture(card) && link("Original", source(gallery.site, "image", record), { target: "_blank", rel: "noopener" }),
          hasPicture(card) && link("Download", source(gallery.site, "image", record, { download: 1 }), { download: card.file || "" }),
          record.mapped && link("Ledger", `${gallery.site.view(place.dagId, place.runId)}?${query({ task_id: task.task_id, map_index: task.map_index })}`),
          link("Task instance", gallery.site.page(place.dagId, place.runId, task.task_id, task.map_index))),
        h("dl", { class: "nb-list" }, facts.map(([name, value]) => [h("dt", null, name), h("dd", { dir: "auto" }, value)])),
        versions && heading("Versions", versions), rows.length && heading("Row", table(null, rows)),
        heading("What you can do", advice(record)),
        details && h("details", { open }, h("summary", null, "Record in the manifest"),
          h("pre", { tabindex: 0 }, JSON.stringify(details.entry, null, 2))),
      ].filter(Boolean));
      gallery.review.showVerdict(record, this.verdict);
    }
  }

  const CHARGED = { yes: "It was paid.", no: "It was not paid.", unknown: "Nobody knows yet whether it was paid." };
  const RETRY = { true: "A retry may help.", false: "A retry will not help." };

  /** What a person can do about one card, and what each way costs. */
  const advice = ({ card, task }) => {
    const which = JSON.stringify(card.name ? card.label || card.name : String(card.request ?? 0));
    const redo = ["Make it again: a new run with ", h("code", null, `redo=[${which}]`),
      ` on ${task.task_id} buys one image, as a new version; what is here stays.`];
    const ways = {
      image: [redo, card.rejected
        ? "Clear the task: a rejected picture is not used again; where every version is rejected, one image is bought."
        : "Clear the task: it uses what is in place and buys nothing."],
      failed: [card.advice, "Clear the task: it asks only for what is missing; what is in place is used."],
      quarantined: [card.advice, redo],
      under_way: ["Wait: it appears here when it is in place. Whatever is retried or cleared meanwhile, it is bought once."],
      skipped: [card.advice],
    };
    return h("ul", { class: "nb-advice" }, (ways[card.kind] || []).filter(Boolean).map((way) => h("li", null, way)));
  };

  // --- review -------------------------------------------------------------------------------------------------------

  /** The keys of the images that a required action asks about; null where it is none of ours. */
  const keysOf = ({ params, options }) => {
    const examples = params?.approved?.schema?.examples;
    return Array.isArray(examples) && examples.length && options.includes(APPROVE_SOME) ? examples : null;
  };
  const nameOf = ({ task_instance: task, created_at: created }) =>
    [task.dag_id, task.dag_run_id, task.task_id, task.map_index, created].join(" ");
  /** Airflow lists what nobody answered for ever, also of a task that failed, and takes an answer that no task reads. */
  const waits = (detail) => !detail.response_received && ["deferred", "awaiting_input"].includes(detail.task_instance.state);
  const hasEnded = ({ task_instance: { state } }) => ["success", "failed", "skipped", "removed", "upstream_failed"].includes(state);
  const byWhom = ({ responded_by_user: user }) => (user ? `by ${user.name || user.id}` : "when the time was up");
  /** What a review that is over says of one image: whether it is approved (null: nobody said), in words, the review's name. */
  const verdictOf = (detail, key) => {
    if (!detail.response_received) return [null, `Asked, never answered: the task ended (${detail.task_instance.state})`, nameOf(detail)];
    const chosen = detail.chosen_options || [];
    const approved = chosen.includes(APPROVE_ALL) || (chosen.includes(APPROVE_SOME) && (detail.params_input?.approved || []).includes(key));
    return [approved, `${approved ? "Approved" : "Rejected"} ${byWhom(detail)}`, nameOf(detail)];
  };

  const formOf = (site, { dag_id: dag, dag_run_id: run, task_id: task, map_index: at }) => `${site.page(dag, run, task, at)}/required_actions`;

  /** What a run's reviews ask and what was decided. Ticks stay in this browser tab until Airflow has taken them. */
  class Review {
    constructor(gallery) {
      this.gallery = gallery;
      this.details = []; // required actions of ours, as Airflow told last
      this.pending = [];
      this.keys = new Set(); // of the images that the chosen one asks about
      this.ticks = new Map(); // by key: approved
      this.decided = new Map(); // by key: verdictOf
      this.build();
    }

    build() {
      const act = (words, onclick, name) => button(words, onclick, { class: `nb-button ${name || ""}` });
      this.subject = h("b");
      this.chooser = h("select", { "aria-label": "Which review", onchange: () => this.goTo(this.pending[this.chooser.selectedIndex]) });
      this.numbers = h("span", { class: "nb-muted" });
      this.approveShown = act("", () => this.decide(this.gallery.shown(), true));
      this.rejectShown = act("", () => this.decide(this.gallery.shown(), false));
      const attributes = { type: "text", class: "nb-comment", placeholder: "Comment (optional)", "aria-label": "Comment" };
      this.comment = h("input", { ...attributes, oninput: () => this.keep() });
      this.submitter = act("Submit review", () => this.submit(), "nb-primary");
      this.doubt = h("span");
      this.form = h("a", { class: "nb-button" }, "Airflow's form");
      this.rejectOpen = act("Reject these", () => this.send(), "nb-danger");
      this.asking = h("div", { class: "nb-acts" }, this.approveShown, this.rejectShown, this.comment, this.submitter);
      this.confirming = h("div", { class: "nb-acts", hidden: true }, this.doubt,
        act("Back", () => this.decide([], null)), this.form, this.rejectOpen);
      this.outcome = h("p", { class: "nb-outcome", role: "alert" });
      this.gallery.bar.append(h("div", { class: "nb-asked" }, this.chooser, this.subject, this.numbers), this.asking, this.confirming, this.outcome);
    }

    async load() {
      const { gallery } = this;
      const { dagId, runId, taskId, mapIndex } = gallery.props;
      const isHere = ({ task_instance: task }) => task.task_id === taskId && task.map_index === mapIndexOf(mapIndex);
      const details = await this.read(`${gallery.site.api(dagId, runId)}/hitlDetails`).catch(() => null);
      if (details) this.details = details.filter(keysOf); // whoever may not see reviews sees none
      const over = this.details.filter((detail) => detail.response_received || hasEnded(detail));
      over.sort((one, other) => (one.responded_at || "").localeCompare(other.responded_at || ""));
      this.decided = new Map(over.flatMap((detail) => keysOf(detail).map((key) => [key, verdictOf(detail, key)])));
      this.pending = this.details.filter(waits);
      if (this.details.some(isHere)) gallery.scope = {}; // the pictures that a review asks about are another task's
      const chosen = this.pending.find((detail) => nameOf(detail) === this.name);
      if (this.detail && !chosen && !this.sending && this.sent !== this.name && (this.ticks.size || this.comment.value)) this.tellLost();
      this.choose(chosen || this.pending.find(isHere) || this.pending[0]);
    }

    /** Read all required actions of the run, page by page. */
    async read(url) {
      const all = [];
      for (let more = true; more;) {
        const answer = await this.gallery.ask(`${url}?${query({ limit: 100, offset: all.length })}`);
        all.push(...answer.hitl_details);
        more = answer.hitl_details.length && all.length < answer.total_entries;
      }
      return all;
    }

    /** Say why the ticks of the chosen review, which waits no longer, lead nowhere. */
    tellLost() {
      const now = this.details.find((detail) => nameOf(detail) === this.name);
      const why = now?.response_received ? `was answered ${byWhom(now)}` : now ? "waits no longer" : "was cleared, or has asked anew";
      this.tell(`“${this.detail.subject}” ${why} meanwhile. Your ticks were not sent.`, "bad");
    }

    goTo(detail) {
      this.choose(detail);
      this.tell("");
      this.show();
    }

    choose(detail) {
      this.detail = detail;
      this.keys = new Set(detail ? keysOf(detail) : []);
      const name = detail ? nameOf(detail) : "";
      if (name === this.name) return;
      this.name = name;
      this.since = performance.now();
      const draft = kept(() => JSON.parse(sessionStorage.getItem(`nanobanana ${name}`)));
      this.ticks = new Map(draft?.ticks);
      this.comment.value = draft?.comment || "";
      this.confirming.hidden = true;
    }

    keep() {
      if (!this.detail) return;
      const draft = JSON.stringify({ ticks: [...this.ticks], comment: this.comment.value });
      kept(() => sessionStorage.setItem(`nanobanana ${this.name}`, draft));
    }

    /** Tick those of the images that are asked about, or take the tick back (null). Returns whether any is. */
    decide(records, approved) {
      const keys = records.map(({ card }) => card.key).filter((key) => this.keys.has(key));
      for (const key of keys) {
        if (approved === null) this.ticks.delete(key);
        else this.ticks.set(key, approved);
      }
      this.confirming.hidden = true;
      if (keys.length) this.tell("");
      this.keep();
      this.show();
      return keys.length > 0;
    }

    show() {
      for (const record of this.gallery.order) {
        const { key } = record.card;
        const verdict = JSON.stringify([this.keys.has(key), this.ticks.get(key), this.decided.get(key)]);
        if (record.verdict !== verdict) this.showVerdict(record, record.node.querySelector(".nb-verdict"));
        record.verdict = verdict;
      }
      const { record, verdict } = this.gallery.lightbox;
      if (record) this.showVerdict(record, verdict);
      this.showBar();
    }

    /** The two ticks of an image that is asked about, or what was decided about it. */
    showVerdict(record, place) {
      const { card: { key }, node } = record;
      const tick = this.ticks.get(key);
      const [approved, words] = this.decided.get(key) || [];
      const asked = this.keys.has(key);
      [node.dataset.tick, node.dataset.decided, node.dataset.asked] = [tick ?? "", asked ? "" : approved ?? "", asked];
      place.classList.toggle("nb-ticks", asked);
      if (!asked) {
        const verdict = h("p", { class: "nb-decided", "data-approved": String(approved) }, icon(approved === null ? "warning" : approved ? "check" : "cross"), words);
        place.replaceChildren(words ? verdict : "");
        return;
      }
      const make = (name, verb, value) => {
        const decide = () => this.decide([record], this.ticks.get(key) === value ? null : value);
        const tabindex = place.closest(".nb-card") && record !== this.gallery.current ? -1 : 0;
        return button(`${verb} ${title(record.card)}`, decide, { tabindex, "data-tick": value + "" }, icon(name), h("span", null, verb));
      };
      if (!place.querySelector("button")) place.replaceChildren(make("check", "Approve", true), make("cross", "Reject", false));
      for (const one of place.querySelectorAll("button")) one.setAttribute("aria-pressed", String(tick) === one.dataset.tick);
    }

    /** How many images have the tick: true, false, or none at all (undefined). */
    ticked(tick) {
      return [...this.keys].filter((key) => this.ticks.get(key) === tick).length;
    }

    /** How many undecided images have no card here: nobody can have seen those. */
    unseen() {
      const here = new Set(this.gallery.order.map(({ card }) => card.key));
      return [...this.keys].filter((key) => !here.has(key) && !this.ticks.has(key)).length;
    }

    showBar() {
      const { gallery, detail, pending } = this;
      const unseen = this.unseen();
      const open = this.ticked(undefined);
      const shown = new Set(gallery.shown().map(({ card }) => card.key).filter((key) => this.keys.has(key))).size;
      const numbers = [`${this.ticked(true)} approved`, `${this.ticked(false)} rejected`, open && `${open} undecided`, unseen && `${unseen} not on this page`];
      gallery.bar.hidden = !detail && !this.outcome.textContent;
      this.subject.textContent = pending.length > 1 ? "" : detail?.subject || "";
      this.chooser.hidden = pending.length < 2;
      const names = pending.map(({ subject, task_instance: { task_id: task, map_index: at } }, index) =>
        h("option", null, `${index + 1} of ${pending.length}: ${subject} · ${task}${at >= 0 ? ` [${at}]` : ""}`));
      renew(this.chooser, names);
      this.chooser.selectedIndex = pending.indexOf(detail);
      this.numbers.textContent = detail ? numbers.filter(Boolean).join(" · ") : "";
      this.approveShown.textContent = `Approve ${shown} shown`;
      this.rejectShown.textContent = `Reject ${shown} shown`;
      this.approveShown.disabled = this.rejectShown.disabled = !shown;
      this.submitter.textContent = this.sending ? "Sending …" : "Submit review";
      this.submitter.disabled = Boolean(this.sending);
      this.doubt.textContent = unseen ? `${plural(unseen, "undecided image is", "undecided images are")} not on this page: decide where they can be seen.`
        : `${plural(open, "image is", "images are")} undecided and would be rejected.`;
      this.rejectOpen.hidden = unseen > 0;
      this.form.hidden = !unseen;
      if (detail) this.form.href = formOf(gallery.site, detail.task_instance);
      this.asking.hidden = !detail || !this.confirming.hidden;
    }

    /** What nobody decided would be rejected, and perhaps bought again: that takes a second look. */
    submit() {
      if (!this.ticked(undefined)) return this.send();
      this.confirming.hidden = false;
      this.showBar();
      return this.confirming.querySelector("button").focus();
    }

    /** Give the answer to Airflow, which knows who may and whether somebody was faster. */
    async send() {
      const { gallery, keys, detail } = this; // a poll may choose another one meanwhile
      const task = detail.task_instance;
      const approved = [...keys].filter((key) => this.ticks.get(key) === true);
      const option = !approved.length ? REJECT_ALL : approved.length === keys.size ? APPROVE_ALL : APPROVE_SOME;
      const body = { chosen_options: [option], params_input: { approved, comment: this.comment.value.trim() || null } };
      const url = `${gallery.site.api(task.dag_id, task.dag_run_id)}/taskInstances/${encodeURIComponent(task.task_id)}/${task.map_index}/hitlDetails`;
      this.sending = this.confirming.hidden = true;
      this.showBar();
      try {
        await this.settled(detail);
        await this.load();
        const now = this.details.find((one) => nameOf(one) === nameOf(detail));
        if (!now || !(now.response_received || waits(now))) throw new Refused(404, "");
        await ask(url, { method: "PATCH", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) });
        this.sent = nameOf(detail);
        kept(() => sessionStorage.removeItem(`nanobanana ${this.sent}`));
        this.tell(`Sent: ${approved.length} approved, ${keys.size - approved.length} rejected. The run goes on.`, "good");
      } catch (error) {
        this.tell(`Not sent: ${await this.refusal(error, detail)}`, "bad");
      }
      this.sending = false;
      this.showBar();
      await gallery.refresh();
    }

    /** Airflow up to 3.3 loses an answer that comes while the task is still going to sleep (apache/airflow#71580). */
    settled(detail) {
      const isOld = Date.now() - Date.parse(detail.created_at) > 60000; // clocks differ by less
      return new Promise((go) => setTimeout(go, isOld ? 0 : SETTLE_MS - (performance.now() - this.since)));
    }

    async refusal(error, detail) {
      const asked = (detail.assigned_users || []).map((user) => user.name || user.id).join(", ");
      if (error.status === 403) return `you are not asked. ${asked ? `This review asks ${asked}.` : "Your role may not answer it."}`;
      if (error.status === 404) return "the task asks no longer (it was cleared, or has ended).";
      if (error.status !== 409) return error.message;
      await this.load();
      const [, words] = [...this.decided.values()].find(([, , review]) => review === nameOf(detail)) || [];
      return `answered already${words ? `, ${words.replace(/^\w+ /, "")}` : ""}. Yours changed nothing.`;
    }

    tell(words, tone) {
      this.outcome.textContent = words;
      this.outcome.dataset.tone = tone;
    }
  }

  // --- ledger -------------------------------------------------------------------------------------------------------

  const LEDGER_HEADS = ["Image", "State", "Image task", "Paid", "Money", "A retry", "A clear"];

  /** The ledger of a task instance in words, fetched whenever it is opened. */
  const ledger = (gallery, taskId, mapIndex) => {
    const content = h("div");
    const load = async () => {
      const asked = { run_id: gallery.props.runId, task_id: taskId, map_index: mapIndex };
      try {
        const { summary, rows, source: read, skipped, more } = await gallery.ask(gallery.site.own("ledger", asked, gallery.props.dagId));
        const cells = rows.map((row) => [
          rowHead(row.label), h("td", { dir: "auto" }, row.state, row.why && muted(row.why)), h("td", null, h("code", null, row.image_task_id)),
          number(typeof row.paid_usd === "number" && money(row.paid_usd)), row.money, row.retry, row.clear,
        ]);
        content.replaceChildren(
          h("ul", { class: "nb-advice" }, summary.map((sentence) => h("li", null, sentence))),
          rows.length ? table(LEDGER_HEADS, cells) : "",
          more > 0 ? failure(`${plural(more, "more row is", "more rows are")} not shown here: the command "ledger --json" lists all.`) : "",
          muted([`Read from ${read}.`, ...(skipped || [])].join(" ")));
      } catch (error) {
        content.replaceChildren(failure(error.message));
      }
    };
    return h("details", { class: "nb-ledger", ontoggle: ({ target }) => target.open && load() },
      h("summary", null, "Ledger: what is paid, what a retry and a clear would do"), content);
  };

  // --- spend --------------------------------------------------------------------------------------------------------

  const SPEND_COUNTS = [["bought", "Bought"], ["shared", "Shared"], ["reused", "Reused"], ["refunded", "Refunded"], ["failed", "Failed"]];
  const MORE_COUNTS = [["missing", "Not in place"], ["booked", "In no manifest yet"], ["unpriced", "Price not known"]];
  const SPEND_TABLES = [["dag", "DAG"], ["model", "Model"], ["run", "DAG run"], ["day", "Day"]];

  const showSpend = async (root, { site }) => {
    root.replaceChildren(h("h1", null, "Image spend"), h("p", { class: "nb-status", role: "status" }, "Adding up …"));
    try {
      const data = await ask(site.own("spend", {}));
      showMonth(root, site, data, data.months[0]);
    } catch (error) {
      root.lastChild.replaceWith(failure(error.message));
    }
    root.dataset.ready = "spend";
  };

  const showMonth = (root, site, data, month) => {
    const { totals, tables } = data.month[month];
    const go = (name) => {
      showMonth(root, site, data, name);
      root.querySelector("[aria-pressed=true]").focus();
    };
    const words = (name) => new Date(`${name}-15`).toLocaleString("en", { month: "long", year: "numeric", timeZone: "UTC" });
    const tile = (value, name, more) => h("div", { class: `nb-tile ${more || ""}` }, h("b", null, value), h("span", null, name));
    const counts = [...SPEND_COUNTS, ...MORE_COUNTS.filter(([key]) => totals[key])];
    const listed = totals.of_which_listed_usd > 0 && muted(`${money(totals.of_which_listed_usd)} of it is estimated, at list price: no bill was seen.`);
    const notes = ["Days and months are those of the submit, in UTC.", `Read from ${plural(data.destinations, "destination")}, for the DAGs that you may read.`,
      data.written_at && `As of ${when(data.written_at)}.`, ...(data.skipped || [])];
    root.replaceChildren(
      h("header", { class: "nb-header nb-spend" }, h("h1", null, "Image spend"),
        h("div", { class: "nb-months", role: "group", "aria-label": "Month" }, data.months.map((name) =>
          button(words(name), () => go(name), { "aria-pressed": String(name === month) }))),
        h("a", { class: "nb-button", href: site.own("spend.csv", {}), download: "image-spend.csv" }, "CSV")),
      h("div", { class: "nb-totals" }, tile(money(totals.paid_usd), `Paid in ${words(month)}`, "nb-paid"),
        counts.map(([key, name]) => tile(count(totals[key]), name))),
      listed || "", dayBars(month, tables.day || []),
      ...SPEND_TABLES.map(([name, head]) => spendTable(site, name, head, tables[name] || [])), muted(notes.filter(Boolean).join(" ")));
  };

  /** A bar for each day of the month; the table of days says the same in numbers. */
  const dayBars = (month, rows) => {
    const paid = new Map(rows.map(({ key, paid_usd: usd }) => [key[0], usd]));
    const most = Math.max(...paid.values(), 0) || 1;
    const [year, ordinal] = month.split("-").map(Number);
    return h("div", { class: "nb-days", "aria-hidden": "true" }, Array.from({ length: new Date(year, ordinal, 0).getDate() }, (_, at) => {
      const day = `${month}-${String(at + 1).padStart(2, "0")}`;
      const bar = h("i");
      bar.style.height = `${(100 * (paid.get(day) || 0)) / most}%`;
      return h("span", { title: `${day}: ${money(paid.get(day) || 0)}` }, bar, h("small", null, at % 7 === 0 && at + 1));
    }));
  };

  const spendTable = (site, name, head, rows) => {
    const most = Math.max(...rows.map(({ paid_usd: usd }) => usd), 0) || 1;
    const cells = rows.map((row) => {
      const bar = h("i", { class: "nb-meter" });
      bar.style.width = `${(100 * row.paid_usd) / most}%`;
      const words = row.groups ? `${count(row.groups)} others` : row.key.filter(Boolean).join(" · ") || "not known";
      const link = name === "run" && !row.groups && row.key[1] && h("a", { href: site.view(...row.key) }, words);
      return [rowHead(link || words), number(money(row.paid_usd), bar), ...SPEND_COUNTS.map(([key]) => number(row[key] ? count(row[key]) : "–"))];
    });
    const heads = [head, "Paid", ...SPEND_COUNTS.map(([, words]) => words)];
    return h("section", { class: "nb-section" }, h("h2", null, `By ${head}`),
      rows.length ? table(heads, cells, { class: "nb-sums" }) : muted("Nothing in this month."));
  };

  // --- asset --------------------------------------------------------------------------------------------------------

  /** The galleries of what last made an asset; Airflow's own rights on the producing DAG decide about each. */
  const showAsset = async (root, { site, assetId }, galleries) => {
    const show = ({ timestamp, source_dag_id: dagId, source_run_id: runId, source_task_id: taskId, source_map_index: mapIndex }) => {
      const content = h("div", { class: "nb-event" });
      root.append(h("h2", null, when(timestamp)), muted(`${dagId} · ${runId}`), content);
      galleries.push(new Gallery(content, { site, dagId, runId, taskId, mapIndex, embedded: true }));
    };
    try {
      const url = `${site.root}/api/v2/assets/events?${query({ asset_id: assetId, order_by: "-timestamp", limit: EVENTS })}`;
      const events = (await ask(url)).asset_events.filter((event) => event.source_run_id); // others were made by no task
      if (root.isConnected) events.forEach(show);
      if (!events.length) root.append(h("p", { class: "nb-status" }, "No task has written this asset yet."));
    } catch (error) {
      root.append(failure(error.message));
    }
    root.dataset.ready = "asset";
  };

  // --- mounting -----------------------------------------------------------------------------------------------------

  /** Show what `props` ask for inside `element`; returns the function that ends it. */
  const mount = (element, props) => {
    const site = siteAt(props.base ?? new URL(document.baseURI).pathname);
    if (!document.querySelector('link[href*="nanobanana.css"]')) {
      document.head.append(h("link", { rel: "stylesheet", href: `${site.root}/nanobanana/static/nanobanana.css` }));
    }
    const root = h("div", { class: "nb" });
    element.replaceChildren(root);
    const galleries = [];
    const shown = { ...props, site };
    if (props.dagId && props.runId) galleries.push(new Gallery(root, shown));
    else if (props.assetId) showAsset(root, shown, galleries);
    else showSpend(root, shown);
    return () => {
      root.remove();
      for (const gallery of galleries) gallery.close();
    };
  };

  /** On our own page the theme is the one that was chosen in Airflow, else the system's. */
  const followTheme = () => {
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const follow = () => {
      const chosen = kept(() => localStorage.getItem("theme"));
      document.documentElement.dataset.nbTheme = chosen === "dark" || (chosen !== "light" && dark.matches) ? "dark" : "light";
    };
    follow();
    dark.addEventListener("change", follow);
    addEventListener("storage", follow);
  };

  const { React } = globalThis;
  if (React) {
    const NanoBanana = ({ dagId, runId, taskId, mapIndex, assetId }) => {
      const place = React.useRef(null);
      const props = { dagId, runId, taskId, mapIndex, assetId, embedded: true };
      React.useEffect(() => mount(place.current, props), [dagId, runId, taskId, mapIndex, assetId]);
      return React.createElement("div", { ref: place, className: "nb-host" });
    };
    // Airflow looks for the name of the entry first; the same module serves several entries.
    for (const name of ["Images", "Image spend", "AirflowPlugin"]) globalThis[name] = NanoBanana;
  } else {
    const pages = document.querySelectorAll("[data-nanobanana]");
    if (pages.length) followTheme();
    for (const page of pages) mount(page, { ...page.dataset });
  }
})();
