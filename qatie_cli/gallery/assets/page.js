"use strict";
(() => {
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  const [leftLabel, rightLabel] = data.labels;
  const FIRST_CARDS = 60; // built before the browser may paint
  const MORE_CARDS = 400; // built at a time afterwards: each time all rows are laid out anew

  // --- the data ------------------------------------------------------------------------------------------------

  const encoded = (name) => name.split("/").map(encodeURIComponent).join("/");
  const photos = data.photos.map(([key, name, width, height, left, right, figures, provenance, ...notes], index) => ({
    key, name, width, height, figures, provenance, notes, index,
    left: left === 0 ? data.bases[0] + encoded(name) : left,
    right: right === 0 ? data.bases[1] + encoded(name) : right,
  }));

  const preview = (photo, side, small) => `${data.folder}/${photo.key}-${side}${small ? "-small" : ""}.webp`;

  function inWords(photo, index) {
    const [, digits, unit] = data.figures[index];
    const value = photo.figures[index];
    if (value === null) return "";
    if (unit === "time") return new Date(value * 1000).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });
    return `${value.toFixed(digits)}${unit && (unit === "%" ? "" : " ") + unit}`;
  }

  // --- a pair of pictures: the range input is the truth, the pictures follow it ------------------------------------

  function split(pair, value) {
    const range = pair.querySelector("input");
    range.value = value;
    pair.style.setProperty("--split", `${range.value}%`);
    pair.classList.toggle("all-left", range.value > 85);
    pair.classList.toggle("all-right", range.value < 15);
    range.setAttribute("aria-valuetext", `${range.value}% ${leftLabel}, ${100 - range.value}% ${rightLabel}`);
  }

  function newPair(onTap) {
    const pair = find("pair").content.firstElementChild.cloneNode(true);
    pair.querySelector("input").addEventListener("input", (event) => split(pair, event.target.value));
    let from = null;
    let moved = false;
    const follow = (event) => {
      const box = pair.getBoundingClientRect();
      split(pair, Math.round(((event.clientX - box.left) / box.width) * 100));
    };
    pair.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      [from, moved] = [event.clientX, false];
      pair.setPointerCapture(event.pointerId);
    });
    pair.addEventListener("pointermove", (event) => {
      if (from === null) return;
      moved ||= Math.abs(event.clientX - from) > 3;
      if (moved) follow(event);
    });
    pair.addEventListener("pointerup", (event) => {
      if (from !== null && !moved) onTap ? onTap() : follow(event);
      from = null;
    });
    pair.addEventListener("pointercancel", () => { from = null; });
    pair.addEventListener("dragstart", (event) => event.preventDefault());
    return pair;
  }

  function fill(pair, photo, small) {
    pair.style.setProperty("--shape", photo.width / photo.height);
    for (const [side, name, label] of [["left", data.sides[0], leftLabel], ["right", data.sides[1], rightLabel]]) {
      const picture = pair.querySelector(`.${side}`);
      picture.src = preview(photo, name, small);
      picture.alt = `${photo.name}, ${label}`;
    }
    const difference = pair.querySelector(".difference");
    if (difference) {
      difference.src = preview(photo, "difference", small);
      difference.alt = `${photo.name}, difference ${data.amplified} times amplified; black where both are equal`;
    }
    pair.querySelector("input").setAttribute("aria-label", `Divider between ${leftLabel} and ${rightLabel}: ${photo.name}`);
    split(pair, 50);
  }

  // --- the grid ------------------------------------------------------------------------------------------------

  const list = find("photos");
  const cards = new Map();
  let shown = photos;
  let building = 0;

  function card(photo) {
    if (!cards.has(photo)) {
      const item = find("card").content.firstElementChild.cloneNode(true);
      const pair = newPair(() => open(photo));
      fill(pair, photo, true);
      item.prepend(pair);
      item.style.setProperty("--shape", photo.width / photo.height);
      const name = item.querySelector(".open");
      name.textContent = photo.name.split("/").at(-1);
      name.title = photo.name;
      name.setAttribute("aria-label", photo.name);
      name.addEventListener("click", () => open(photo));
      item.querySelector(".brief").textContent = `${data.figures[0][0]} ${inWords(photo, 0)}`;
      cards.set(photo, item);
    }
    return cards.get(photo);
  }

  function build() {
    const mine = ++building;
    list.replaceChildren();
    const from = (start, count) => {
      if (mine !== building) return;
      list.append(...shown.slice(start, start + count).map(card));
      if (start + count < shown.length) setTimeout(from, 15, start + count, MORE_CARDS);
    };
    from(0, FIRST_CARDS);
  }

  function choose() {
    const words = find("find").value.trim().toLocaleLowerCase();
    const [, figure, descending] = data.orders[find("order").value];
    shown = photos.filter((photo) => photo.name.toLocaleLowerCase().includes(words));
    if (figure !== null) {
      const value = (photo) => photo.figures[figure] ?? (descending ? -Infinity : Infinity);
      const sign = descending ? -1 : 1;
      shown.sort((a, b) => sign * (value(a) - value(b)) || a.index - b.index);
    }
    const all = photos.length.toLocaleString();
    find("count").textContent = words ? `${shown.length.toLocaleString()} of ${all} shown` : "";
    find("none").hidden = shown.length > 0;
    find("none").textContent = photos.length ? "No photo has that in its name." : "There are no photos yet.";
    find("show-single").disabled = shown.length === 0;
    build();
  }

  data.orders.forEach(([label], index) => find("order").add(new Option(label, index)));
  find("order").addEventListener("change", choose);
  find("find").addEventListener("input", choose);

  // --- one photo ---------------------------------------------------------------------------------------------------

  const dialog = find("single");
  const pair = newPair(null);
  let current = null;
  let opener = null;
  dialog.querySelector(".room").append(pair);

  function show(photo) {
    current = photo;
    const place = shown.indexOf(photo);
    fill(pair, photo, false);
    find("single-name").textContent = photo.name;
    find("single-place").textContent = `${(place + 1).toLocaleString()} of ${shown.length.toLocaleString()}`;
    find("previous").disabled = place <= 0;
    find("next").disabled = place >= shown.length - 1;
    const rows = data.figures.map(([name], index) => [name, inWords(photo, index)]);
    if (data.provenances.length > 1 && photo.provenance !== null) rows.push(["Made by", data.provenances[photo.provenance]]);
    find("figures").replaceChildren(...rows.filter(([, text]) => text).map(([name, text]) => {
      const row = document.createElement("div");
      row.append(document.createElement("dt"), document.createElement("dd"));
      row.firstChild.textContent = name;
      row.lastChild.textContent = text;
      return row;
    }));
    for (const [id, label, address] of [["open-left", leftLabel, photo.left], ["open-right", rightLabel, photo.right]]) {
      find(id).textContent = `Open ${label}`;
      find(id).href = address;
    }
    find("notes").textContent = photo.notes.length ? `Note: ${photo.notes.join("; ")}.` : "";
    const following = shown[place + 1];
    if (following) for (const side of data.sides) new Image().src = preview(following, side, false);
  }

  function open(photo) {
    opener = document.activeElement;
    show(photo);
    dialog.showModal();
    find("single-name").focus();
    pressed(true);
  }

  function go(step) {
    const photo = shown[shown.indexOf(current) + step];
    if (!photo) return;
    show(photo);
    // A button that is disabled now would lose the focus to nowhere.
    if (document.activeElement === document.body || document.activeElement.disabled) find("single-name").focus();
  }

  function pressed(single) {
    find("show-single").setAttribute("aria-pressed", String(single));
    find("show-grid").setAttribute("aria-pressed", String(!single));
  }

  dialog.addEventListener("close", () => {
    pressed(false);
    const item = cards.get(current);
    item?.scrollIntoView({ block: "nearest" });
    (opener?.id === "show-single" || !item?.isConnected ? opener : item.querySelector(".open"))?.focus();
  });
  dialog.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const onRange = event.target.matches("input");
    const steps = { ArrowLeft: -1, ArrowRight: 1 };
    const jumps = { PageUp: -1, PageDown: 1 };
    const step = (onRange ? undefined : steps[event.key]) ?? jumps[event.key];
    if (step) go(step);
    else if (event.key.toLowerCase() === "b") split(pair, pair.querySelector("input").value > 50 ? 0 : 100);
    else if (event.key.toLowerCase() === "d" && data.amplified) {
      shows(document.body.dataset.shows === "difference" ? "slider" : "difference");
    } else return;
    event.preventDefault();
  });
  find("close").addEventListener("click", () => dialog.close());
  find("previous").addEventListener("click", () => go(-1));
  find("next").addEventListener("click", () => go(1));
  find("show-single").addEventListener("click", () => open(shown.includes(current) ? current : shown[0]));

  // --- slider or difference ----------------------------------------------------------------------------------------

  function shows(mode) {
    document.body.dataset.shows = mode;
    find("legend").hidden = mode !== "difference";
    for (const button of document.querySelectorAll("[data-mode]")) {
      button.setAttribute("aria-pressed", String(button.dataset.mode === mode));
    }
  }

  for (const button of document.querySelectorAll("[data-mode]")) {
    button.addEventListener("click", () => shows(button.dataset.mode));
  }

  choose();
})();
