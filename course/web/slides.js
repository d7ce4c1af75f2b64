// Divides the blocks of a page among slides of 1920 x 1080, so that each fits, and starts reveal.js.
"use strict";

const WIDE = 1800, HIGH = 868; // room for the blocks of a slide, between heading and footer
const GAP = { spacious: 40, roomy: 30, tight: 18, dense: 12 }; // between blocks, as in slides.css
const LARGEST = 2.2, SMALLEST = 1.6; // scale of a picture: the text in a figure has 15 px, so 1.6 shows it at 24 px

const heights = new WeakMap(); // of the blocks, in each density

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
  fitFormulas(source);
  fitPictures(source);
  for (let high = measure(source); high.length; high = measure(source)) high.forEach(halve);
  if ([...source.querySelectorAll(".code + .output")].filter(bringTail).length) measure(source);
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
  const blocks = [...group.querySelectorAll(".block")].map(element => ({ element, ...heights.get(element) }));
  const notes = notesOf(group);
  let waiting = ""; // what is said to a picture that leaves no room for it
  return bestDivision(blocks).reduce((slides, [from, to]) => {
    const part = blocks.slice(from, to), spoken = waiting + part.map(block => notes.get(block.element)).join("");
    waiting = "";
    if (slides.length && isStray(part)) {
      slides.at(-1).querySelector("aside").innerHTML += spoken;
      return slides;
    }
    if (isStray(part) && blocks[to]?.element.matches(".picture")) {
      waiting = spoken;
      return slides;
    }
    const body = make("div", `body ${density(part)}`, "", part.map(block => block.element));
    growPictures(part);
    growCode(part);
    const slide = make("section", "slide", "", [group.querySelector("h2").cloneNode(true), body, make("aside", "notes", spoken)]);
    if (part.some(block => block.element.matches(".number"))) slide.classList.add("title");
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

// Largest font size at which each formula is no wider than a slide.
function fitFormulas(source) {
  const probe = make("div", "block equation", "<span class=probe></span>"); // 100 ex wide
  source.append(probe);
  const unit = probe.firstChild.offsetWidth / 100 / parseFloat(getComputedStyle(probe).fontSize);
  probe.remove();
  for (const block of source.querySelectorAll(".equation")) {
    const formula = block.querySelector("mjx-container");
    const needed = parseFloat(formula.style.minWidth || formula.querySelector("svg").getAttribute("width")) * unit;
    block.style.setProperty("--most", `${WIDE / needed}px`);
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
  const room = (HIGH - height(part, density(part))) / pictures.length;
  for (const img of pictures) scalePicture(img, Math.min(img.most, img.scale + room / img.getAttribute("height")));
}

// Where a slide has room below, its code takes a larger size, as long as no line grows over its end.
function growCode(part) {
  const typed = part.map(block => block.element.querySelector("pre")).filter(Boolean), name = density(part);
  if (!["tight", "dense"].includes(name) || part.some(block => block.element.matches(".picture")) || !typed.length) return;
  const total = typed.reduce((sum, pre) => sum + heights.get(pre.parentElement)[name], 0);
  const letters = Math.max(...typed.map(pre => pre.style.getPropertyValue("--letters")));
  const size = Math.min(29, 24 * (1 + (HIGH - height(part, name)) / total), 1755 / letters / 0.61);
  for (const pre of typed) pre.style.fontSize = `${Math.max(24, size)}px`;
}

// Note the height in px of all blocks in each density, and return those that no slide can hold.
function measure(source) {
  const blocks = [...source.querySelectorAll(".block")];
  for (const block of blocks) heights.set(block, {});
  for (const name of Object.keys(GAP)) {
    source.className = name;
    for (const block of blocks) heights.get(block)[name] = block.getBoundingClientRect().height;
  }
  return blocks.filter(block => heights.get(block).dense > HIGH && parts(block).length > 1);
}

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

// Where code and its output have no room on one slide: let the end of the code, from an empty line on, go with the output.
function bringTail(output) {
  const code = output.previousElementSibling, over = height([code, output].map(block => heights.get(block)), "dense") - HIGH;
  const lines = parts(code), line = heights.get(code).dense / lines.length;
  const start = lines.findLastIndex((text, i) => !text && (i + 1) * line > over && i >= lines.length / 3);
  if (over <= 0 || start < 0) return false;
  const tail = code.cloneNode(true);
  code.querySelector("pre").innerHTML = lines.slice(0, start).join("\n");
  tail.querySelector("pre").innerHTML = lines.slice(start + 1).join("\n");
  tail.dataset.continued = "yes";
  code.after(tail);
  return true;
}

const height = (part, name) => part.reduce((sum, block) => sum + block[name], GAP[name] * (part.length - 1));
const density = part => Object.keys(GAP).find(name => height(part, name) <= HIGH) ?? "dense";

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
  const part = blocks.slice(from, to), name = density(part), used = height(part, name) / HIGH;
  if (used > 1 && part.length > 1) return Infinity;
  const last = part.at(-1).element, next = blocks[to]?.element, is = (element, kinds) => element?.matches(kinds);
  let cost = 9 + 6 * Math.max(0, 1 - used) ** 2 + ({ tight: 2, dense: 14 }[name] ?? 0);
  if (next && is(last, ".lead, .question")) cost += 16; // a sentence that leads to what the next slide shows
  if (is(next, ".output") && is(last, ".code")) cost += 5;
  if (is(next, ".picture") && is(last, ".text")) cost += 4;
  if (blocks.length > part.length && isStray(part)) cost += 9;
  if (is(part[0].element, ".output") && from > 0) cost += 3;
  return cost;
}
