// Filters for the scorecard. Without this file every claim is shown; with it the state of the
// filters stands in the address, as #verdict=open&scale=small, and #claim-id opens that claim.

"use strict";

const FILTERS = { verdict: "Verdict", source: "Source", scale: "Scale" };

/** Every claim with its section and the values that the filters compare. */
function readClaims() {
  return [...document.querySelectorAll(".claim-verdict")].map((line) => {
    const section = line.closest("section");
    return { section, data: line.dataset, group: section.parentElement.closest("section") };
  });
}

/** What a menu shows for a value: the heading of a source, and the value itself otherwise. */
function wordsFor(name, claim) {
  if (name !== "source") return claim.data[name];
  return claim.group.querySelector("h3").firstChild.textContent;
}

/** A label and a menu of all values that occur. */
function makeMenu(name, claims) {
  const menu = document.createElement("select");
  menu.id = `filter-${name}`;
  menu.add(new Option("all", ""));
  const options = new Map(claims.map((claim) => [claim.data[name], wordsFor(name, claim)]));
  options.forEach((words, value) => menu.add(new Option(words, value)));
  const label = document.createElement("label");
  label.append(FILTERS[name], menu);
  return { label, menu };
}

/** Show the claims that fit, the sources that have some, and how many there are. */
function show(claims, menus, count, asked) {
  const names = Object.keys(FILTERS);
  for (const claim of claims) {
    const fits = names.every((name) => ["", claim.data[name]].includes(menus[name].value));
    claim.section.hidden = !fits && claim.section.id !== asked;
  }
  for (const group of new Set(claims.map((claim) => claim.group))) {
    group.hidden = claims.every((claim) => claim.group !== group || claim.section.hidden);
  }
  const shown = claims.filter((claim) => !claim.section.hidden).length;
  count.textContent = `${shown} of ${claims.length} claims shown`;
}

/** Set the menus from the address; return the id of the claim that it asks for, if any. */
function readAddress(menus, claims) {
  const hash = decodeURIComponent(window.location.hash.slice(1));
  if (claims.some((claim) => claim.section.id === hash)) return hash;
  const wanted = new URLSearchParams(hash);
  for (const [name, menu] of Object.entries(menus)) {
    const value = wanted.get(name) || "";
    menu.value = [...menu.options].some((option) => option.value === value) ? value : "";
  }
  return "";
}

/** Write the menus into the address, without a step in the history. */
function writeAddress(menus) {
  const chosen = Object.entries(menus).filter(([, menu]) => menu.value);
  const hash = new URLSearchParams(chosen.map(([name, menu]) => [name, menu.value])).toString();
  const { pathname, search } = window.location;
  window.history.replaceState(null, "", pathname + search + (hash && `#${hash}`));
}

function setUp() {
  const claims = readClaims();
  const form = document.createElement("form");
  const count = document.createElement("output");
  const menus = {};
  for (const name of Object.keys(FILTERS)) {
    const { label, menu } = makeMenu(name, claims);
    menus[name] = menu;
    form.append(label);
  }
  const reset = document.createElement("button");
  reset.type = "reset";
  reset.textContent = "Show all";
  count.setAttribute("aria-live", "polite");
  form.append(reset, count);
  form.setAttribute("aria-label", "Filter the claims");

  const follow = () => {
    const asked = readAddress(menus, claims);
    show(claims, menus, count, asked);
    if (asked) document.getElementById(asked).scrollIntoView();
  };
  const choose = () => {
    writeAddress(menus);
    show(claims, menus, count, "");
  };
  form.addEventListener("change", choose);
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("reset", () => window.setTimeout(choose));
  window.addEventListener("hashchange", follow);
  document.getElementById("claim-filter").append(form);
  follow();
}

document.addEventListener("DOMContentLoaded", setUp);
