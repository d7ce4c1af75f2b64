// What scrolls sideways can be scrolled by keyboard.
function reachable() {
  const wide = "div.math, mjx-container, .bd-article pre, .pst-scrollable-table-container";
  for (const box of document.querySelectorAll(wide))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
window.addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(reachable));
window.addEventListener("resize", reachable);

// Paper shows what is folded, except code that draws. It is white, and 52 letters wide: wider formulas get smaller.
let opened = [], shrunk = [], theme = null;
window.addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll(".bd-article details:not([open])")];
  for (const details of opened) details.open = true;
  for (const box of document.querySelectorAll("div.math mjx-container")) {
    const share = 52 * parseFloat(getComputedStyle(box).fontSize) / box.scrollWidth;
    if (share < 1) { box.style.fontSize = `${100 * share}%`; shrunk.push(box); }
  }
  theme = document.documentElement.dataset.theme;
  document.documentElement.dataset.theme = "light";
});
window.addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
  for (const box of shrunk.splice(0)) box.style.fontSize = "";
  document.documentElement.dataset.theme = theme;
});
