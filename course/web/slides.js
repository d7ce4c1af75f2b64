// Divides the blocks of a page among slides of 1920 x 1080, so that each fits, and starts reveal.js.
"use strict";

const WIDE = 1840, HIGH = 868; // room for the blocks of a slide, between heading and footer
const LEVELS = [ // from the largest: sizes of text, code, tables and formulas, space around them, heights of their lines
  { text: 52, code: 36, table: 42, formula: 68, gap: 46, inside: 16, line: 1.35, lines: 1.32 },
  { text: 48, code: 35, table: 40, formula: 62, gap: 42, inside: 16, line: 1.35, lines: 1.32 },
  { text: 44, code: 34, table: 38, formula: 56, gap: 36, inside: 14, line: 1.35, lines: 1.32 },
  { text: 41, code: 32, table: 35, formula: 50, gap: 30, inside: 14, line: 1.35, lines: 1.32 },
  { text: 38, code: 29, table: 32, formula: 44, gap: 24, inside: 12, line: 1.3, lines: 1.3 },
  { text: 36, code: 26, table: 29, formula: 42, gap: 18, inside: 10, line: 1.28, lines: 1.27 },
  { text: 34, code: 24, table: 27.5, formula: 42, gap: 12, inside: 6, line: 1.22, lines: 1.17 }];
const CROWDED = new Map([[LEVELS[5], 2], [LEVELS[6], 14]]); // what a slide costs at the smallest levels
const WITH_PICTURE = LEVELS.slice(3), WITH_CODE = LEVELS.slice(2); // text is not much larger than what it stands beside
const MOST = { code: 34, formula: 68 }; // to which they grow where a slide has room
const LARGEST = 2.2, SMALLEST = 1.6; // scale of a picture: the text in a figure has 15 px, so 1.6 shows it at 24 px

const heights = new WeakMap(); // of the blocks, at each level

window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["$$", "$$"], ["\\[", "\\]"]] },
  svg: { fontCache: "none" },
  options: { enableMenu: false },
  startup: { typeset: false, ready() {
    MathJax._.core.MmlTree.MmlNodes.math.MmlMath.defaults.scriptminsize = "0.6em"; // of indices to indices: at least 24 px
    MathJax.startup.defaultReady();
    MathJax.startup.promise.then(start);
  } },
};

async function start() {
  const source = document.getElementById("source");
  if (new URLSearchParams(location.search).has("receiver")) // a preview in the speaker view
    source.querySelectorAll("aside").forEach(aside => aside.remove());
  await document.fonts.ready;
  await MathJax.typesetPromise([source]);
  source.querySelectorAll("aside mjx-assistive-mml").forEach(twin => twin.remove()); // shown twice by the speaker view
  fitFormulas(source);
  fitPictures(source);
  for (let high = tooHigh(source); high.length; high = tooHigh(source)) high.forEach(halve);
  if ([...source.querySelectorAll(".code + .output")].filter(bringTail).length) tooHigh(source);
  measure(source);
  const columns = [...source.children].map(column => [...column.children].flatMap(slidesOf));
  const slides = columns.flat();
  slides.forEach((slide, i) => slide.append(make("footer", "", `<span>${document.title}</span><span>${i + 1} / ${slides.length}</span>`)));
  document.querySelector(".slides").append(...columns.map(column => column.length > 1 ? make("section", "stack", "", column) : column[0]));
  source.remove();
  Reveal.initialize({ width: 1920, height: 1080, margin: 0, center: false, hash: true, controls: false, display: "flex",
    transition: "none", scrollActivationWidth: null, pdfSeparateFragments: false,
    pdfMaxPagesPerSlide: 1, plugins: [RevealNotes] });
}

function make(name, kind, html, children = []) {
  const made = document.createElement(name);
  made.className = kind;
  made.innerHTML = html;
  made.append(...children);
  return made;
}

// The slides of one group of blocks.
function slidesOf(group) {
  const blocks = [...group.querySelectorAll(".block")].map(element => ({ element, heights: heights.get(element) }));
  const notes = notesOf(group);
  let waiting = ""; // what is said to a picture that leaves no room for it
  return bestDivision(blocks).reduce((slides, [from, to]) => {
    const part = blocks.slice(from, to), { element } = part[0], stray = isStray(part);
    if (stray && slides.length) {
      slides.at(-1).querySelector("aside").innerHTML += all(element, notes.get(element));
      return slides;
    }
    if (stray && blocks[to]?.element.matches(".picture")) {
      waiting = all(element, notes.get(element));
      return slides;
    }
    const spoken = waiting + part.map(block => notes.get(block.element)).join("");
    waiting = "";
    const body = make("div", "body", "", part.map(block => block.element));
    setLevel(body, levelOf(part));
    growPictures(part);
    growType(part);
    const slide = make("section", "slide", "", [group.querySelector("h2").cloneNode(true), body, make("aside", "notes", spoken)]);
    if (holds(part, ".number")) slide.classList.add("title");
    if (part[0].element.dataset.continued) slide.querySelector("h2").append(" (continued)");
    if (slides.length) slide.querySelectorAll("h2 [id]").forEach(address => address.remove());
    return [...slides, slide];
  }, []);
}

