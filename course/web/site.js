// What scrolls sideways can be scrolled by keyboard.
function reachable() {
  const wide = "div.math, mjx-container, .bd-article pre, .pst-scrollable-table-container";
  for (const box of document.querySelectorAll(wide))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
window.addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(reachable));
window.addEventListener("resize", reachable);
