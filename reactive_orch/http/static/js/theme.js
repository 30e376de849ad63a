// Before the first paint, so that nothing flashes: auto (what the system says), light or dark.

try {
  document.documentElement.dataset.theme = localStorage.getItem("theme") ?? "auto";
} catch {
  document.documentElement.dataset.theme = "auto"; // the viewer lets no page remember anything
}
