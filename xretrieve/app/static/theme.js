// Light, dark, or as the system has it. Not a module: it runs before the page is painted.
"use strict";

(() => {
  const ORDER = ["auto", "light", "dark"];
  const root = document.documentElement;

  function stored() {
    try {
      const value = localStorage.getItem("xretrieve-theme");
      return ORDER.includes(value) ? value : "auto";
    } catch {
      return "auto"; // storage may be switched off
    }
  }

  function apply(theme) {
    root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" }[theme];
  }

  apply(stored());
  document.addEventListener("DOMContentLoaded", () => {
    apply(stored());
    document.getElementById("theme")?.addEventListener("click", () => {
      const next = ORDER[(ORDER.indexOf(root.dataset.theme) + 1) % ORDER.length];
      try {
        localStorage.setItem("xretrieve-theme", next);
      } catch {
        // it then lasts until the page is closed
      }
      apply(next);
    });
  });
})();
