// The page of results: below each result the section that fits best and an excerpt of it, from search_texts.js. Of pages
// that Sphinx's search ranks alike, the first is the one that has the words most often.
const ROOM = 260;  // an excerpt's letters
const FORMULA = /^\\\(/, stems = new Map();
const tokens = text => text.match(/(?:\\\(.*?\\\)|\S)+/g) ?? [];  // a formula is one token
const textsOf = name => searchTexts[name] ?? [];
let asked = [];  // the words asked for: each as typed, and its stem

function stem(word) {
  if (!stems.has(word)) stems.set(word, new Stemmer().stemWord(word));
  return stems.get(word);
}

function hits(token) {  // for each word asked for: 2 if it stands in a token as typed, 1 by its stem; none in a formula
  const words = FORMULA.test(token) ? [] : splitQuery(token.toLowerCase());
  return asked.map(([typed, root]) => words.includes(typed) ? 2
    : Number(words.some(word => stem(word) === root || (root.length > 3 && word.startsWith(root)))));
}

const isHit = token => hits(token).some(Boolean);

function scoreOf(words) {
  const found = words.map(hits);
  return asked.reduce((sum, _, i) => sum + Math.max(0, ...found.map(each => each[i])), 0);
}

function best(sections) {  // the first paragraph with the highest score; code, where no paragraph has one
  let found = {score: 0};
  for (const kind of [2, 3]) {
    for (const section of sections) {
      const [anchor, title] = section, more = scoreOf(tokens(title)) / 4;
      for (const paragraph of section[kind]) {
        const words = tokens(paragraph), score = scoreOf(words) + more;
        if (score > found.score) found = {anchor, title, words, score, tag: kind === 2 ? "span" : "code"};
      }
    }
    if (found.score) return found;
  }
}

function cut(words) {  // about ROOM letters around the first hit
  let from = Math.max(0, words.findIndex(isHit)), to;
  for (let before = ROOM / 3; from > 0 && before > 0; from--) before -= words[from - 1].length + 1;
  let left = ROOM;
  for (to = from; to < words.length && left > 0; to++) left -= words[to].length + 1;
  return `${from ? "… " : ""}${words.slice(from, to).join(" ")}${to < words.length ? " …" : ""}`;
}

function append(parent, text) {  // marks the words asked for; a formula is for MathJax
  for (const part of text.split(/(\\\(.*?\\\)|[^\p{Letter}\p{Number}_]+)/u)) {
    const tag = FORMULA.test(part) ? "span" : isHit(part) ? "mark" : null;
    parent.append(tag ? Object.assign(document.createElement(tag), {textContent: part}) : part);
    if (tag === "span") parent.lastChild.className = "math";
  }
}

function excerpt(item) {
  const [name, anchor] = item.querySelector("a").getAttribute("href").split("#"), all = textsOf(name.replace(/\.html$/, ""));
  const found = best(all.filter(([id]) => !anchor || id === anchor));
  if (!found) return;
  const paragraph = Object.assign(item.appendChild(document.createElement("p")), {className: "context"});
  if (!anchor && found.anchor !== all[0][0]) {
    append(paragraph.appendChild(Object.assign(document.createElement("a"), {href: `${name}#${found.anchor}`})), found.title);
    paragraph.append(": ");
  }
  append(paragraph.appendChild(document.createElement(found.tag)), cut(found.words));
}

document.addEventListener("DOMContentLoaded", () => {  // before Sphinx's search, which begins at the same event
  const results = document.getElementById("search-results"), query = new URLSearchParams(location.search).get("q") ?? "";
  asked = splitQuery(query.toLowerCase()).filter(word => !stopwords.has(word)).map(word => [word, stem(word)]);
  Scorer.score = ([name, , , , score]) =>
    score + Math.log2(1 + textsOf(name).flatMap(([, , prose]) => prose.flatMap(tokens)).filter(isHit).length);
  new MutationObserver(changes => {
    const items = changes.flatMap(change => [...change.addedNodes]).filter(node => node.tagName === "LI");
    items.forEach(excerpt);
    if (items.length) window.MathJax?.startup?.promise.then(() => MathJax.typesetPromise(items));
  }).observe(results, {childList: true, subtree: true});
});
