// ipywidgets 8.1 writes a slider's name beside its handle, where a screen reader does not look for it. This extension
// of JupyterLab copies it to the handle. It is written as JupyterLab loads extensions, so that nothing has to be built.
(() => {
  function nameHandles() {
    for (const handle of document.querySelectorAll(".widget-slider .noUi-handle:not([aria-label])")) {
      const label = handle.closest(".widget-slider").querySelector(".widget-label").textContent;
      if (label) {
        handle.setAttribute("aria-label", label);
      }
    }
  }

  const plugin = {
    id: "slider-names:plugin",
    autoStart: true,
    activate: () => new MutationObserver(nameHandles).observe(document.body, { childList: true, subtree: true }),
  };
  (window._JUPYTERLAB ??= {})["slider-names"] = {
    init: () => {},
    get: async () => () => ({ default: plugin, __esModule: true }),
  };
})();
