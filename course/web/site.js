// What scrolls sideways can be scrolled by keyboard.
function reachable() {
  for (const box of document.querySelectorAll("div.math, .bd-article pre, .pst-scrollable-table-container"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
}
window.addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(reachable));
window.addEventListener("resize", reachable);
