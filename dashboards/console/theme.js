// Before the first paint, so that nobody is dazzled: the theme that was chosen here, else the system's.
try {
  const chosen = localStorage.getItem("tidegate.theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch {
  // Storage is off: the system's theme it is.
}
