"use strict";
/* What is drawn of masks: for every stage and the sum, the best word at every pixel and each word's mask logits. */

const PALETTE = [
  "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#8c8c8c", "#6a3d9a", "#8c564b",
]; // of the words, in their order
const LOW = [33, 102, 172], MIDDLE = [247, 247, 247], HIGH = [178, 24, 43]; // of mask logits
const FINE = 3; // pixels of a map for each of the model's, so that hatching is fine
const NAMES = [...WORLD.stages.map((_, stage) => `stage ${stage + 1}`), "sum"]; // of the columns

const $ = (id) => document.getElementById(id);
const percent = (share) => `${Math.round(100 * share)} %`;
const unseen = (word) => !WORLD.seen.includes(word);
const called = (word) => (unseen(word) ? `${word} (unseen)` : word);
const rgb = (colour) => [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

/* Draw the answer: words, mask logits of every stage, and the right word's number at every pixel.
   Gives the share of pixels with a right word among them where the sum has it; null if there are none. */
function drawMasks({ words, logits, truth }, { on, offset }) {
  const columns = [...logits, summed(logits, on)].map((one) => one && upsampled(one));
  const limit = Math.max(0.1, ...columns.filter(Boolean).map(farthest));
  const rows = tableRows(words, on), right = truth.map((word) => words.indexOf(WORLD.words[word])); // 255: none
  const told = columns.map((masks, column) => {
    const found = masks && best(masks, words, offset), counts = found && counted(found, right, words.length);
    drawBest(rows[0][column], found, words, counts, NAMES[column]);
    words.forEach((word, c) => drawMask(rows[c + 1][column], masks, c, limit, `${called(word)}, ${NAMES[column]}`));
    return counts;
  });
  const sum = told.at(-1);
  drawLegend(words, sum && sum.shares);
  $("lowest").textContent = `not here: ${(-limit).toFixed(1)}`;
  $("highest").textContent = `${limit.toFixed(1)}: here (mask logits)`;
  return sum && sum.right;
}

const farthest = (values) => values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);

/* Each word's share of the pixels, and how many of those with a right word among them have it; null without any. */
function counted(found, right, count) {
  const shares = new Array(count).fill(0);
  let known = 0, hit = 0;
  found.forEach((word, i) => {
    shares[word] += 1 / found.length;
    if (right[i] === 255) return;
    known += 1;
    hit += word === right[i];
  });
  return { shares, right: known ? hit / known : null };
}

/* The table's cells for these words: rows of cells, that of the best word first. Rows that are there stay. */
function tableRows(words, on) {
  const body = $("masks").tBodies[0], titles = ["best word", ...words.map(called)];
  if (body.rows.length !== 2 * titles.length) {
    body.replaceChildren(...titles.flatMap(() => [
      element("tr", {}, element("th", { scope: "rowgroup", colSpan: NAMES.length })),
      element("tr", {}, ...NAMES.map(() => element("td", {}, element("canvas")))),
    ]));
  }
  return titles.map((title, row) => {
    body.rows[2 * row].cells[0].textContent = title;
    const cells = [...body.rows[2 * row + 1].cells];
    cells.forEach((cell, column) => cell.classList.toggle("off", on[column] === false));
    return cells;
  });
}

/* Fill a cell's canvas of `side` pixels with what `colour` gives for each. */
function fill(cell, side, label, colour) {
  const canvas = cell.firstChild, context = canvas.getContext("2d");
  if (canvas.width !== side) canvas.width = canvas.height = side;
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", label);
  const image = context.createImageData(side, side);
  for (let row = 0, at = 0; row < side; row++) {
    for (let column = 0; column < side; column++, at += 4) {
      const [red, green, blue] = colour(row, column);
      image.data[at] = red;
      image.data[at + 1] = green;
      image.data[at + 2] = blue;
      image.data[at + 3] = 255;
    }
  }
  context.putImageData(image, 0, 0);
}

function drawBest(cell, found, words, counts, name) {
  const { side } = WORLD, hatched = words.map(unseen), colours = words.map((_, c) => rgb(PALETTE[c]));
  const dark = colours.map((colour) => colour.map((value) => value * 0.45));
  const said = found && words.map((word, c) => `${called(word)} ${percent(counts.shares[c])}`).join(", ");
  fill(cell, FINE * side, `best word, ${name}: ${said ?? "no stage is on"}`, (row, column) => {
    if (!found) return MIDDLE;
    const word = found[Math.floor(row / FINE) * side + Math.floor(column / FINE)];
    return (hatched[word] && (row + column) % 12 < 3 ? dark : colours)[word];
  });
  const right = counts && counts.right !== null ? `right: ${percent(counts.right)}` : "";
  if (cell.lastChild === cell.firstChild) cell.append(element("span"));
  cell.lastChild.textContent = right;
}

function drawMask(cell, masks, c, limit, label) {
  const { side } = WORLD, own = masks && masks.subarray(c * side * side, (c + 1) * side * side);
  const ends = own && [Math.min(...own), Math.max(...own)].map((end) => end.toFixed(1)).join(" to ");
  fill(cell, side, `${label}: ${own ? `mask logits ${ends}` : "no stage is on"}`, (row, column) => {
    if (!own) return MIDDLE;
    const share = own[row * side + column] / limit, end = share < 0 ? LOW : HIGH, amount = Math.abs(share);
    return MIDDLE.map((value, i) => value + amount * (end[i] - value));
  });
}

function drawLegend(words, shares) {
  $("legend").replaceChildren(...words.map((word, c) => {
    const colour = PALETTE[c], stripes = `repeating-linear-gradient(135deg, #000a 0 2px, ${colour} 2px 5px)`;
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = unseen(word) ? stripes : colour;
    return element("li", {}, swatch, called(word) + (shares ? ` ${percent(shares[c])}` : ""));
  }));
}
