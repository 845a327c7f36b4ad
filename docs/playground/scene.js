"use strict";
/* The scene: what stands in it, how it is drawn, and which word is right at every pixel. Lengths are the model's
   pixels. */

const SMALLEST = 12, MOST_THINGS = 8;
const THING_SIDE = [[48, 80], [38, 58], [30, 48]]; // smallest and largest of one, two and three things, as in training
const PLACEMENTS = 8; // candidate places of a new thing; the one that covers others least is kept

const scene = {
  ground: "sky", beyond: "grass", // `beyond` is empty if there is one ground
  line: { middle: 52, slant: 8, upright: false }, // between the two
  cut: [[60, 60], [20, 90]], // where in their sheets the two begin
  things: [{ name: "tiger", style: "noto", left: 8, top: 40, side: 50, mirrored: false },
           { name: "balloon", style: "noto", left: 60, top: 6, side: 34, mirrored: false }],
};

const any = (list) => list[Math.floor(Math.random() * list.length)];
const between = (low, high) => low + Math.floor(Math.random() * (high - low + 1));
const clamp = (value, low, high) => Math.min(Math.max(value, low), high);

/* Keep a thing within the scene. */
function fit(thing) {
  thing.side = clamp(Math.round(thing.side), SMALLEST, WORLD.side);
  for (const edge of ["left", "top"]) thing[edge] = clamp(Math.round(thing[edge]), 0, WORLD.side - thing.side);
}

/* A new thing where it covers the others least. */
function placed(name, style, side, mirrored = false) {
  const overlap = ({ left, top }) => scene.things.reduce((sum, other) => {
    const shared = (edge, own) => Math.min(own + side, other[edge] + other.side) - Math.max(own, other[edge]);
    return sum + Math.max(shared("left", left), 0) * Math.max(shared("top", top), 0);
  }, 0);
  const spots = Array.from({ length: PLACEMENTS }, () => {
    const spot = { left: between(0, WORLD.side - side), top: between(0, WORLD.side - side) };
    return { ...spot, overlap: overlap(spot) };
  });
  const { left, top } = spots.reduce((least, spot) => (spot.overlap < least.overlap ? spot : least));
  const thing = { name, style, left, top, side, mirrored };
  scene.things.push(thing);
  return thing;
}

/* One to three things of one style on one or two grounds. */
function randomScene() {
  const grounds = [...WORLD.stuff].sort(() => Math.random() - 0.5);
  [scene.ground, scene.beyond] = [grounds[0], any([grounds[1], ""])];
  scene.line = { middle: between(30, 66), slant: between(-20, 20), upright: any([true, false]) };
  scene.cut = [0, 1].map(() => [between(0, 159), between(0, 159)]);
  scene.things = [];
  const style = any(WORLD.styles), count = between(1, 3), [smallest, largest] = THING_SIDE[count - 1];
  for (let i = 0; i < count; i++) {
    const left = WORLD.things.filter((name) => scene.things.every((thing) => thing.name !== name));
    placed(any(left), style, between(smallest, largest), any([true, false]));
  }
}

/* Every word in the scene, each once. */
function wordsInScene() {
  return [...new Set([...scene.things.map((thing) => thing.name), scene.ground, scene.beyond].filter(Boolean))];
}

const loaded = (address) => new Promise((resolve, reject) => {
  const image = new Image();
  image.onload = () => resolve(image);
  image.onerror = () => reject(new Error("a picture cannot be read"));
  image.src = address;
});
const sheets = Promise.all([loaded(WORLD.sprites), loaded(WORLD.textures)]);

/* Draw the scene. Gives its pixels (P, P, 4), and the number of the right word at each (P, P). */
async function paint(canvas) {
  const [sprites, textures] = await sheets, { side } = WORLD;
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const truth = new Uint8Array(side * side);
  for (const [place, name] of [scene.ground, scene.beyond].entries()) {
    if (!name) continue;
    const [left, top] = scene.cut[place], start = WORLD.stuff.indexOf(name) * textures.height;
    context.save();
    if (place) context.clip(beyondLine(truth, WORLD.words.indexOf(name)));
    else truth.fill(WORLD.words.indexOf(name));
    context.drawImage(textures, start + left, top, side, side, 0, 0, side, side);
    context.restore();
  }
  const alone = new OffscreenCanvas(side, side), pen = alone.getContext("2d", { willReadFrequently: true });
  pen.imageSmoothingQuality = "high";
  for (const thing of scene.things) {
    drawSprite(pen, sprites, thing);
    context.drawImage(alone, 0, 0);
    const { data } = pen.getImageData(0, 0, side, side), word = WORLD.words.indexOf(thing.name);
    for (let i = 0; i < truth.length; i++) if (data[4 * i + 3] > 127) truth[i] = word;
  }
  return { pixels: context.getImageData(0, 0, side, side).data, truth };
}

function drawSprite(pen, sprites, { name, style, left, top, side, mirrored }) {
  const { cell } = WORLD, column = WORLD.things.indexOf(name) * cell, row = WORLD.styles.indexOf(style) * cell;
  pen.setTransform(1, 0, 0, 1, 0, 0);
  pen.clearRect(0, 0, WORLD.side, WORLD.side);
  pen.setTransform(mirrored ? -1 : 1, 0, 0, 1, mirrored ? 2 * left + side : 0, 0);
  pen.drawImage(sprites, column, row, cell, cell, left, top, side, side);
}

/* What lies beyond the line, as a path of whole pixels; there, `word` becomes the right one. */
function beyondLine(truth, word) {
  const { side } = WORLD, { middle, slant, upright } = scene.line, path = new Path2D();
  for (let along = 0; along < side; along++) {
    const border = clamp(Math.floor(middle + (slant * (along - side / 2)) / side), 0, side), rest = side - border;
    if (upright) path.rect(border, along, rest, 1);
    else path.rect(along, border, 1, rest);
    for (let i = border; i < side; i++) truth[upright ? along * side + i : i * side + along] = word;
  }
  return path;
}
