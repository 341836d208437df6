/* The search page: sections and terms of the glossary, ranked by MiniSearch, each with the words around what was found. */
(() => {
  "use strict";
  const SHOWN = 20, AROUND = 110; // results; letters of an excerpt on either side
  const SILENT = new Set("a an and are as at be by can do does for from how i in is it my of on or the to what when which why with you".split(" "));
  // Merge, merges, merged and merging are one word; so are rank and ranks.
  const stem = word => word.length > 3 ? word.replace(/(ing|ed|es|e|s)$/, "") : word;
  const processTerm = term => SILENT.has(term.toLowerCase()) ? null : stem(term.toLowerCase());

  const engine = new MiniSearch({
    idField: "url", fields: ["title", "page", "text", "code"], storeFields: ["title", "page", "text", "weight"], processTerm,
    searchOptions: {
      boost: { title: 6, page: 2, code: 0.5 }, combineWith: "AND", prefix: term => term.length > 3, fuzzy: term => term.length > 5 ? 0.3 : false,
      boostDocument: (url, term, { weight }) => weight,
    },
  });
  engine.addAll(window.BOOK_SECTIONS);

  const termsOf = text => MiniSearch.getDefault("tokenize")(text).map(processTerm).filter(Boolean);
  const holds = (text, terms) => { const there = new Set(termsOf(text)); return terms.every(term => there.has(term)); };

  /* A section whose heading holds all that was asked for comes first, and one that says it all beats one that says half. */
  function search(query) {
    const terms = termsOf(query);
    const all = engine.search(query), found = all.length ? all : engine.search(query, { combineWith: "OR" });
    return found.map(result => ({ ...result, score: result.score * (holds(result.title, terms) ? 3 : 1) })).sort((a, b) => b.score - a.score);
  }

  function excerpt(text, terms) {
    const words = terms.map(term => term.replace(/[^\p{L}\p{N}]/gu, "")).filter(Boolean);
    const first = words.length ? text.search(new RegExp(`(?<![\\p{L}\\p{N}])(${words.join("|")})`, "iu")) : -1;
    const from = first > AROUND ? text.indexOf(" ", first - AROUND) + 1 : 0;
    const piece = text.slice(from, from + 2 * AROUND), last = piece.lastIndexOf(" ");
    const shown = from + 2 * AROUND < text.length && last > 0 ? `${piece.slice(0, last)} …` : piece;
    const parts = words.length ? shown.split(new RegExp(`((?<![\\p{L}\\p{N}])(?:${words.join("|")})[\\p{L}\\p{N}]*)`, "iu")) : [shown];
    const line = document.createElement("p");
    line.append(from ? "… " : "", ...parts.map((part, at) => at % 2 ? Object.assign(document.createElement("mark"), { textContent: part }) : part));
    return line;
  }

  function item(result, root) {
    const link = Object.assign(document.createElement("a"), { href: root + result.id, textContent: result.title });
    const line = document.createElement("li"), page = document.createElement("span");
    page.textContent = result.page && ` in ${result.page}`;
    line.append(link, page, excerpt(result.text, result.terms.concat(result.queryTerms)));
    return line;
  }

  const place = document.getElementById("search-results"), input = document.querySelector(".bd-search-container form.bd-search input");
  const root = document.documentElement.dataset.content_root || "";

  function show(query) {
    const found = query.trim() ? search(query) : [];
    const said = document.createElement("p"), list = document.createElement("ul");
    said.setAttribute("role", "status");
    const count = found.length > SHOWN ? `The best ${SHOWN} of ${found.length} places` : found.length === 1 ? "One place" : `${found.length} places`;
    said.textContent = !query.trim() ? "" : found.length ? `${count} for “${query}”.`
      : `Nothing found for “${query}”. Try fewer words, or another one: the glossary has the words that this book uses.`;
    list.append(...found.slice(0, SHOWN).map(result => item(result, root)));
    place.replaceChildren(said, list);
  }

  window.bookSearch = search; // for tests
  input.value = new URLSearchParams(location.search).get("q") ?? "";
  input.focus();
  input.select();
  input.addEventListener("input", () => show(input.value));
  show(input.value);
})();
