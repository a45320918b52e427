// Loaded before first paint, not as a module, so that the chosen theme never flashes. Everything else is a module.
"use strict";
try {
  const chosen = localStorage.getItem("shoal.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is blocked: the system's theme applies.
}