// What is said to each block: the asides in front of it, and to the last one those behind it.
function notesOf(group) {
  const notes = new Map();
  let waiting = "", last = null;
  for (const element of group.children) {
    if (element.matches("aside")) waiting += element.innerHTML;
    if (!element.matches(".block")) continue;
    last = element;
    notes.set(element, waiting);
    waiting = "";
  }
  notes.set(last, (notes.get(last) ?? "") + waiting);
  return notes;
}

// The whole paragraph of a block: its note, with what the block shows in place of each "…".
function all(block, note) {
  if (!note) return block.innerHTML;
  const whole = make("div", "", note), runs = block.querySelectorAll(":scope > p > span"), gaps = whole.querySelectorAll("i");
  runs.forEach((run, i) => { gaps[i].outerHTML = run.innerHTML; });
  return whole.innerHTML;
}

// Largest font size at which each formula is no wider than a slide. Some fonts round an ex to pixels, by up to 3 %.
function fitFormulas(source) {
  const probe = make("div", "block equation", "<span class=probe></span>"); // 100 ex wide
  source.append(probe);
  const sizes = Array.from({ length: 241 }, (_, i) => 10 + i / 4).reverse(), ex = new Map(sizes.map(size => {
    probe.style.fontSize = `${size}px`;
    return [size, probe.firstChild.getBoundingClientRect().width / 100];
  }));
  probe.remove();
  for (const block of source.querySelectorAll(".equation")) {
    const formula = block.querySelector("mjx-container");
    const needed = parseFloat(formula.style.minWidth || formula.querySelector("svg").getAttribute("width")); // in ex
    block.style.setProperty("--most", `${sizes.find(size => needed * ex.get(size) <= WIDE) ?? sizes.at(-1)}px`);
  }
}

// The least size of each picture, and how large it may grow.
function fitPictures(source) {
  const images = [...source.querySelectorAll("img")];
  const captions = images.map(img => img.previousElementSibling ? img.previousElementSibling.offsetHeight + 8 : 0);
  images.forEach((img, i) => {
    img.most = Math.min(WIDE / img.getAttribute("width"), (HIGH - captions[i]) / img.getAttribute("height"), LARGEST);
    scalePicture(img, Math.min(img.most, SMALLEST));
  });
}

function scalePicture(img, scale) {
  img.scale = scale;
  img.style.width = `${img.getAttribute("width") * scale}px`;
  img.style.height = `${img.getAttribute("height") * scale}px`;
}

function growPictures(part) {
  const pictures = part.map(block => block.element.querySelector("img")).filter(Boolean);
  if (!pictures.length) return;
  const room = (HIGH - height(part, levelOf(part))) / pictures.length;
  for (const img of pictures) scalePicture(img, Math.min(img.most, img.scale + room / img.getAttribute("height")));
}

// Font size at which the longest line of a block of code or of a formula is as wide as a slide.
const widest = block => block.matches(".equation") ? parseFloat(block.style.getPropertyValue("--most"))
  : 1805 / block.querySelector("pre").style.getPropertyValue("--letters") / 0.603;

// Where a slide without pictures has room below, its code takes a larger size, and then its formulas.
function growType(part) {
  if (holds(part, ".picture")) return;
  const level = levelOf(part);
  let room = HIGH - height(part, level);
  for (const [name, kind] of [["code", ".code, .output"], ["formula", ".equation"]]) {
    const able = part.filter(block => block.element.matches(kind) && widest(block.element) > level[name]);
    const total = able.reduce((sum, block) => sum + block.heights.get(level), 0);
    for (const block of able) {
      const size = Math.min(level[name] * (1 + room / total), Math.max(MOST[name], level[name]), widest(block.element));
      block.element.style.setProperty(`--${name}`, `${size}px`);
    }
    room -= able.reduce((sum, block) => sum + block.heights.get(level)
      * (parseFloat(block.element.style.getPropertyValue(`--${name}`)) / level[name] - 1), 0);
  }
}

function setLevel(element, level) {
  for (const [name, size] of Object.entries(level))
    element.style.setProperty(`--${name}`, name.startsWith("line") ? size : `${size}px`);
}

// Note the height in px of all blocks at the smallest level, and return those that no slide can hold.
function tooHigh(source) {
  const blocks = [...source.querySelectorAll(".block")], level = LEVELS.at(-1);
  setLevel(source, level);
  for (const block of blocks) heights.set(block, new Map([[level, block.getBoundingClientRect().height]]));
  return blocks.filter(block => heights.get(block).get(level) > HIGH && parts(block).length > 1);
}

