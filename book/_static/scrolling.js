// A table that is wider than its box can be scrolled with the keyboard, and shows that it scrolls.

"use strict";

const SCROLLING = ".pst-scrollable-table-container";

/** Let the box be focused while something in it is hidden to the side. */
function mark(box) {
  if (box.scrollWidth > box.clientWidth) {
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", "Table that scrolls sideways");
  } else {
    for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
  }
}

document.addEventListener("DOMContentLoaded", () => {
  const observer = new ResizeObserver((entries) => entries.forEach(({ target }) => mark(target.closest(SCROLLING))));
  for (const box of document.querySelectorAll(SCROLLING)) {
    observer.observe(box);
    // Mathematics and fonts change the width of a table, but not of its box.
    observer.observe(box.firstElementChild);
  }
});
