// Divides the blocks of a page among slides of 1920 x 1080, so that each fits, and starts reveal.js.
"use strict";

const WIDE = 1800, HIGH = 868; // room for the blocks of a slide, between heading and footer
const GAP = { roomy: 30, tight: 18 }; // between blocks, as in slides.css
const LARGEST = 2.2, SMALLEST = 1.6; // scale of a picture: the text in a figure has 15 px, so 1.6 shows it at 24 px
const LEAST_FORMULA = 34; // px; a narrower slide would need a smaller one

window.MathJax = {
  tex: { inlineMath: [["\\(", "\\)"]], displayMath: [["$$", "$$"], ["\\[", "\\]"]] },
  svg: { fontCache: "none" },
  options: { enableMenu: false },
  startup: { typeset: false, ready() { MathJax.startup.defaultReady(); MathJax.startup.promise.then(start); } },
};

async function start() {
  const source = document.getElementById("source");
  if (new URLSearchParams(location.search).has("receiver")) // a preview in the speaker view
    source.querySelectorAll("aside").forEach(aside => aside.remove());
  await document.fonts.ready;
  await MathJax.typesetPromise([source]);
  source.querySelectorAll("aside mjx-assistive-mml").forEach(twin => twin.remove()); // shown twice by the speaker view
  const columns = [...source.children].map(column => [...column.children].flatMap(slidesOf));
  const slides = columns.flat();
  slides.forEach((slide, i) => slide.append(make("footer", "", `<span>${document.title}</span><span>${i + 1} / ${slides.length}</span>`)));
  document.querySelector(".slides").append(...columns.map(column => column.length > 1 ? make("section", "stack", "", column) : column[0]));
  source.remove();
  Reveal.initialize({ width: 1920, height: 1080, margin: 0, center: false, hash: true, controls: false, display: "flex",
    transition: "none", scrollActivationWidth: null, pdfSeparateFragments: false, plugins: [RevealNotes] });
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
  group.querySelectorAll(".equation").forEach(fitFormula);
  group.querySelectorAll("img").forEach(fitPicture);
  for (let block; (block = [...group.querySelectorAll(".block")].find(isTooHigh));) halve(block);
  const blocks = [...group.querySelectorAll(".block")].map(measured), notes = notesOf(group);
  return bestDivision(blocks).map(([from, to], number) => {
    const part = blocks.slice(from, to), body = make("div", `body ${density(part)}`, "", part.map(block => block.element));
    growPictures(part);
    const slide = make("section", "slide", "", [group.querySelector("h2").cloneNode(true), body]);
    if (part.some(block => block.element.matches(".number"))) slide.classList.add("title");
    if (part[0]?.element.dataset.continued) slide.querySelector("h2").append(" (continued)");
    if (group.id && number === 0) slide.id = group.id;
    const spoken = part.map(block => notes.get(block.element) ?? "").join("");
    if (spoken) slide.append(make("aside", "notes", spoken));
    return slide;
  });
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

function fitFormula(block) {
  const formula = block.querySelector("mjx-container"), probe = make("span", "probe", "");
  block.append(probe); // 100 ex wide
  const needed = parseFloat(formula.style.minWidth || formula.querySelector("svg").getAttribute("width")) * probe.offsetWidth / 100;
  probe.remove();
  if (needed > WIDE) block.style.fontSize = `${parseFloat(getComputedStyle(block).fontSize) * WIDE / needed}px`;
}

function fitPicture(img) {
  const [wide, high] = [img.getAttribute("width"), img.getAttribute("height")].map(Number);
  const caption = img.previousElementSibling ? img.previousElementSibling.offsetHeight + 8 : 0;
  img.most = Math.min(WIDE / wide, (HIGH - caption) / high, LARGEST);
  scalePicture(img, Math.min(img.most, SMALLEST));
}

function scalePicture(img, scale) {
  img.scale = scale;
  img.style.width = `${img.getAttribute("width") * scale}px`;
  img.style.height = `${img.getAttribute("height") * scale}px`;
}

function growPictures(part) {
  const pictures = part.map(block => block.element.querySelector("img")).filter(Boolean);
  if (!pictures.length) return;
  const room = (HIGH - height(part, density(part))) / pictures.length;
  for (const img of pictures) scalePicture(img, Math.min(img.most, img.scale + room / img.getAttribute("height")));
}

// Height in px of an element in both densities.
function measured(element) {
  const root = document.getElementById("source"), sizes = {};
  for (const name of ["roomy", "tight"]) {
    root.className = name;
    sizes[name] = element.getBoundingClientRect().height;
  }
  return { element, ...sizes };
}

const isTooHigh = element => measured(element).tight > HIGH && parts(element).length > 1;
const parts = block => block.querySelector("pre") ? block.querySelector("pre").innerHTML.split("\n")
  : [...block.querySelectorAll("tbody > tr, li")];

// Replace a block that no slide can hold by two: of lines, of rows or of items.
function halve(block) {
  const second = block.cloneNode(true), middle = Math.ceil(parts(block).length / 2), pre = block.querySelector("pre");
  if (pre) {
    const lines = parts(block);
    pre.innerHTML = lines.slice(0, middle).join("\n");
    second.querySelector("pre").innerHTML = lines.slice(middle).join("\n");
  } else {
    parts(block).slice(middle).forEach(part => part.remove());
    parts(second).slice(0, middle).forEach(part => part.remove());
    second.querySelectorAll("ol").forEach(list => { list.start = middle + 1; });
  }
  second.dataset.continued = "yes";
  block.after(second);
}

const height = (part, name) => part.reduce((sum, block) => sum + block[name], GAP[name] * (part.length - 1));
const density = part => height(part, "roomy") <= HIGH ? "roomy" : "tight";

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

function costOf(blocks, from, to) {
  const part = blocks.slice(from, to), name = density(part), used = height(part, name) / HIGH;
  if (used > 1 && part.length > 1) return Infinity;
  const last = part.at(-1).element, next = blocks[to]?.element, is = (element, kinds) => element?.matches(kinds);
  let cost = 10 + 6 * Math.max(0, 1 - used) ** 2 + (name === "tight" ? 2 : 0);
  if (next && is(last, ".lead, .question")) cost += 12; // a sentence that leads to what the next slide shows
  if (is(next, ".output") && is(last, ".code")) cost += 5;
  if (is(next, ".picture") && is(last, ".text")) cost += 4;
  if (blocks.length > part.length && part.every(block => is(block.element, ".text")) && used < 0.4) cost += 9; // stray
  return cost;
}