// Note the height of all blocks at the other levels. That of code follows: so it is not laid out, which takes long.
function measure(source) {
  const blocks = [...source.querySelectorAll(".block")], smallest = LEVELS.at(-1);
  const isTyped = block => block.matches(".code, .output");
  const line = (block, level) => Math.max(24, Math.min(level.code, widest(block))) * level.lines;
  source.classList.add("measured");
  for (const level of LEVELS.slice(0, -1)) {
    setLevel(source, level);
    for (const block of blocks) {
      const noted = heights.get(block), inside = noted.get(smallest) - 2 * smallest.inside;
      noted.set(level, isTyped(block) ? inside * line(block, level) / line(block, smallest) + 2 * level.inside + 1
        : block.getBoundingClientRect().height);
    }
  }
}

const parts = block => block.querySelector("pre") ? block.querySelector("pre").innerHTML.split("\n")
  : [...block.querySelectorAll("tbody > tr, li")];

function type(block, lines) {
  const pre = block.querySelector("pre");
  pre.innerHTML = lines.join("\n");
  pre.style.setProperty("--letters", Math.max(...pre.textContent.split("\n").map(line => line.length)));
}

// Replace a block that no slide can hold by two: of lines, of rows or of items.
function halve(block) {
  const second = block.cloneNode(true), lines = parts(block), middle = Math.ceil(lines.length / 2);
  if (block.querySelector("pre")) {
    type(block, lines.slice(0, middle));
    type(second, lines.slice(middle));
  } else {
    parts(block).slice(middle).forEach(part => part.remove());
    parts(second).slice(0, middle).forEach(part => part.remove());
    second.querySelectorAll("ol").forEach(list => { list.start = middle + 1; });
  }
  second.dataset.continued = "yes";
  block.after(second);
}

// Where code and its output have no room on one slide: let the end of the code go with the output, from an empty
// line on or else from a statement at the margin.
function bringTail(output) {
  const code = output.previousElementSibling, part = [code, output].map(block => ({ heights: heights.get(block) }));
  const over = height(part, LEVELS.at(-1)) - HIGH, lines = parts(code), line = part[0].heights.get(LEVELS.at(-1)) / lines.length;
  const last = kind => code.textContent.trimEnd().split("\n").findLastIndex((text, i) =>
    kind.test(text) && (i + 1) * line > over && i >= lines.length / 3);
  const blank = last(/^$/), start = blank < 0 ? last(/^(?!\s|[)\]}]|el|except|finally)/) : blank;
  if (over <= 0 || start < 0) return false;
  const tail = code.cloneNode(true);
  type(code, lines.slice(0, start));
  type(tail, lines.slice(start + !lines[start]));
  tail.dataset.continued = "yes";
  code.after(tail);
  return true;
}

const height = (part, level) => part.reduce((sum, block) => sum + block.heights.get(level), level.gap * (part.length - 1));
const holds = (part, kinds) => part.some(block => block.element.matches(kinds));

// The largest level at which the blocks fit on a slide.
function levelOf(part) {
  const levels = holds(part, ".picture") ? WITH_PICTURE : holds(part, ".code, .output") ? WITH_CODE : LEVELS;
  return levels.find(level => height(part, level) <= HIGH) ?? LEVELS.at(-1);
}

// The division of blocks into slides with the least cost, as pairs of positions.
function bestDivision(blocks) {
  const best = [{ cost: 0, pairs: [] }];
  for (let to = 1; to <= blocks.length; to++) {
    for (let from = 0; from < to; from++) {
      const cost = best[from].cost + costOf(blocks, from, to);
      if (!best[to] || cost < best[to].cost) best[to] = { cost, pairs: [...best[from].pairs, [from, to]] };
    }
  }
  return best[blocks.length].pairs;
}

// One remark, with no key sentence: it is no slide of its own, but is said to the slide before.
const isStray = part => part.length === 1 && part[0].element.matches(".text:not(.lead)") && !part[0].element.querySelector("strong");

function costOf(blocks, from, to) {
  const part = blocks.slice(from, to), level = levelOf(part), used = height(part, level) / HIGH;
  if (used > 1 && part.length > 1) return Infinity;
  const last = part.at(-1).element, next = blocks[to]?.element, is = (element, kinds) => element?.matches(kinds);
  let cost = 9 + 20 * Math.max(0, 1 - used) ** 2 + (CROWDED.get(level) ?? 0);
  if (next && is(last, ".lead, .question")) cost += 16; // a sentence that leads to what the next slide shows
  if (is(next, ".output") && is(last, ".code")) cost += 5;
  if (is(next, ".picture") && is(last, ".text")) cost += 4;
  if (blocks.length > part.length && isStray(part)) cost += 9;
  if (is(part[0].element, ".output") && from > 0) cost += part.length > 1 || used > 0.8 ? 3 : 12;
  return cost;
}
