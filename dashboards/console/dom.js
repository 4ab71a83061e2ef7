// Elements made of data. What comes from a node is only ever text or an attribute's value, never markup.

/** `h("a", {href, class, onclick, "aria-label"}, "text", child, [children])`; null and false are left out. */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  set(element, properties);
  element.append(...flat(children));
  return element;
}

export function set(element, properties) {
  for (const [name, value] of Object.entries(properties)) {
    if (name.startsWith("on")) element[name] = value;
    else if (value === null || value === undefined || value === false) element.removeAttribute(name);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
}

export function flat(children) {
  return children.flat(3).filter((child) => child !== null && child !== undefined && child !== false).map((child) =>
    child instanceof Node ? child : String(child),
  );
}

/** Put children in place of what is there, keeping the focus where the same `data-key` is there again. */
export function fill(element, ...children) {
  const held = element.contains(document.activeElement) ? document.activeElement.closest("[data-key]")?.dataset.key : null;
  element.replaceChildren(...flat(children));
  if (held) [...element.querySelectorAll("[data-key]")].find((one) => one.dataset.key === held)?.focus({ preventScroll: true });
}

export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

export const byId = (id) => document.getElementById(id);
