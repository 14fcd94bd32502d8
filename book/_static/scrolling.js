// What is wider than its box shows that it goes on, and can be scrolled with the keyboard.

"use strict";

// Code and formulas take the focus already.
const TABLE = ".pst-scrollable-table-container";
const PICTURE = ".wide-picture";
// A table shows a shadow behind its text instead.
const FADING = `${PICTURE}, div.math > mjx-container, pre`;

/** Let a box be focused while something in it is hidden to the side. */
function mark(box) {
  if (box.scrollWidth > box.clientWidth) {
    box.tabIndex = 0;
    box.setAttribute("role", "group");
    box.setAttribute("aria-label", `${box.matches(TABLE) ? "Table" : "Picture"} that scrolls sideways`);
  } else {
    for (const name of ["tabindex", "role", "aria-label"]) box.removeAttribute(name);
  }
}

/** Let what is wider than its box fade at the right edge, until it is scrolled to its end. */
function fade(box) {
  box.classList.toggle("continues", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
}

function update(part) {
  const box = part.closest(`${TABLE}, ${PICTURE}`);
  if (box) mark(box);
  const fading = part.closest(FADING) ?? part.querySelector(FADING);
  if (fading) fade(fading);
}

document.addEventListener("DOMContentLoaded", () => {
  const observer = new ResizeObserver((entries) => entries.forEach(({ target }) => update(target)));
  for (const box of document.querySelectorAll(`${TABLE}, ${PICTURE}`)) {
    observer.observe(box);
    // Mathematics, fonts and pictures change the width of what is inside, but not of the box.
    observer.observe(box.firstElementChild);
  }
  for (const box of document.querySelectorAll("div.math, pre")) observer.observe(box);
  const scrolled = ({ target }) => target instanceof Element && target.matches(FADING) && fade(target);
  document.addEventListener("scroll", scrolled, { capture: true, passive: true });
});
